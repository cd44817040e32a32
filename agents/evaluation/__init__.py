"""Agents on the same scenes, judged by the same network, and what is measured of them."""
