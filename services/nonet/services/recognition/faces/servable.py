"""Face embedding as a service: find the largest face, bring it upright, one run of the network for all
rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import PIL

from nonet.runtime.errors import InvalidArgument, ServingError
from nonet.runtime.images import DecodedImage, ImageLimits, Preprocessing, decode_image, preprocess
from nonet.runtime.images.similarity import fit_similarity, warp
from nonet.runtime.requests import InferRequest, Parameter
from nonet.runtime.row_service import RowService, service_info
from nonet.runtime.servable import Servable
from nonet.runtime.tensors import Array, DataType, Tensor, TensorSpec
from nonet.services.recognition.faces.finding import FaceFinder, FoundFace
from nonet.services.recognition.sample_photo import sample_photo

SERVICE_PREFIX: Final = "faces."
INPUT: Final = "image"
CROP: Final = "crop"
"""Parameter: every row is a face and nothing else."""
NAMES: Final = "names"
"""Parameter: what callers call the rows, with commas; for messages."""

OUTPUTS: Final = ("embedding", "box", "score", "landmarks", "aligned", "found", "size")

_TARGET: Final = (512, 512)  # a JPEG is decoded at no less than twice this
_RULES: Final = 1  # raise when reading or finding changes what a picture turns into


@dataclasses.dataclass(frozen=True, slots=True)
class Alignment:
    """Where the landmarks of a face go: ``landmarks`` [5, 2] in a square of ``side`` pixels."""

    side: int
    landmarks: tuple[tuple[float, float], ...]


@dataclasses.dataclass(frozen=True, slots=True)
class _Seen:
    """What was found in one picture: the face, or None if the picture was said to be one."""

    face: FoundFace | None
    found: int
    width: int
    height: int


class FacesServable(RowService[list[_Seen]]):
    """``image`` BYTES [N] to ``embedding`` FP32 [N, D] of unit length, and what was found: ``box`` [N, 4],
    ``score`` [N], ``landmarks`` [N, 10] FP32 in pixels of the upright picture, ``aligned`` BOOL [N],
    ``found`` INT32 [N] (the largest face counts) and ``size`` INT32 [N, 2] (width, height).

    With the parameter ``crop`` true, the whole picture is the face; its score is 1, its landmarks are zeros.
    Pictures are decoded and searched in the lane's own thread. A request fails alone, as a whole, with the
    row named if it has several.

    Args:
        network: FP32 [N, 3, S, S] to one embedding a row; closed by its owner, after this service.
        preprocessing: of an upright face.
        finder: finds faces; None if the version has no detector: then only crops are taken.
        alignment: where the landmarks of an upright face are.
        limits: bounds for one image.
        facts: everything else that decides the answers, JSON-able.
    """

    def __init__(
        self,
        network: Servable,
        preprocessing: Preprocessing,
        finder: FaceFinder | None,
        alignment: Alignment,
        limits: ImageLimits,
        facts: Any,
    ) -> None:
        self._preprocessing, self._finder = preprocessing, finder
        self._alignment, self._limits = alignment, limits
        info = network.info
        width = info.outputs[0].shape[1]
        columns = (
            (DataType.FP32, (-1, width)),
            (DataType.FP32, (-1, 4)),
            (DataType.FP32, (-1,)),
            (DataType.FP32, (-1, 10)),
            (DataType.BOOL, (-1,)),
            (DataType.INT32, (-1,)),
            (DataType.INT32, (-1, 2)),
        )
        super().__init__(
            network,
            service_info(
                info,
                SERVICE_PREFIX,
                facts={
                    "network": info.digest,
                    "preprocessing": preprocessing.to_manifest(),
                    "alignment": dataclasses.asdict(alignment),
                    "limits": dataclasses.asdict(limits),
                    "decoder": ["pillow", PIL.__version__, _RULES],
                    "more": facts,
                },
                takes=INPUT,
                outputs=tuple(
                    TensorSpec(name, *column) for name, column in zip(OUTPUTS, columns, strict=True)
                ),
                max_batch_size=info.max_batch_size,
                details={"preprocessing": preprocessing.to_manifest(), "finds_faces": finder is not None},
            ),
        )

    def _sample(self) -> bytes:
        return sample_photo()

    def sample_request(self, rows: int) -> InferRequest:
        """Of crops: the sample shows no face, so only as one can it be measured; the search for faces is
        learnt from what is asked."""
        return dataclasses.replace(super().sample_request(rows), parameters={CROP: True})

    def warm_up(self) -> None:
        """As every service, and a search that finds nothing, which is no failure."""
        super().warm_up()
        if self._finder is not None:
            self.execute([super().sample_request(1)])

    def _read(self, rows: Sequence[bytes]) -> tuple[Array, list[_Seen]]:
        return self._read_asked(rows, {})

    def _read_asked(
        self, rows: Sequence[bytes], parameters: Mapping[str, Parameter]
    ) -> tuple[Array, list[_Seen]]:
        """The upright faces [N, 3, S, S], and what was seen."""
        crop = parameters.get(CROP, False)
        names = str(parameters.get(NAMES, "")).split(",") if parameters.get(NAMES) else []
        if not isinstance(crop, bool):
            raise InvalidArgument(f"parameter '{CROP}' must be true or false", param=CROP)
        if names and len(names) != len(rows):
            raise InvalidArgument(f"parameter '{NAMES}' must name each of {len(rows)} rows", param=NAMES)
        if self._finder is None and not crop:
            raise InvalidArgument(
                "this model has no face detector and takes cut-out faces only: say crop=true", param=CROP
            )
        side = self._preprocessing.crop
        pixels = np.empty((len(rows), 3, side, side), dtype=np.float32)
        seen: list[_Seen] = []
        for row, data in enumerate(rows):
            try:
                decoded = decode_image(data, limits=self._limits, target=_TARGET)
                upright, what = self._upright(decoded, None if crop else self._finder)
            except ServingError as error:
                if names:
                    raise _called(error, names[row], names[row]) from None
                raise (
                    _called(error, f"row {row} of '{INPUT}'", error.param) if len(rows) > 1 else error
                ) from None
            pixels[row] = preprocess(upright, self._preprocessing)
            seen.append(what)
        return pixels, seen

    def _upright(self, decoded: DecodedImage, finder: FaceFinder | None) -> tuple[DecodedImage, _Seen]:
        """The face that is described, as a picture, and what was seen. Raises InvalidArgument
        (``FACE_NOT_FOUND``)."""
        width, height = decoded.width, decoded.height
        if finder is None:
            return decoded, _Seen(None, 1, width, height)
        faces = finder.find(decoded.image)
        if not faces:
            raise InvalidArgument(
                f"{INPUT}: no face was found in it; if the picture is a face and nothing else, say crop=true",
                param=INPUT,
                code="FACE_NOT_FOUND",
            )
        largest, side = faces[0], self._alignment.side
        picture = warp(
            decoded.image, fit_similarity(largest.landmarks, self._alignment.landmarks), (side, side)
        )
        scale = np.array([width, height]) / decoded.image.size  # a large JPEG is decoded smaller
        in_original = FoundFace(largest.box * np.tile(scale, 2), largest.score, largest.landmarks * scale)
        return DecodedImage(picture, side, side, decoded.format), _Seen(
            in_original, len(faces), width, height
        )

    def _answer(self, outputs: Mapping[str, Array], noted: list[_Seen]) -> tuple[Tensor, ...]:
        (raw,) = outputs.values()
        faces = [(_whole(each) if each.face is None else each.face, each.face is not None) for each in noted]
        columns = (
            (DataType.FP32, unit_rows(raw)),
            (
                DataType.FP32,
                np.array([_inside(face.box, seen) for (face, _), seen in zip(faces, noted, strict=True)]),
            ),
            (DataType.FP32, np.array([face.score for face, _ in faces])),
            (DataType.FP32, np.array([face.landmarks.reshape(-1) for face, _ in faces])),
            (DataType.BOOL, np.array([aligned for _, aligned in faces])),
            (DataType.INT32, np.array([seen.found for seen in noted])),
            (DataType.INT32, np.array([(seen.width, seen.height) for seen in noted])),
        )
        return tuple(
            Tensor(name, kind, values.astype(kind.numpy))
            for name, (kind, values) in zip(OUTPUTS, columns, strict=True)
        )


def unit_rows(vectors: Array) -> Array:
    """Rows of [N, D] scaled to length 1 in double precision, FP32; each depends on itself alone."""
    found = np.empty(vectors.shape, dtype=np.float32)
    for row, values in enumerate(vectors):
        exact = values.astype(np.float64)
        found[row] = exact / max(float(np.sqrt((exact * exact).sum())), 1e-12)
    return found


def _whole(seen: _Seen) -> FoundFace:
    """A picture that is a face."""
    return FoundFace(np.array([0, 0, seen.width, seen.height], dtype=np.float64), 1.0, np.zeros((5, 2)))


def _inside(box: Array, seen: _Seen) -> Array:
    """A box cut to its picture."""
    return np.clip(box, 0, np.tile([seen.width, seen.height], 2))


def _called(error: ServingError, name: str, param: str | None) -> ServingError:
    """The same failure of a picture that is called ``name``."""
    message = f"{name}: {error.message.removeprefix(f'{INPUT}: ')}"
    return type(error)(message, param=param, code=error.code, retry_after=error.retry_after)
