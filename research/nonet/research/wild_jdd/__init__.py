"""Wild-JDD: joint demosaicking and denoising when the training ground truth is itself uncertain.

J. Chen, S. Wen, S.-H. G. Chan, "Joint Demosaicking and Denoising in the Wild: The Case of Training Under
Ground Truth Uncertainty", AAAI 2021, arXiv 2101.04442. The parts of the method that the paper leaves to
VDNet (arXiv 1908.11314) follow that work; what neither states is marked as a design choice where it is made.

bayer         mosaicking, packing, bilinear interpolation for the four Bayer phases
noise         the noise models
degradation   the two-stage degradation and its conjugate prior
elbo          the closed-form loss, term by term
network       from a packed mosaic to the posterior's parameters
train         the training loop
finetune      adapting to one input without ground truth
evaluate      tables, calibration and the paper's effects on real photographs
"""
