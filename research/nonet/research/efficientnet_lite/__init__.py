"""EfficientNet-Lite in PyTorch: the teacher of the distilled families, and the largest member of them."""
