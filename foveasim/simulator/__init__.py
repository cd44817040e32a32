"""The one batched eye over scenes: lanes, clocks, gaze."""
