"""Masks of the main object of every image, by which pretraining may weigh its loss."""
