"""The command line: which commands there are, how their options are read, and ``watch`` and ``info``."""
