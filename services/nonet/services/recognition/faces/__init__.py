"""Faces: the largest face of a photograph as a vector, and whether two faces are of one person."""
