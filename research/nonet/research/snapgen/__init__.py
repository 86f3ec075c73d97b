"""SnapGen (CVPR 2025): text to image with a small UNet, a tiny decoder, distillation and few steps."""
