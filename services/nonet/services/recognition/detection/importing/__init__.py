"""Detectors exported elsewhere: told apart by their outputs, brought to the served form, published."""
