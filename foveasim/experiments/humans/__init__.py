"""How human is an agent's gaze?"""
