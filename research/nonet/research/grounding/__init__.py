"""A matcher of referring expressions with the regions that a detector found: its data, training and measure."""
