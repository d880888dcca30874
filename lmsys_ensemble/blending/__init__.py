"""Combining the probabilities of several scorers."""
