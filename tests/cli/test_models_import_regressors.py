"""`nonet models import --task regress`: an ONNX regressor with a file of its errors is served, and what it
cannot do is said."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.support.handmade_networks import Port, network
from tests.support.handmade_regressors import linear_graph
from tests.support.import_runs import refused, run
from tests.support.running_server import RunningServer


def pairs(path: Path, *, std: bool = True, rows: int = 400) -> Path:
    """Errors of standard deviation 0.5 + 2 std^2."""
    random = np.random.default_rng(0)
    deviation = random.uniform(0, 1, rows)
    error = random.normal(0, 0.5 + 2 * deviation**2)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["error", "std"] if std else ["prediction", "truth"])
        for each, doubt in zip(error, deviation, strict=True):
            writer.writerow([each, doubt] if std else [1.0, 1.0 + each])
    return path


def members_graph() -> bytes:
    """Four members [N, 4, 1], whose mean is the first column and whose deviation the size of the second."""
    first = np.array([[1.0] * 4, [0.0] * 4], np.float32)
    second = np.array([[0.0] * 4, [1.0, -1.0, 1.0, -1.0]], np.float32)
    return network(
        [
            helper.make_node("MatMul", ["x", "weights"], ["flat"]),
            helper.make_node("Reshape", ["flat", "shape"], ["members"]),
        ],
        [Port("x", "FP32", (2,))],
        [Port("members", "FP32", (4, 1))],
        {"weights": first + second, "shape": np.array([-1, 4, 1], np.int64)},
    )


def single_graph() -> bytes:
    """What scikit-learn's exporter makes: an input and an output with names of their own, no uncertainty."""
    return network(
        [helper.make_node("MatMul", ["float_input", "weights"], ["variable"])],
        [Port("float_input", "FP32", (2,))],
        [Port("variable", "FP32", (1,))],
        {"weights": np.array([[1.0], [10.0]], np.float32)},
    )


def test_each_kind_of_uncertainty_is_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], start_server: Callable[..., RunningServer]
) -> None:
    models = tmp_path / "models"
    said = {}
    for name, graph, columns in (
        ("learned", linear_graph(), "area,age,noise"),
        ("ensemble", members_graph(), ""),
        ("plain", single_graph(), "small,large"),
    ):
        file = tmp_path / f"{name}.onnx"
        file.write_bytes(graph)
        errors = pairs(tmp_path / f"{name}.csv", std=name != "plain")
        words = [file, "--as", name, "--task", "regress", "--repository", models, "--calibration", errors]
        status, out, err = run(capsys, *words, *(["--features", columns] if columns else []))
        assert status == 0, err
        said[name] = out
    assert all("cannot be adapted" in out for out in said.values())
    assert "no row is more certain" in said["plain"]
    assert "--features" in said["ensemble"]
    calibration = json.loads((models / "learned" / "1" / "calibration.json").read_text())["calibration"]
    assert calibration["intercept"] == pytest.approx(0.5, abs=0.15)
    assert calibration["slope"] == pytest.approx(2.0, abs=0.5)
    assert calibration["threshold"] == pytest.approx(0.9**2, abs=0.06)

    server = start_server(models, {"scheduler": {"lanes": 1}})

    def first(model: str, rows: list[object]) -> dict[str, object]:
        reply = server.http.post(f"/v1/regress/{model}", json={"inputs": rows})
        assert reply.status_code == 200, reply.text
        found: dict[str, object] = reply.json()["predictions"][0]
        return found

    assert first("learned", [{"area": 1, "age": 2, "noise": 0.5}])["value"] == 21.0
    unsure = first("ensemble", [[3.0, 2.0], [1, 1]])
    assert (unsure["value"], unsure["std"], unsure["confident"]) == (3.0, 2.0, False)
    plain = first("plain", [{"small": 1, "large": 2}])
    assert (plain["value"], plain["confident"]) == (21.0, True)
    assert plain["std"] == plain["error"]
    reply = server.http.post("/v1/adapt/plain", json={"inputs": [[1, 2]]})
    assert reply.status_code in (409, 501)


def test_what_is_open_is_asked_for_and_what_cannot_be_served_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, plain = tmp_path / "good.onnx", tmp_path / "plain.onnx"
    good.write_bytes(linear_graph())
    plain.write_bytes(single_graph())
    errors = pairs(tmp_path / "errors.csv")

    def wrong(file: Path, *words: str | Path, status: int, needles: tuple[str, ...]) -> None:
        refused(capsys, tmp_path, file, "--task", "regress", *words, status=status, needles=needles)

    wrong(good, status=2, needles=("--calibration", "error"))
    few = pairs(tmp_path / "few.csv", rows=20)
    wrong(good, "--calibration", few, status=2, needles=("20 rows", "at least 80"))
    bare = pairs(tmp_path / "bare.csv", std=False)
    wrong(good, "--calibration", bare, status=2, needles=("no column 'std'",))
    (tmp_path / "text.csv").write_text("error,std\n" + "1,2\n" * 90 + "x,1\n")
    wrong(good, "--calibration", tmp_path / "text.csv", status=2, needles=("row 90, column 'error'",))
    wrong(good, "--calibration", errors, "--features", "a,b", status=2, needles=("--features has 2 names",))
    fixed = onnx.load_from_string(single_graph())
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    fixed.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    (tmp_path / "fixed.onnx").write_bytes(fixed.SerializeToString())
    wrong(tmp_path / "fixed.onnx", "--calibration", errors, status=1, needles=("free batch dimension",))
    (tmp_path / "broken.onnx").write_bytes(plain.read_bytes()[:40])
    wrong(tmp_path / "broken.onnx", "--calibration", errors, status=1, needles=())
    nan = onnx.load_from_string(single_graph())
    nan.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((2, 1), np.nan, np.float32), "weights"))
    (tmp_path / "nan.onnx").write_bytes(nan.SerializeToString())
    wrong(tmp_path / "nan.onnx", "--calibration", bare, status=1, needles=("not finite",))


def test_rows_need_no_task_to_be_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plain.onnx").write_bytes(single_graph())
    errors = pairs(tmp_path / "errors.csv", std=False)
    words = [tmp_path / "plain.onnx", "--as", "plain", "--repository", tmp_path / "models", "--json"]
    status, out, err = run(capsys, *words, "--calibration", errors)
    assert status == 0, err
    facts = json.loads(out)
    assert (facts["uncertainty"], facts["adaptable"], facts["features"]) == ("none", False, [])
