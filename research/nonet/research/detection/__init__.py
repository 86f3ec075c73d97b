"""Object detection: a FasterNet or EfficientNet-Lite0 backbone with an anchor-free head."""
