"""FasterNet (CVPR 2023): network, checkpoints, training by distillation, evaluation and export."""
