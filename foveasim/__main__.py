"""``python -m foveasim``."""

from foveasim.cli import entry

if __name__ == "__main__":
    entry()
