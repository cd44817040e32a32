"""Masked image modelling across eye movements."""
