"""``python -m lmsys_ensemble`` is the command ``lmsys-ensemble``."""

import sys

from lmsys_ensemble.cli import main

if __name__ == "__main__":
    sys.exit(main())
