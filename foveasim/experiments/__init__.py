"""Experiments that end in a report."""
