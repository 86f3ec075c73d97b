"""Nonet's models on a Triton Inference Server: the folder it reads, and the Python models that run inside it."""
