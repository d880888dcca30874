"""Models: loading, adapters, forward pass. The only room besides training/ that imports torch."""
