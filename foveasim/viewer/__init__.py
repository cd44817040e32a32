"""The live window, and the session that it shows: an eye, an agent and a network over time."""
