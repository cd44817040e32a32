"""The live window and the session that it shows."""
