"""The Ref-L4 benchmark's driver asks the real route."""

from __future__ import annotations

import json
from pathlib import Path

from nonet.cli.main import main
from tests.services.grounding.conftest import CAT, DOG, picture
from tests.support.running_server import RunningServer


def test_the_benchmark_scores_the_served_model(grounding: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(("cat", CAT), ("dog", DOG)))
    rows = [
        {
            "id": number,
            "expression": caption,
            "file_name": "a.png",
            "bbox_xywh": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "empty": empty,
            "split": "val",
        }
        for number, (caption, box, empty) in enumerate(
            [("the cat", CAT, False), ("the dog", DOG, False), ("a letter of the tax office", CAT, True)], 1
        )
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    words = ("--data", str(tmp_path / "rows.jsonl"), "--images", str(tmp_path), "--split", "all")
    output = tmp_path / "out.json"
    endpoint = ("--endpoint", grounding.url, "--model", "matcher", "--output", str(output))
    assert main(["evaluate", "ref_l4", *words, *endpoint]) == 0
    found = json.loads(output.read_text())
    assert found["of"] == "nonet:matcher"
    assert found["answers"] == {"ok": 2, "empty": 1}
    assert found["metrics"]["Ann-level acc iou 0.9"] == 100
    assert found["nothing"] == {"count": 1, "no_box": 1}
