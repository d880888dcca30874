"""Models: loading, adapters, forward pass. The only room besides ``training/`` that imports torch."""

import logging

# On a CPU bitsandbytes says with every matrix product that it converts its input, and when it is imported that it
# misses an optional kernel. Neither is anything that a user could act upon.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
