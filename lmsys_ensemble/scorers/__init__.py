"""Scorers: from battles to logits."""
