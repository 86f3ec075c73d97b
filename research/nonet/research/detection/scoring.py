"""Average precision of a detector as COCO measures it, on pictures that it has not seen."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

from nonet.research.detection import pictures
from nonet.research.detection.pictures import Annotated
from nonet.runtime.boxes import best_boxes
from nonet.runtime.images import Preprocessing, decode_image, preprocess

MOST = 100
#: The five animals and person of the VOC pictures, in COCO's classes.
ANIMALS = ("person", "cat", "dog", "horse", "sheep", "cow")

#: Boxes (N, 4) in pixels of the picture, classes (N,) and scores (N,) of an annotated picture.
Finder = Callable[[Annotated], tuple[np.ndarray, np.ndarray, np.ndarray]]


def finder_of(session: onnxruntime.InferenceSession, spec: Preprocessing) -> Finder:
    """What a published graph finds, by the preprocessing and the thinning of the server."""

    def find(picture: Annotated) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        decoded = decode_image(picture.content, target=spec.target)
        outputs = session.run(["boxes", "scores"], {"image": preprocess(decoded, spec)[None]})
        boxes, scores, classes = best_boxes(np.asarray(outputs[0])[0], np.asarray(outputs[1])[0], MOST)
        return spec.in_picture(boxes, decoded.width, decoded.height), classes, scores

    return find


def average_precision(
    found: Iterable[tuple[Annotated, tuple[np.ndarray, np.ndarray, np.ndarray]]],
    classes: Iterable[int] | None = None,
    one_class: bool = False,
) -> dict[str, float]:
    """``ap50``, ``ap75`` and ``ap`` (mean over IoU 0.5 to 0.95), 0..1, by pycocotools.

    Args:
        found: annotated pictures with what was found in each.
        classes: indices of the classes that count; all that occur if None.
        one_class: whether every object is of one class: where something is counts, not what it is.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    counted = None if classes is None else set(classes)
    images: list[dict[str, Any]] = []
    marked: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    for number, (picture, (boxes, labels, scores)) in enumerate(found, start=1):
        width, height = Image.open(io.BytesIO(picture.content)).size
        images.append({"id": number, "width": width, "height": height})
        for box, label in zip(picture.boxes.tolist(), picture.classes.tolist(), strict=True):
            if counted is None or label in counted:
                size = [box[2] - box[0], box[3] - box[1]]
                marked.append(
                    {
                        "id": len(marked) + 1,
                        "image_id": number,
                        "category_id": 0 if one_class else label,
                        "bbox": [*box[:2], *size],
                        "area": size[0] * size[1],
                        "iscrowd": 0,
                    }
                )
        for box, label, score in zip(boxes.tolist(), labels.tolist(), scores.tolist(), strict=True):
            if counted is None or label in counted:
                answers.append(
                    {
                        "image_id": number,
                        "category_id": 0 if one_class else label,
                        "bbox": [*box[:2], box[2] - box[0], box[3] - box[1]],
                        "score": score,
                    }
                )
    present = sorted({each["category_id"] for each in marked})
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": images,
            "annotations": marked,
            "categories": [{"id": index, "name": str(index)} for index in present],
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(answers) if answers else COCO(), "bbox")
        evaluation.params.catIds = present
        evaluation.params.maxDets = [1, 10, MOST]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ap, ap50, ap75 = (round(float(value), 4) for value in evaluation.stats[:3])
    return {"ap50": ap50, "ap75": ap75, "ap": ap}


def measure(
    session: onnxruntime.InferenceSession, spec: Preprocessing, family: str, root: Path, split: str
) -> dict[str, float | int | str]:
    """The quality of a published graph on a split of its family, for the manifest."""
    return measure_finder(finder_of(session, spec), family, root, split)


def measure_finder(find: Finder, family: str, root: Path, split: str) -> dict[str, float | int | str]:
    """As :func:`measure`, for anything that finds objects."""
    seen = [(picture, find(picture)) for picture in pictures.held_back(family, root, split)]
    quality: dict[str, float | int | str] = {**average_precision(seen)}
    quality |= {"pictures": len(seen), "objects": sum(len(each.classes) for each, _ in seen)}
    if family == "fod":
        quality["ap50_any_class"] = average_precision(seen, one_class=True)["ap50"]
    if family == "coco":
        names = pictures.coco_names(root)
        animals = [(each, find(each)) for each in pictures.voc_animals(root, split) if each.complete]
        scores = average_precision(animals, [names.index(name) for name in ANIMALS])
        quality |= {
            "animals_ap50": scores["ap50"],
            "animals_ap75": scores["ap75"],
            "animals_pictures": len(animals),
        }
    return quality | {"dataset": pictures.DATASETS[family], "split": split}
