"""The root directory of this checkout."""

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
