"""Raw development: camera files and Bayer mosaics in, pictures or their uncertainty out."""

from nonet.services.raw_image.derive import derive
from nonet.services.raw_image.develop import SERVICE_PREFIX, DevelopServable
from nonet.services.raw_image.limits import RawLimits

__all__ = ["SERVICE_PREFIX", "DevelopServable", "RawLimits", "derive"]
