"""The agent learned from people's scanpaths, and its fit."""
