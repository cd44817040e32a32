"""Scanpaths, every reader and writer of them, and fixations from raw gaze."""
