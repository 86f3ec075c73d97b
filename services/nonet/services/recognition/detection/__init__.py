"""Detection: encoded images in, boxes with labels and scores out."""
