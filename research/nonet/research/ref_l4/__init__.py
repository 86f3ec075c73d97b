"""Ref-L4, a benchmark of referring-expression grounding: its metrics, and what drives endpoints through it.

Source: J. Chen et al., "Revisiting Referring Expression Comprehension Evaluation in the Era of Large
Multimodal Models", arXiv 2406.16866.
"""
