"""Models that run inside Triton's Python backend; they import what only that has."""
