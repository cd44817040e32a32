"""Gaze policies by reinforcement learning."""
