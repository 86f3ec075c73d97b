"""Recognition: encoded images in, class scores out."""

from nonet.services.recognition.classify import SERVICE_PREFIX, ClassifyServable
from nonet.services.recognition.derive import derive

__all__ = ["SERVICE_PREFIX", "ClassifyServable", "derive"]
