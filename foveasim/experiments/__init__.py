"""Experiments that end in a report, each in a room of its own."""
