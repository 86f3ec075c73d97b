"""What lies in the folder of an exported pipeline, in the layout of diffusers' and optimum's ONNX exports."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import onnx

from nonet.runtime.network_import import NetworkOfAnotherTask, NetworkRefused

__all__ = ["PipelineFolder", "read_folder"]

INDEX_FILE: Final = "model_index.json"
_NETWORK: Final = "model.onnx"
_LARGEST: Final = 2_000_000_000  # bytes of a network that is read whole


@dataclasses.dataclass(frozen=True, slots=True)
class PipelineFolder:
    """A pipeline whose networks are ONNX.

    Args:
        root: the folder.
        kind: the pipeline's class, e.g. ``StableDiffusionPipeline``.
        two_encoders: whether a second text encoder is there (SDXL).
    """

    root: Path
    kind: str
    two_encoders: bool

    def config(self, part: str, name: str = "config.json") -> Mapping[str, Any]:
        """A part's configuration. Raises NetworkRefused if it is not there."""
        return _json(self.root / part / name, f"{part}/{name}")

    def network(self, part: str) -> Any:
        """A part's network without the weights that lie beside it. Raises NetworkRefused if it is none."""
        try:
            return onnx.load(str(self.root / part / _NETWORK), load_external_data=False)
        except Exception as error:  # protobuf raises classes of its own
            raise NetworkRefused(f"{part}/{_NETWORK} cannot be read as ONNX") from error

    def whole_network(self, part: str) -> Any:
        """A part's network with all its weights. Raises NetworkRefused if it is none or too large for one
        file."""
        size = sum(each.stat().st_size for each in (self.root / part).iterdir() if each.is_file())
        if size > _LARGEST:
            raise NetworkRefused(f"{part} has {size} bytes; up to {_LARGEST} are read: export it in fp16")
        try:
            return onnx.load(str(self.root / part / _NETWORK))
        except Exception as error:  # protobuf raises classes of its own
            raise NetworkRefused(f"{part}/{_NETWORK} cannot be read as ONNX") from error

    def beside(self, part: str, model: Any) -> dict[str, Path]:
        """Files with a network's weights, by the names that it calls them. Raises NetworkRefused if one is
        missing or outside its folder."""
        names = {
            entry.value
            for tensor in model.graph.initializer
            for entry in tensor.external_data
            if entry.key == "location"
        }
        found = {}
        for name in names:
            path = self.root / part / name
            if Path(name).name != name or not path.is_file():
                raise NetworkRefused(f"{part}/{_NETWORK} needs the file {name!r} beside it")
            found[name] = path
        return found


def read_folder(path: Path) -> PipelineFolder:
    """The pipeline in a folder, or of its ``model_index.json``.

    Raises NetworkOfAnotherTask for what is no pipeline's folder, NetworkRefused for a pipeline that cannot be
    served, saying what could be.
    """
    root = path.parent if path.name == INDEX_FILE else path
    if not (root / INDEX_FILE).is_file():
        raise NetworkOfAnotherTask(f"'{path.name}' is no folder of a pipeline: it has no {INDEX_FILE}")
    index = _json(root / INDEX_FILE, INDEX_FILE)
    parts = {name for name, value in index.items() if isinstance(value, list) and value[:1] != [None]}
    kind = str(index.get("_class_name", "")).removeprefix("ORT").removeprefix("Onnx")
    if "unet" not in parts and "transformer" in parts:
        raise NetworkRefused(f"{kind} has a transformer; pipelines with a UNet and CLIP can be imported")
    wanted = ["unet", "vae_decoder", "text_encoder"]
    two = (root / "text_encoder_2").is_dir()
    if two:
        wanted.append("text_encoder_2")
    missing = [part for part in wanted if not (root / part / _NETWORK).is_file()]
    if missing:
        raise NetworkRefused(
            f"{', '.join(f'{part}/{_NETWORK}' for part in missing)} is not there: export the pipeline to "
            "ONNX first ('optimum-cli export onnx --model FOLDER OUTPUT')"
        )
    return PipelineFolder(root, kind, two)


def _json(path: Path, shown: str) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NetworkRefused(f"{shown} cannot be read") from error
    if not isinstance(found, dict):
        raise NetworkRefused(f"{shown} is no object")
    return found
