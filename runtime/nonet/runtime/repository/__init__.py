"""The model repository: Triton's layout on disk, verified before use, published atomically, hot-reloaded."""

from nonet.runtime.errors import ModelRefused
from nonet.runtime.repository.config import build_config
from nonet.runtime.repository.layout import is_model_name
from nonet.runtime.repository.manager import Derivation, RepositoryManager
from nonet.runtime.repository.manifest import DataSource, Manifest, Preprocessing
from nonet.runtime.repository.publish import publish_version
from nonet.runtime.repository.state import Change, ChangeKind

__all__ = [
    "Change",
    "ChangeKind",
    "DataSource",
    "Derivation",
    "Manifest",
    "ModelRefused",
    "Preprocessing",
    "RepositoryManager",
    "build_config",
    "is_model_name",
    "publish_version",
]
