"""A matcher of referring expressions with regions that a detector found: data, training, measure."""
