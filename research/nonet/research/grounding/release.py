"""A trained matcher -> a version of the repository: exported, proven equal, and worth it."""

from __future__ import annotations

import datetime
import logging
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from safetensors.numpy import save
from torch import nn

from nonet.research.fasternet.grocery_files import data_root
from nonet.research.fasternet.onnx_export import ExportError
from nonet.research.fasternet.onnx_session import open_session
from nonet.research.fasternet.release import strip_origins
from nonet.research.grounding.choosing import Choice, choose
from nonet.research.grounding.lessons import REGIONS
from nonet.research.grounding.network import ServingForm
from nonet.research.grounding.presets import Preset
from nonet.research.grounding.proposals import OWN
from nonet.research.grounding.states import ENCODER, ENCODER_SHA256, LENGTH, WIDTH
from nonet.research.grounding.training import Trained, tokenizer_file
from nonet.research.systems import TrainOptions
from nonet.runtime.errors import InvalidArgument
from nonet.runtime.images.regions import LOOKS, LOOKS_VERSION
from nonet.runtime.repository import manifest as manifests
from nonet.runtime.repository.config import build_config
from nonet.runtime.repository.publish import publish_version
from nonet.runtime.tensors import DataType, TensorSpec

__all__ = ["INPUTS", "OUTPUTS", "check_inputs", "check_worth", "export", "publish"]

INPUTS = {
    "boxes": (-1, -1, 4),
    "region_mask": (-1, -1),
    "region_scores": (-1, -1),
    "region_names": (-1, -1, WIDTH),
    "region_looks": (-1, -1, LOOKS),
    "aspect": (-1,),
    "tokens": (-1, LENGTH, WIDTH),
    "token_mask": (-1, LENGTH),
}
OUTPUTS = {"scores": (-1, -1), "nothing": (-1,)}
_OF_REGIONS = 5  # inputs whose second axis is that of the regions
TOLERANCE = 1e-4
MAX_BATCH = 16
CHECK_ROWS = 4
_FEW_REGIONS = 8
# With a weak detector `nothing` is said of what is there under a wrong name, too: a half would hide it.
_NOTHING = 0.9

_ANNOTATIONS = (
    ("refcoco_annotations: RefCOCO, RefCOCO+", "Apache-2.0", "L. Yu et al., ECCV 2016: text and boxes"),
    ("refcoco_annotations: RefCOCOg", "CC BY 4.0", "J. Mao et al., CVPR 2016: text and boxes"),
    ("coco256: boxes of the train2017 part", "CC BY 4.0", "MS COCO 2017, without the photographs"),
)
_PHOTOGRAPHS = (
    ("coco256 (train2017 part)", "photographs under Flickr's terms", "MS COCO 2017"),
    ("voc2012_animals", "Flickr's terms, for research", "PASCAL VOC 2012 and Animal-Pose (ICCV 2019)"),
)


def check_inputs(rows: int, seed: int = 0, regions: int = REGIONS) -> dict[str, np.ndarray]:
    """Made-up inputs of the network, the same on every call: regions and tokens of different numbers."""
    random = np.random.default_rng(seed)
    corners = np.sort(random.random((rows, regions, 2, 2)), axis=2).reshape(rows, regions, 4)
    mask = (np.arange(regions) < random.integers(1, regions + 1, (rows, 1))).astype(np.float32)
    kinds = random.normal(size=(6, WIDTH))
    names = (kinds / np.linalg.norm(kinds, axis=1, keepdims=True))[random.integers(0, 6, (rows, regions))]
    token_mask = (np.arange(LENGTH) < random.integers(3, LENGTH + 1, (rows, 1))).astype(np.float32)
    made = {
        "boxes": corners * mask[..., None],
        "region_mask": mask,
        "region_scores": random.random((rows, regions)) * mask,
        "region_names": names * mask[..., None],
        "region_looks": random.random((rows, regions, LOOKS)) * mask[..., None],
        "aspect": random.uniform(0.5, 2, rows),
        "tokens": 0.4 * random.normal(size=(rows, LENGTH, WIDTH)) * token_mask[..., None],
        "token_mask": token_mask,
    }
    return {name: np.ascontiguousarray(value, np.float32) for name, value in made.items()}


def export(form: nn.Module, path: Path) -> dict[str, np.ndarray]:
    """Write the graph and prove it; returns inputs and answers of a check.

    Raises ExportError if an answer differs from PyTorch's by more than 1e-4, or changes with what else is in
    the batch by a single bit.
    """
    inputs = check_inputs(CHECK_ROWS)
    tensors = tuple(torch.from_numpy(each) for each in inputs.values())
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            torch.onnx.export(
                form,
                tensors,
                path,
                dynamo=True,
                dynamic_shapes=tuple(
                    dict.fromkeys((0, 1) if number < _OF_REGIONS else (0,), torch.export.Dim.DYNAMIC)
                    for number in range(len(tensors))
                ),
                input_names=list(INPUTS),
                output_names=list(OUTPUTS),
                external_data=False,
                verbose=False,
            )
    finally:
        log.setLevel(level)
    strip_origins(path)
    session = open_session(path)
    _check_equal(session, form, check_inputs(CHECK_ROWS, seed=1, regions=_FEW_REGIONS))
    answers = _check_equal(session, form, inputs)
    check_alone(session, inputs, answers)
    return {**inputs, **answers}


def _check_equal(
    session: onnxruntime.InferenceSession, form: nn.Module, inputs: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The graph's answers. Raises ExportError if they are not PyTorch's."""
    with torch.no_grad():
        expected = form(*(torch.from_numpy(each) for each in inputs.values()))
    answers = dict(zip(OUTPUTS, session.run(list(OUTPUTS), inputs), strict=True))
    for name, reference in zip(OUTPUTS, expected, strict=True):
        worst = float(np.abs(answers[name] - reference.numpy()).max())
        if not worst <= TOLERANCE:
            raise ExportError(f"{name} differs from PyTorch by {worst:.1e}, allowed is {TOLERANCE:.0e}")
    return answers


def check_alone(
    session: onnxruntime.InferenceSession, inputs: dict[str, np.ndarray], answers: dict[str, np.ndarray]
) -> None:
    """Raise ExportError unless every row of a batch is bit-equal to its answer alone."""
    for row in range(len(inputs["aspect"])):
        alone = session.run(list(OUTPUTS), {name: value[row : row + 1] for name, value in inputs.items()})
        for name, answer in zip(OUTPUTS, alone, strict=True):
            if answer[0].tobytes() != answers[name][row].tobytes():
                raise ExportError(f"{name} of row {row} of a batch is not bit-equal to the answer alone")


def publish(preset: Preset, trained: Trained, options: TrainOptions) -> str:
    """Choose, export, publish; returns a line that says what it is.

    Raises InvalidArgument if the matcher is no better than the largest box on the expressions to choose by,
    ExportError if the graph is not the network, FileNotFoundError where data or the detector are absent.
    """
    choice = choose(trained, options.data or data_root(), options.repository)
    check_worth(choice)
    minutes = options.minutes if options.minutes is not None else preset.schedule.minutes
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "model.onnx"
        check = export(ServingForm(trained.matcher, choice.temperature).eval(), graph)
        files: dict[str, bytes | Path] = {
            "model.onnx": graph,
            "tokenizer.json": tokenizer_file(options),
            "check.safetensors": save(check),
        }
        version = publish_version(
            options.repository,
            preset.name,
            files,
            build_config(
                preset.name,
                max_batch_size=MAX_BATCH,
                inputs=[TensorSpec(name, DataType.FP32, shape) for name, shape in INPUTS.items()],
                outputs=[TensorSpec(name, DataType.FP32, shape) for name, shape in OUTPUTS.items()],
            ),
            _manifest(preset, options, choice, minutes),
            replace=True,
        )
    return f"{preset.name} version {version.version}: {choice}"


def check_worth(choice: Choice) -> None:
    """Raises InvalidArgument unless the matcher beats the largest box on the expressions to choose by."""
    if not choice.accuracy > choice.largest_box:
        raise InvalidArgument(
            f"not published: of the expressions to choose by it finds {choice.accuracy:.3f}, "
            f"the largest box {choice.largest_box:.3f}; train for longer",
            param="preset",
        )


def _manifest(preset: Preset, options: TrainOptions, choice: Choice, minutes: float) -> manifests.Manifest:
    photographs = preset.photographs
    return manifests.Manifest(
        files={"model.onnx": "0" * 64},  # publish_version puts the real hashes here
        source={
            "system": "grounding",
            "paper": "arXiv 1711.11575 (geometry of regions in attention), 2406.16866 (how it is measured)",
            "variant": preset.name,
            "seed": str(options.seed),
            "device": options.device,
            "minutes": minutes,
            "text_encoder": {"package": ENCODER, "sha256": ENCODER_SHA256, "length": LENGTH},
            "detector": {"model": OWN, "score_threshold": choice.least},
            "regions": REGIONS,
            "looks": LOOKS_VERSION,
            "temperature": choice.temperature,
            "nothing": _NOTHING,
        },
        command=f"nonet train grounding --preset {options.preset} --seed {options.seed} "
        f"--device {options.device} --minutes {minutes:g}",
        data=tuple(
            manifests.DataSource(name=name, licence=licence, origin=origin)
            for name, licence, origin in (*_ANNOTATIONS, *(_PHOTOGRAPHS if photographs else ()))
        ),
        quality={
            "accuracy": choice.accuracy,
            "largest_box": choice.largest_box,
            "expressions": choice.count,
            "text_accuracy": choice.text_accuracy,
            "nothing_calibration_error": choice.nothing_error,
            "dataset": "phrases by rule on photographs of coco256 (val2017) and voc2012_animals, IoU above "
            "0.5; text: held-back pictures of RefCOCO with a detector's faults. Human expressions of "
            "photographs: docs/results/grounding.json",
            "split": "chosen by",
        },
        licence="research use: photographs under Flickr's terms" if photographs else "CC BY 4.0",
        credit="Trained by Nonet from random weights on RefCOCO, RefCOCO+ (L. Yu et al.), RefCOCOg (J. Mao "
        "et al.) and boxes of MS COCO"
        + (", and photographs. " if photographs else ", no photograph. ")
        + "Text: MiniLM (Apache-2.0).",
        task="ground",
        family="regions",
        check_set="check.safetensors",
        created=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )
