"""The one simulator: eyes in lanes, each before its scene, moved step by step."""
