"""``manifest.json``: where a version comes from, what it was measured to do, and the hash of its files."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from nonet.runtime.errors import ModelRefused

_SHA256 = re.compile(r"[0-9a-f]{64}")
_LARGEST_MANIFEST = 4 << 20


def _sha256(value: str) -> str:
    if not _SHA256.fullmatch(value):
        raise ValueError("must be 64 lower-case hexadecimal digits")
    return value


Sha256 = Annotated[str, AfterValidator(_sha256)]


class _Strict(BaseModel):
    """Unknown keys are refused, naming the nearest known one: a typo must not silently change a model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _no_unknown_keys(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            known = [field.alias or name for name, field in cls.model_fields.items()]
            for key in data:
                if key not in known:
                    near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)
                    raise ValueError(f"unknown key '{key}'; did you mean '{near[0]}'?")
        return data


class DataSource(_Strict):
    """A data set the version learnt from: its name, licence and where it comes from."""

    name: str
    licence: str = ""
    origin: str = ""


class Preprocessing(_Strict):
    """How an encoded image becomes the network's input.

    ``resize``: pixels of the shorter edge before the crop; ``crop``: pixels of the square that goes in;
    ``mean`` and ``std``: of RGB scaled to 0..1; ``resize_type``: ``crop`` keeps the aspect ratio,
    ``standard`` stretches both edges to ``resize``, ``fit_to_window`` scales the whole picture to a long edge
    of ``resize``, top left, and fills the rest with ``pad_value``, 0 to 255; ``fit_to_window_letterbox`` does
    so in the middle.
    """

    resize: int = Field(ge=1, le=8192)
    crop: int = Field(ge=1, le=8192)
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    resize_type: Literal["crop", "standard", "fit_to_window", "fit_to_window_letterbox"] = "crop"
    pad_value: int = Field(default=0, ge=0, le=255)

    @model_validator(mode="after")
    def _consistent(self) -> Preprocessing:
        if self.crop > self.resize:
            raise ValueError(f"crop {self.crop} is larger than resize {self.resize}")
        if len(self.mean) != len(self.std) or any(value <= 0 for value in self.std):
            raise ValueError("mean and std need the same length, and every std must be above 0")
        return self


class Variant(_Strict):
    """What a version in a cheaper precision lost against the version it was made of.

    ``of``, ``version``: that version, the original; ``precision``: of the variant's arithmetic; ``figure``: a
    key of ``quality``, the larger the better; ``loss``: the original's figure less the variant's, measured on
    the same examples, negative for a gain; ``allowed_loss``: the largest that is served; ``allowed_error``:
    largest difference from the original's answers on the check set, as a fraction of their largest value.
    """

    of: str = Field(min_length=1)
    version: str = Field(pattern=r"^[1-9][0-9]*$")
    precision: Literal["int8"]
    figure: str = Field(min_length=1)
    loss: float = Field(allow_inf_nan=False)
    allowed_loss: float = Field(ge=0, allow_inf_nan=False)
    allowed_error: float = Field(gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _worth_serving(self) -> Variant:
        if self.loss > self.allowed_loss:
            raise ValueError(
                f"the {self.precision} variant of {self.of} version {self.version} loses {self.loss:.4g} of "
                f"{self.figure}, more than the {self.allowed_loss:.4g} allowed"
            )
        return self


class Manifest(_Strict):
    """The manifest of one version; ``files`` is enforced at every load.

    Args:
        schema: version of this format, 1.
        files: sha256 (hex) of every file of the version folder that may be read, by relative name.
        source: system, paper, variant and other facts about the origin.
        command: the command that made the version.
        data: what it learnt from.
        quality: measured figures (numbers) and on what they were measured (text).
        licence, credit: of the weights.
        task: ``classification`` or another task; "" for a bare network.
        family: family of interchangeable models, "" if none.
        preprocessing: how images become inputs, for tasks on images.
        check_set: safetensors file with inputs and the outputs expected of fp32, by tensor name.
        allow_nonfinite: whether NaN and infinities are a valid answer.
        shadow_rows: rows of live requests that the version answers beside the one before it, unseen by the
            callers, before it may take its place; 0: it takes it at once.
        created: ISO 8601 date or time.
        owner: tenant whose model it is, "" if everybody's; never shown to callers.
        variant: for a version made of another one in a cheaper precision, what that cost; else None.

    Raises pydantic's ValidationError for anything else, and for a variant that lost more than it may.
    """

    schema_version: int = Field(default=1, alias="schema", ge=1, le=1)
    files: dict[str, Sha256] = Field(min_length=1)
    source: dict[str, Any] = Field(default_factory=dict)
    command: str = ""
    data: tuple[DataSource, ...] = ()
    quality: dict[str, float | int | str] = Field(default_factory=dict)
    licence: str = ""
    credit: str = ""
    task: str = ""
    family: str = ""
    preprocessing: Preprocessing | None = None
    check_set: str = ""
    allow_nonfinite: bool = False
    shadow_rows: int = Field(default=0, ge=0, le=1_000_000)
    created: str = ""
    owner: str = ""
    variant: Variant | None = None

    @model_validator(mode="after")
    def _variant_is_measured(self) -> Manifest:
        if self.variant is None:
            return self
        if isinstance(self.quality.get(self.variant.figure, ""), str):
            raise ValueError(f"variant: quality holds no figure '{self.variant.figure}'")
        if not self.check_set:
            raise ValueError("variant: it needs a check_set to be compared with its original")
        return self

    def to_json(self) -> str:
        """The text of ``manifest.json``, keys in the order of this class, with a final newline."""
        return json.dumps(self.model_dump(by_alias=True, mode="json"), indent=2, ensure_ascii=False) + "\n"


def parse_manifest(text: str | bytes) -> Manifest:
    """Parse a manifest. Raises ModelRefused naming the key at fault."""
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        what = first["msg"].removeprefix("Value error, ")
        raise ModelRefused(f"manifest.json: {f'{where}: ' if where else ''}{what}") from None


def read_manifest(path: Path) -> Manifest | None:
    """The manifest at ``path``, or None if there is no such file. Raises ModelRefused if it is not valid."""
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_MANIFEST + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelRefused(f"manifest.json cannot be read ({error.strerror})", permanent=False) from None
    if len(text) > _LARGEST_MANIFEST:
        raise ModelRefused("manifest.json is larger than 4 MiB")
    return parse_manifest(text)
