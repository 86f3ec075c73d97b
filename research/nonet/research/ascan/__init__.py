"""AsCAN (NeurIPS 2024): hybrid networks, convolution early and attention late, for classes and for masks."""
