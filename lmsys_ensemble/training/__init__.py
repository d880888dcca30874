"""Training of adapters and heads."""
