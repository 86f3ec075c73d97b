"""Grounding: a picture and expressions in, the box that each expression means out."""
