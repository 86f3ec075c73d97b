"""Nonet's models on a Triton Inference Server: the repository it reads, and what runs inside it."""
