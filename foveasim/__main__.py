"""``python -m foveasim``."""

import sys

from foveasim.cli import main

if __name__ == "__main__":
    sys.exit(main())
