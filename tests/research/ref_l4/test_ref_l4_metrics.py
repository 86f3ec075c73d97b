"""Ref-L4's metrics are those of the official evaluator, and add up as the paper's figures do."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nonet.research.ref_l4.annotations import Annotation, in_split, read_annotations
from nonet.research.ref_l4.cleaned import effect, kept_rows, read_reviewed
from nonet.research.ref_l4.metrics import MACC, Thresholds, accuracy, category_of, mean_accuracy, metrics
from nonet.research.ref_l4.overlaps import overlaps, to_corners
from nonet.research.ref_l4.predictions import (
    Prediction,
    boxes_for,
    read_file,
    read_predictions,
    write_predictions,
)
from nonet.research.ref_l4.statistics import breakdown, source_of, statistics
from nonet.runtime.errors import InvalidArgument

CORNERS = st.tuples(*[st.floats(-50, 700, width=32)] * 4)
COUNTS = {"small": 9_345, "medium": 23_280, "large": 12_716}


def row(number: int, box: tuple[float, float, float, float], **more: Any) -> Annotation:
    return Annotation(number, more.pop("caption", "a thing"), box, **more)


@pytest.fixture(scope="module")
def reference(data_root: Path) -> Path:
    return data_root / "ref_l4_reference"


@pytest.mark.parametrize("split", ["val", "test", "all", "all_custom"])
def test_every_figure_is_the_official_one(split: str, reference: Path) -> None:
    official = json.loads((reference / "golden_metrics.json").read_text())[split]
    ious = json.loads((reference / "golden_iou.json").read_text())
    annotations = read_annotations(reference / "golden_annotations.jsonl.gz")
    predictions = read_file(reference / "golden_predictions.json")
    rows = in_split(annotations, "all" if split == "all_custom" else split)  # type: ignore[arg-type]
    found = overlaps(boxes_for(rows, predictions), [to_corners(each.box) for each in rows])
    assert [float(each) for each in found] == [ious[str(each.id)] for each in rows]
    custom = Thresholds((0.3, 0.6), (0.5, 0.7), (0.5,), 64, 200)
    ours = metrics(rows, found, custom if split == "all_custom" else None)
    assert list(ours) == list(official)
    for name, value in official.items():
        assert ours[name] == pytest.approx(value, abs=1e-9), name


def test_the_published_figures_add_up_over_sizes_and_splits(reference: Path) -> None:
    models = json.loads((reference / "published_24_models.json").read_text())
    assert len(models) == 24
    total = sum(COUNTS.values())
    for model in models:
        for whole, part in (("acc50", "acc50"), ("macc", "macc")):
            mean = sum(model[f"{band}_{part}"] * count for band, count in COUNTS.items()) / total
            assert mean == pytest.approx(model[whole], abs=0.01)
        mean = (model["macc_val"] * 13_420 + model["macc_test"] * 31_921) / 45_341
        assert mean == pytest.approx(model["macc"], abs=0.01)


def test_the_published_run_of_cogvlm_is_one_of_whole_hits() -> None:
    figures = {
        81.69868331091065: (45_341, 37_043),
        70.76597340155709: (45_341, 32_086),
        48.351381751615534: (45_341, 21_923),
        75.0561797752809: (9_345, 7_014),
        86.43470790378007: (23_280, 20_122),
        77.90972003774772: (12_716, 9_907),
    }
    for percent, (count, hits) in figures.items():
        ious = np.where(np.arange(count) < hits, 0.6, 0.4).astype(np.float32)
        assert accuracy(ious, 0.5) == pytest.approx(percent, abs=1e-9)


def test_an_overlap_at_the_threshold_is_a_miss_and_swapped_corners_do_not_meet() -> None:
    (half,) = overlaps([(0, 0, 100, 50)], [(0, 0, 100, 100)])
    assert half == 0.5
    assert accuracy(np.array([half]), 0.5) == 0
    assert overlaps([(100, 100, 0, 0)], [(0, 0, 100, 100)])[0] == 0
    assert overlaps([(5, 5, 5, 5)], [(0, 0, 0, 0)])[0] == 0


@given(st.lists(st.tuples(CORNERS, CORNERS), min_size=1, max_size=40))
@settings(max_examples=60)
def test_overlaps_agree_with_exact_arithmetic(pairs: list[tuple[Any, Any]]) -> None:
    """Straight boxes, compared one by one in double precision."""
    boxes = [tuple((min(x, z), min(y, w), max(x, z), max(y, w)) for x, y, z, w in pair) for pair in pairs]
    found = overlaps([each[0] for each in boxes], [each[1] for each in boxes])
    for (one, two), ours in zip(boxes, found, strict=True):
        wide = max(0.0, min(one[2], two[2]) - max(one[0], two[0]))
        high = max(0.0, min(one[3], two[3]) - max(one[1], two[1]))
        areas = [(each[2] - each[0]) * (each[3] - each[1]) for each in (one, two)]
        union = sum(areas) - wide * high
        if union > 1:
            assert ours == pytest.approx(wide * high / union, abs=1e-4)
        assert 0 <= ours <= 1 + 1e-4


@pytest.mark.parametrize(
    ("size", "band"), [(127.9, "Small"), (128, "Medium"), (256, "Medium"), (257, "Large")]
)
def test_sizes_have_the_papers_bands(size: float, band: str) -> None:
    found = metrics([row(1, (0, 0, size, size))], np.array([0.8], dtype=np.float32))
    assert found[f"{band} acc iou 0.5"] == 100
    others = [name for name in ("Small", "Medium", "Large") if name != band]
    assert [found[f"{name} acc iou 0.5"] for name in others] == [None, None]


def test_the_official_map_joins_categories_and_the_corrected_one_does_not() -> None:
    assert category_of("refcoco_6") == category_of("refcoco_16")
    assert category_of("refcoco_6", strict_official=False) != category_of("refcoco_16", strict_official=False)
    assert category_of("refcoco_1") == "o365_1"
    assert category_of("o365_300") == "o365_300"
    rows = [row(1, (0, 0, 9, 9), category="refcoco_6"), row(2, (0, 0, 9, 9), category="refcoco_16")]
    rows += [row(3, (0, 0, 9, 9), category="o365_300")]
    ious = np.array([0.9, 0.1, 0.1], dtype=np.float32)
    name = "Average class-level acc iou 0.5"
    assert metrics(rows, ious)[name] == 25
    assert metrics(rows, ious, strict_official=False)[name] == pytest.approx(100 / 3)
    assert metrics([], ious[:0]) == {}


def test_predictions_are_held_to_the_official_contract(tmp_path: Path) -> None:
    rows = [row(1, (0, 0, 10, 10)), row(2, (0, 0, 10, 10))]
    good = [
        {"id": 1, "pred_bbox": [0, 0, 10, 10], "format": "xywh"},
        {"id": 2, "pred_bbox": [0, 0, 10, 10], "format": "anything"},
        {"id": 9, "pred_bbox": [0, 0, 1, 1], "format": "xyxy"},
    ]
    predictions = read_predictions(good)
    assert boxes_for(rows, predictions) == [(0, 0, 10, 10)] * 2
    with pytest.raises(InvalidArgument, match="twice"):
        read_predictions([*good, good[0]])
    with pytest.raises(InvalidArgument, match="1 of 2 expressions have no prediction, the first: 2"):
        boxes_for(rows, read_predictions(good[:1]))
    for wrong in ([1, 2, 3], [1, 2, 3, "x"], [1, 2, 3, float("nan")], None):
        with pytest.raises(InvalidArgument, match="prediction 0"):
            read_predictions([{"id": 1, "pred_bbox": wrong, "format": "xyxy"}])
    write_predictions(tmp_path / "out" / "p.json", [Prediction(1, (0, 1, 2, 3))])
    assert read_file(tmp_path / "out" / "p.json") == [Prediction(1, (0, 1, 2, 3))]


def test_statistics_of_refcoco_are_the_papers(data_root: Path) -> None:
    folder = data_root / "refcoco_annotations"
    wanted = {"refcoco": (3000, 7596, 21586, 3525, 3.547), "refcoco+": (3000, 7578, 21373, 4387, 3.561)}
    for name, (images, instances, count, vocabulary, words) in wanted.items():
        rows = [
            each
            for part in ("val", "testA", "testB")
            for each in read_annotations(folder / f"{name}_{part}.jsonl.gz")
        ]
        found = statistics(rows)
        assert (found["images"], found["instances"], found["annotations"]) == (images, instances, count)
        assert found["vocabulary"] == vocabulary
        assert found["mean_words"] == pytest.approx(words, abs=5e-4)
        assert found["instance_size"] == pytest.approx([104.81, 607.17], abs=0.01)


def test_leaving_out_what_a_review_flagged_adds_up(data_root: Path) -> None:
    folder = data_root / "refcoco_annotations"
    with gzip.open(folder / "refcoco+_val.jsonl.gz", "rt") as file:
        listed = [json.loads(line) for line in file]
    reviewed = read_reviewed(folder / "refcoco+_val_reviewed_sample.jsonl")
    assert (len(reviewed.kept), reviewed.removed) == (209, 42)
    known, kept = kept_rows(listed, reviewed)
    assert (len(known), int((~kept).sum())) == (209, 42)
    rng = np.random.default_rng(0)
    ious = np.where(rng.random(209) < np.where(kept, 0.95, 0.8), 0.9, 0.1).astype(np.float32)
    found = effect(ious, kept)
    parts = found["kept"] * found["acc_kept"] + found["removed"] * found["acc_removed"]
    assert parts / found["count"] == pytest.approx(found["acc_all"], abs=1e-9)


def test_reviewed_files_of_the_authors_form_are_read(tmp_path: Path) -> None:
    content = {
        "images": [{"id": number, "original_id": 7, "caption": f"text {number}"} for number in (10, 11, 12)],
        "annotations": [
            {"id": 2, "image_id": 11, "original_id": 5, "caption_quality": 0},
            {"id": 1, "image_id": 10, "original_id": 5, "caption_quality": 1},
            {"id": 3, "image_id": 12, "original_id": 6, "caption_quality": 1},
        ],
    }
    (tmp_path / "refcoco_val_reviewed.json").write_text(json.dumps(content))
    reviewed = read_reviewed(tmp_path / "refcoco_val_reviewed.json")
    assert reviewed.kept == {
        (7, 5, 0): ("text 10", True),
        (7, 5, 1): ("text 11", False),
        (7, 6, 0): ("text 12", True),
    }
    rows = [{"image_id": 7, "ann_id": 5, "pos": 1, "expression": "other"}]
    with pytest.raises(InvalidArgument, match="another text"):
        kept_rows(rows, reviewed)
    with pytest.raises(InvalidArgument, match="no reviewed list"):
        read_reviewed(tmp_path / "absent.json")


def test_figures_are_cut_by_source_length_and_kind() -> None:
    rows = [
        row(1, (0, 0, 9, 9), category="refcoco_1", caption="one two", kind="human"),
        row(2, (0, 0, 9, 9), category="o365_1", caption=" ".join(["word"] * 60)),
        row(3, (0, 0, 9, 9), category="o365_300", rewritten=True),
    ]
    assert [source_of(each) for each in rows] == ["COCO", "O365-P1", "O365-P2"]
    found = breakdown(rows, np.array([0.9, 0.4, 0.6], dtype=np.float32))
    assert {name: each["acc50"] for name, each in found["source"].items()} == {
        "COCO": 100,
        "O365-P1": 0,
        "O365-P2": 100,
    }
    assert {name: each["count"] for name, each in found["words"].items()} == {"1-5": 2, "over 50": 1}
    assert list(found["kind"]) == ["human"]
    assert found["written"]["rephrased"]["macc"] == pytest.approx(mean_accuracy(np.float32([0.6])))
    assert len(MACC) == 10


def test_annotations_come_from_parquet_as_from_lines(tmp_path: Path, reference: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = read_annotations(reference / "golden_annotations.jsonl.gz")
    with gzip.open(reference / "golden_annotations.jsonl.gz", "rt") as file:
        raw = [json.loads(line) for line in file]
    for split in ("val", "test"):
        part = [each for each in raw if each["split"] == split]
        parquet.write_table(pyarrow.Table.from_pylist(part), tmp_path / f"ref-l4-{split}.parquet")
    assert read_annotations(tmp_path) == in_split(rows, "all")
    with pytest.raises(InvalidArgument, match="neither of"):
        read_annotations(tmp_path.parent)
    (tmp_path / "bad.jsonl").write_text('{"id": 1}\n')
    with pytest.raises(InvalidArgument, match="row 0 is no annotation"):
        read_annotations(tmp_path / "bad.jsonl")
    (tmp_path / "bad.jsonl").write_text("nonsense\n")
    with pytest.raises(InvalidArgument, match="line 1"):
        read_annotations(tmp_path / "bad.jsonl")
