"""A SuperLink for Flower federations, built as one supervised Trio task tree."""

from __future__ import annotations

__version__ = "0.1.0"
