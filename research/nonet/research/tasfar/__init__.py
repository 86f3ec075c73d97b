"""TASFAR: adapting a regressor to a new site from unlabelled inputs, without the data it was trained on.

Source: T. He, Z. Xia, J. Chen, H. Li, S.-H. G. Chan, "Target-agnostic Source-free Domain Adaptation for
Regression Tasks", ICDE 2024, arXiv 2312.00540.
"""
