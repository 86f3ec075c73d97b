"""Counting what happened, and telling Prometheus."""
