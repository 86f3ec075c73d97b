"""TVConv (CVPR 2022): convolution whose kernel differs by position, for pictures with a fixed layout."""
