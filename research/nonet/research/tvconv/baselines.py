"""What face verification reaches without a network: grey pixels, and eigenfaces. No torch."""

from __future__ import annotations

import numpy as np
from PIL import Image

from nonet.research.tvconv.face_files import Faces
from nonet.research.tvconv.verification import unit

SIDE = 32
COMPONENTS = 100


def grey_pixels(faces: Faces) -> np.ndarray:
    """Aligned faces as (N, 1024): 32 x 32 grey, each with mean 0 and variance 1."""
    small = np.stack(
        [
            np.asarray(
                Image.fromarray(picture).convert("L").resize((SIDE, SIDE), Image.Resampling.BICUBIC),
                dtype=np.float64,
            ).reshape(-1)
            for picture in faces.pictures
        ]
    )
    centred = small - small.mean(1, keepdims=True)
    return np.asarray(centred / np.maximum(centred.std(1, keepdims=True), 1e-6))


def pixel_embeddings(faces: Faces) -> np.ndarray:
    """The grey pixels themselves, of unit length."""
    return unit(grey_pixels(faces))


def eigenface_embeddings(train: Faces, faces: Faces, *, whitened: bool) -> np.ndarray:
    """Eigenfaces (Turk and Pentland, 1991): projections on the 100 main directions of the training faces, of
    unit length; `whitened` gives all directions the same variance."""
    known = grey_pixels(train)
    mean = known.mean(0)
    _, spread, directions = np.linalg.svd(known - mean, full_matrices=False)
    count = min(COMPONENTS, len(spread) - 1)
    found = (grey_pixels(faces) - mean) @ directions[:count].T
    return unit(found / spread[:count] if whitened else found)
