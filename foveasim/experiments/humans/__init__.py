"""How human is an agent's gaze? ``foveasim humans``: agents and floors scored against people's scanpaths."""
