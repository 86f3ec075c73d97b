"""Weights that were trained elsewhere -> a published model, by the system that they are of: a network that
its own description lies beside, or a FasterNet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nonet.runtime.network_import import NetworkUnclear
from nonet.runtime.repository.layout import VersionFolder

__all__ = ["import_weights"]

_DESCRIPTION: Final = "network.json"


def import_weights(
    file: Path,
    name: str,
    repository: Path,
    *,
    variant: str | None = None,
    labels: Sequence[str] = (),
    calibration: Path | None = None,
    features: Sequence[str] = (),
    family: str = "",
    licence: str = "",
    credit: str = "",
) -> VersionFolder:
    """Publish the network in ``file`` as ``name``.

    Raises NetworkUnclear for an option that is for the other kind of network, and what the system's importer
    raises.
    """
    described = file.suffix == ".safetensors" and (file.parent / _DESCRIPTION).is_file()
    given: list[tuple[str, object]] = [("--calibration", calibration), ("--features", features)]
    if described:
        given = [("--variant", variant), ("--labels", labels)]
    for option, value in given:
        if value:
            kind = f"a network with a {_DESCRIPTION} beside it"
            which = f"not for {kind}" if described else f"only for ONNX and {kind}"
            raise NetworkUnclear(f"{option}: {which}", param=option)
    if described:
        from nonet.research.tasfar.importer import import_regressor_network

        return import_regressor_network(
            file,
            name,
            repository,
            calibration=calibration,
            features=features,
            family=family,
            licence=licence,
            credit=credit,
        )
    from nonet.research.fasternet.importer import import_checkpoint

    return import_checkpoint(
        file, name, repository, variant=variant, labels=labels, family=family, licence=licence, credit=credit
    )
