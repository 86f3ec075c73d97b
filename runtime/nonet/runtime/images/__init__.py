"""Untrusted image bytes to tensors: bounded, strict decoding and the preprocessing that a manifest states."""

from nonet.runtime.images.decode import DecodedImage, decode_image
from nonet.runtime.images.limits import ACCEPTED, ImageLimits
from nonet.runtime.images.preprocess import Preprocessing, preprocess

__all__ = ["ACCEPTED", "DecodedImage", "ImageLimits", "Preprocessing", "decode_image", "preprocess"]
