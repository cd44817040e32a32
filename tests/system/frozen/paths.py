"""Where things lie."""

from __future__ import annotations

from pathlib import Path

__all__ = ["FROZEN", "RECORDED"]

SYSTEM = Path(__file__).resolve().parent.parent
FROZEN = SYSTEM / "baseline.json"
"""The frozen values."""
RECORDED = SYSTEM / "baseline"
"""Small files that foveasim wrote at the time."""
