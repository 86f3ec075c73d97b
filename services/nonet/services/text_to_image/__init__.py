"""Pictures from text: a flow-matching network that many requests share at each of its steps."""
