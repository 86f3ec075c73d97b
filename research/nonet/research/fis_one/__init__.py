"""FIS-ONE: the floors of a building from crowdsourced WiFi scans of which one carries a floor label.

W. Zhuo, K. H. Chiu, J. Chen, Z. Zhao, S.-H. G. Chan, S. Ha, C.-H. Lee, "FIS-ONE: Floor Identification System
with One Label for Crowdsourced RF Signals", ICDCS 2023, arXiv 2307.05914.
"""
