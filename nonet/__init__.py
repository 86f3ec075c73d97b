"""Nonet: nine research systems for efficient vision and sensing, served as one product."""

__version__ = "0.1.0"
