"""The eye: retinas, acuity, saccades, belief."""
