"""Driftline: trace the quality drift of a converted model to the conversion that caused it."""

__version__ = "0.2.0"
