"""Floor identification: WiFi scans in, floors out; and the uploads that buildings are fitted on."""

from nonet.services.floor_identification.derive import derive
from nonet.services.floor_identification.identify import SERVICE_PREFIX, IdentifyServable
from nonet.services.floor_identification.upload import ReadUpload, UploadLimits, read_upload

__all__ = [
    "SERVICE_PREFIX",
    "IdentifyServable",
    "ReadUpload",
    "UploadLimits",
    "derive",
    "read_upload",
]
