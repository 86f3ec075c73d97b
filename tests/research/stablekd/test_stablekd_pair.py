"""Any published classifier teaches: where its graph is cut, what its blocks give, how pictures are read."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from nonet.research.fasternet.onnx_session import open_session, run
from nonet.research.fasternet.published_teacher import load_published
from nonet.research.stablekd.blocks import merged, split_lite
from nonet.research.stablekd.commands import train
from nonet.research.stablekd.pair import Pair, distil_pair
from nonet.research.stablekd.photographs import read_photographs
from nonet.research.stablekd.teacher_graph import GraphTeacher, cuts_of
from nonet.research.systems import TrainOptions, check_pair
from nonet.runtime.errors import InvalidArgument, NotFound
from nonet.runtime.images import Preprocessing
from tests.support.colour_classifier import COLOURS, TEACHER, archive, publish_teacher

MODELS = Path(__file__).parents[3] / "model_repository"
SPEC = Preprocessing(resize=32, crop=32, mean=(0.5,) * 3, std=(0.25,) * 3)


def graph_of(name: str) -> bytes:
    return (MODELS / name / "1" / "model.onnx").read_bytes()


def test_a_graph_is_cut_where_the_same_network_in_pytorch_is() -> None:
    """The maps of the published Lite0 are those of the hand-made split of its weights."""
    name = "efficientnet_lite0_grocery"
    teacher = GraphTeacher(graph_of(name), 160, (0.5,) * 3, (0.5,) * 3)
    assert [(cut.stride, cut.channels) for cut in teacher.cuts] == [(4, 24), (8, 40), (16, 112)]
    network = load_published(MODELS / name / "1" / "model.onnx")
    images = torch.rand(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    ours = teacher.features(images)
    theirs = split_lite(network.network).features((images - 0.5) / 0.5)  # type: ignore[arg-type]
    assert len(ours) == len(theirs) == 5
    for one, two in zip(ours[1:], theirs[1:], strict=True):
        assert torch.allclose(one, two, atol=1e-3, rtol=1e-3)


def test_the_teacher_answers_as_the_version_does() -> None:
    graph = graph_of("fasternet_nano_grocery")
    teacher = GraphTeacher(graph, 128, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert [cut.stride for cut in teacher.cuts] == [4, 8, 16]
    images = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    mean, std = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
    given = (images.numpy() - mean[:, None, None]) / std[:, None, None]
    (logits,) = run(open_session(graph), given.astype(np.float32))
    assert np.allclose(teacher.features(images)[-1].numpy(), logits, atol=1e-5)


def test_a_path_around_a_map_is_no_place_for_a_cut() -> None:
    """Two branches from the image: none of their maps lies on both, but their sum does."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, (4, 3, 3, 3), np.zeros(108, np.float32))
    convolutions = [
        helper.make_node("Conv", ["image", "w"], [name], strides=[4, 4], pads=[1, 1, 1, 1])
        for name in ("left", "right")
    ]
    rest = [
        helper.make_node("Add", ["left", "right"], ["sum"]),
        helper.make_node("GlobalAveragePool", ["sum"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["logits"]),
    ]
    graph = helper.make_graph(
        [*convolutions, *rest],
        "branches",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ("n", 3, 32, 32))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("n", 4))],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    assert [cut.name for cut in cuts_of(model, 32)] == ["sum"]
    del graph.node[2:]
    uncut = onnx.ModelProto()
    uncut.CopyFrom(helper.make_model(graph))
    assert cuts_of(uncut, 32) == []


def test_merged_blocks_compute_what_the_network_does() -> None:
    network = load_published(MODELS / "efficientnet_lite0_grocery" / "1" / "model.onnx").network
    blocks = split_lite(network).eval()  # type: ignore[arg-type]
    images = torch.rand(1, 3, 64, 64)
    for cuts in ([0], [1, 2], [0, 2], []):
        fewer = merged(blocks, cuts)
        assert len(fewer) == len(cuts) + 1
        assert torch.equal(fewer(images), blocks(images))


def test_folders_called_like_classes_are_labels_and_the_tenth_is_apart(tmp_path: Path) -> None:
    packed = tmp_path / "pictures.zip"
    packed.write_bytes(archive(60))
    with zipfile.ZipFile(packed, "a") as more:
        more.writestr("RED!/broken.png", b"nothing")
        more.writestr("notes.txt", b"not looked at")
        more.writestr("elsewhere/60.png", zipfile.ZipFile(io.BytesIO(archive(61))).read("red/60.png"))
    labels = [name.title() for name in COLOURS]
    found = read_photographs(packed, labels, SPEC, seed=0)
    assert found.refused == 1
    assert (len(found.train.labels), len(found.test.labels)) == (55, 6)
    every = torch.cat([found.train.labels, found.test.labels])
    assert sorted(every.tolist()) == [-1, *[0] * 20, *[1] * 20, *[2] * 20]
    for pictures, label in zip(found.test.pictures, found.test.labels, strict=True):
        if label >= 0:
            assert int(pictures.float().mean((1, 2)).argmax()) == int(label)
    folder = tmp_path / "folder"
    with zipfile.ZipFile(packed) as opened:
        opened.extractall(folder)
    again = read_photographs(folder, labels, SPEC, seed=0)
    assert len(again.train.labels) == 55


def test_a_damaged_member_of_an_archive_is_left_out(tmp_path: Path) -> None:
    content = bytearray(archive(60))
    start = content.index(b"IDAT")
    content[start + 8 : start + 40] = bytes(32)
    (tmp_path / "pictures.zip").write_bytes(bytes(content))
    found = read_photographs(tmp_path / "pictures.zip", list(COLOURS), SPEC, seed=0)
    assert found.refused == 1
    assert len(found.train.labels) + len(found.test.labels) == 59


def test_a_stopped_distillation_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    publish_teacher(tmp_path / "models")
    (tmp_path / "pictures.zip").write_bytes(archive(60))
    pair = Pair(tmp_path / "models", TEACHER, "nano", tmp_path / "pictures.zip", minutes=0.1, publish=False)
    asked: list[str] = []

    def stopping() -> bool:
        asked.append("")
        return len(asked) > 3

    phases: list[float] = []
    distil_pair(pair, lambda share, phase: None, checkpoint=tmp_path / "run.pt", stopping=stopping)
    outcome = distil_pair(
        pair, lambda share, phase: phases.append(share), checkpoint=tmp_path / "run.pt", resume=True
    )
    assert phases[1] > 0.02
    assert outcome.version == ""
    assert set(outcome.quality) >= {"agreement", "top1", "teacher_top1"}


def test_what_is_no_pair_is_said(tmp_path: Path) -> None:
    publish_teacher(tmp_path)
    (tmp_path / "few.zip").write_bytes(archive(9))

    def pair(teacher: str = TEACHER, student: str = "nano") -> Pair:
        return Pair(tmp_path, teacher, student, tmp_path / "few.zip", minutes=0.01)

    def distil(wanted: Pair) -> None:
        distil_pair(wanted, lambda share, phase: None, checkpoint=tmp_path / "run.pt")

    with pytest.raises(NotFound, match="no model"):
        distil(pair(teacher="nobody"))
    with pytest.raises(InvalidArgument, match="unknown student"):
        distil(pair(student="resnet"))
    with pytest.raises(InvalidArgument, match="9 pictures are too few"):
        distil(pair())
    options = TrainOptions(preset="tiny", repository=tmp_path, runs=tmp_path, teacher=TEACHER, student="nano")
    with pytest.raises(InvalidArgument, match="--data"):
        train(options)
    with pytest.raises(InvalidArgument, match="not for 'fasternet'"):
        check_pair("fasternet", options)
