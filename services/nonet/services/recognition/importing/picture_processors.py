"""``preprocessor_config.json`` of transformers: how each kind of image processor turns a picture into pixels.

The file states values only; what they mean is a matter of the processor's class. A class that is not listed
here is not read, since a wrong meaning would give answers that only look right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from nonet.runtime.network_import import NetworkRefused
from nonet.services.recognition.importing.facts import Facts, side, square, triple

_STRETCHING: Final = ("ViT", "DeiT", "Beit", "Siglip", "Siglip2", "Swin2SR", "Perceiver", "Segformer")
_CROPPING: Final = ("CLIP", "Bit", "MobileNetV1", "MobileNetV2", "ChineseCLIP", "VideoMAE")
_CONVNEXT: Final = "ConvNext"
_MOBILEVIT: Final = "MobileViT"
_LEVIT: Final = "Levit"
_KINDS: Final = (*_STRETCHING, *_CROPPING, _CONVNEXT, _MOBILEVIT, _LEVIT)
_ENDINGS: Final = ("ImageProcessorFast", "ImageProcessorPil", "ImageProcessor", "FeatureExtractor")
RESAMPLING: Final = {1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_CONVNEXT_WHOLE: Final = 384  # from this size on, ConvNext's processor stretches and does not crop


def kind_of(config: Mapping[str, Any]) -> str:
    """The processor's class without its ending, e.g. ``ViT``; "" if none is named."""
    named = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    for ending in _ENDINGS:
        if named.endswith(ending):
            return named.removesuffix(ending)
    return named


def read_processor(config: Mapping[str, Any], where: str) -> Facts:
    """What a processor does; empty for a kind that is not known. Raises NetworkRefused for what cannot be
    served."""
    config = {key: value for key, value in config.items() if value is not None}  # null is "not said"
    kind = kind_of(config)
    if kind not in _KINDS:
        return Facts()
    mean, std = normalisation(config, kind != _MOBILEVIT, where)
    facts = Facts(system="transformers", mean=mean, std=std, layout="nchw", read_from=(where,))
    facts = Facts(channels="bgr" if config.get("do_flip_channel_order", kind == _MOBILEVIT) else "rgb").over(
        facts
    )
    if not config.get("do_resize", True):
        raise NetworkRefused(
            f"{where}: its pictures are not resized (do_resize), so they must come in one size"
        )
    resample = config.get("resample")
    if resample in RESAMPLING:
        facts = Facts(interpolation=RESAMPLING[resample]).over(facts)
    elif resample is not None:
        raise NetworkRefused(
            f"{where}: resample {resample!r} is not served; lanczos, bilinear and bicubic are"
        )
    return _geometry(config, kind, where).over(facts)


def _geometry(config: Mapping[str, Any], kind: str, where: str) -> Facts:
    """Sizes and fit."""
    shortest, both = _size(config.get("size"), kind, where)
    if kind == _CONVNEXT and shortest is not None:
        if shortest >= _CONVNEXT_WHOLE:
            return Facts(size=shortest, resize=shortest, fit="stretch")
        share = config.get("crop_pct")
        if not isinstance(share, int | float) or not 0 < share <= 1:
            return Facts(size=shortest)
        return Facts(size=shortest, resize=int(shortest / share), fit="crop")
    if kind == _LEVIT and shortest is not None:
        shortest = int(256 / 224 * shortest)
    crops = config.get("do_center_crop", "crop_size" in config)
    cut = _crop(config.get("crop_size"), where) if crops else None
    if crops and cut is None:
        return Facts(resize=both or shortest)
    if both is not None:
        return Facts(size=cut or both, resize=both, fit="stretch")
    if shortest is None or cut is None:
        return Facts(size=cut, resize=shortest)
    return Facts(size=cut, resize=shortest, fit="crop")


def _size(size: Any, kind: str, where: str) -> tuple[int | None, int | None]:
    """Pixels of the shorter side, or of both sides; of a bare number, the class decides which."""
    what = f"{where}: size"
    if isinstance(size, Mapping):
        size = {key: value for key, value in size.items() if value is not None}
        if "shortest_edge" in size and "longest_edge" not in size:
            return side(size["shortest_edge"], what), None
        if {"height", "width"} <= size.keys():
            return None, square(size["height"], size["width"], what)
        raise NetworkRefused(f"{what} {size} is not served; shortest_edge, or height and width, are")
    if isinstance(size, list | tuple) and len(size) == 2:
        return None, square(size[0], size[1], what)
    if size is None:
        return None, None
    return (None, side(size, what)) if kind in _STRETCHING else (side(size, what), None)


def _crop(size: Any, where: str) -> int | None:
    what = f"{where}: crop_size"
    if isinstance(size, Mapping):
        return square(size.get("height"), size.get("width"), what)
    return None if size is None else side(size, what)


def normalisation(
    config: Mapping[str, Any], by_default: bool, where: str
) -> tuple[tuple[float, float, float] | None, tuple[float, float, float] | None]:
    """Mean and std on the scale 0..1, the rescaling folded in; None where the file leaves them open.

    ``by_default``: whether a processor of this kind normalises if the file does not say.
    """
    scale = 1.0
    if config.get("do_rescale", True):
        factor = config.get("rescale_factor", 1 / 255)
        if not isinstance(factor, int | float) or factor <= 0:
            raise NetworkRefused(f"{where}: rescale_factor {factor!r} is not a number above 0")
        scale = factor * 255
    else:
        scale = 255.0
    if abs(scale - 1) < 1e-6:  # a factor written with few digits is still 1 / 255
        scale = 1.0
    if not config.get("do_normalize", by_default):
        return (0.0, 0.0, 0.0), triple(1 / scale, where)
    mean, std = config.get("image_mean"), config.get("image_std")
    if mean is None or std is None:
        return None, None
    red, green, blue = (each / scale for each in triple(mean, f"{where}: image_mean"))
    first, second, third = (each / scale for each in triple(std, f"{where}: image_std"))
    return (red, green, blue), (first, second, third)
