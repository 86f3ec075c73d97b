"""Prometheus metrics: counters fed by the core's events, and the text of ``/metrics``."""
