"""Agents on the same scenes under the same judge, and what is measured of them."""
