"""The commands: what is typed, and what starts."""
