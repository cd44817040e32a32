"""Masks of the main object of images."""
