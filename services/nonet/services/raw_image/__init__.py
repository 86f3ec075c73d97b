"""Raw development: camera files and Bayer mosaics in, pictures or their uncertainty out."""

from nonet.services.raw_image.derive import derive
from nonet.services.raw_image.develop import SERVICE_PREFIX, DevelopServable
from nonet.services.raw_image.limits import RawLimits
from nonet.services.raw_image.long_development import develop_file
from nonet.services.raw_image.options import read_options
from nonet.services.raw_image.partial_picture import write_whole
from nonet.services.raw_image.upload import take_upload

__all__ = [
    "SERVICE_PREFIX",
    "DevelopServable",
    "RawLimits",
    "derive",
    "develop_file",
    "read_options",
    "take_upload",
    "write_whole",
]
