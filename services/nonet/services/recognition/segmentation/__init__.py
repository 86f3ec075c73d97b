"""Segmentation: encoded images in, a mask of the image's own pixels for each class out."""

from nonet.services.recognition.segmentation.derive import derive
from nonet.services.recognition.segmentation.segment import SERVICE_PREFIX, SegmentServable

__all__ = ["SERVICE_PREFIX", "SegmentServable", "derive"]
