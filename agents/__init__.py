"""Who looks and who predicts: gaze policies and networks."""
