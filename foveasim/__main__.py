"""``python -m foveasim``."""

from foveasim.cli.commands import entry

if __name__ == "__main__":
    entry()
