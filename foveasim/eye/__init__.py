"""What an eye is: retinas, acuity, saccades, and belief, which is what it has seen so far."""
