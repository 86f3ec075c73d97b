"""Int8 variants of published classifiers, with the loss measured on held-back pictures."""
