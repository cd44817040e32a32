"""The networks that predict, one architecture a module."""
