"""Learned gaze policies as they act: networks, features, rewards, files. Training them is in agents/rl."""
