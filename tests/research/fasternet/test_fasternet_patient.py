"""The preset `patient`: one view for teacher and student, a schedule that ends with the clock."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from torch import Tensor, nn

from nonet.research.devices import usable_device
from nonet.research.fasternet import grocery
from nonet.research.fasternet.augment import mix_each
from nonet.research.fasternet.commands import train
from nonet.research.fasternet.device_training import (
    SMALLEST_BATCH,
    Learner,
    fit_together,
    stop_on_signals,
)
from nonet.research.fasternet.distillation import HintedStudent
from nonet.research.fasternet.patient import TEACHER_GRAPH, PatientRecipe, train_patient
from nonet.research.fasternet.published_teacher import DeviceTeacher, load_published
from nonet.research.fasternet.training import Schedule, load_checkpoint
from nonet.research.systems import TrainOptions, check_timed, find
from nonet.runtime.errors import InvalidArgument
from nonet.runtime.repository.layout import read_model
from nonet.runtime.repository.manifest import read_manifest
from tests.support.noise_dataset import open_shop

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[3] / "model_repository"
CPU = torch.device("cpu")
SHORT = Schedule(steps=3, batch=4, warmup=1, min_lr=0.0)
RECIPE = PatientRecipe(teacher=SHORT, distil=SHORT, members=("nano",), image_size=64)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return open_shop(tmp_path, 9)


def options(shop: Path, **changes: object) -> TrainOptions:
    usual = TrainOptions("patient", REPOSITORY, shop.parent / "runs", data=shop, publish=False)
    return replace(usual, **changes)  # type: ignore[arg-type]


# views


@given(seed=st.integers(0, 2**31), probability=st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=40, deadline=None)
def test_labels_are_mixed_by_the_share_of_pixels(seed: int, probability: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.arange(2.0)[:, None, None, None].repeat(8, 3, 10, 12)
    labels = torch.eye(2).repeat(8, 1)
    mixed, targets = mix_each(images, labels, probability, generator)
    torch.testing.assert_close(targets.sum(1), torch.ones(16))
    torch.testing.assert_close(mixed.mean((1, 2, 3)), targets[:, 1], rtol=1e-5, atol=1e-5)
    if probability == 0:
        assert torch.equal(mixed, images)
    again = mix_each(images, labels, probability, torch.Generator().manual_seed(seed))
    assert torch.equal(again[0], mixed)


def test_every_image_draws_for_itself() -> None:
    images = torch.arange(64.0)[:, None, None, None].repeat(1, 3, 8, 8)
    mixed, targets = mix_each(images, torch.eye(64), 0.8, torch.Generator().manual_seed(0))
    own = targets.diagonal()
    assert 5 < int((own == 1).sum()) < 30  # about a fifth stays as it is
    assert len(own.unique()) > 30
    patched = sum(len(image.unique()) > 1 for image in mixed)
    assert 10 < patched < 40


# teacher


def test_the_published_teacher_answers_on_a_device_as_it_serves() -> None:
    folder = (REPOSITORY / TEACHER_GRAPH).parent
    teacher = load_published(folder / "model.onnx")
    checked = load_file(folder / "check.safetensors")
    images = torch.from_numpy(checked["image"]) * teacher.std + teacher.mean
    maps, logits = DeviceTeacher(teacher, CPU)(images)
    np.testing.assert_allclose(logits.numpy(), checked["logits"], atol=1e-4)
    torch.testing.assert_close(maps, teacher.maps(images), rtol=1e-4, atol=1e-4)


def test_what_is_no_published_teacher_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="no published teacher"):
        load_published(tmp_path / "model.onnx")
    with pytest.raises(InvalidArgument, match="not the graph of an EfficientNet-Lite0"):
        load_published(REPOSITORY / "fasternet_nano_grocery" / "1" / "model.onnx")
    with pytest.raises(InvalidArgument, match="not the graph of a published classifier"):
        load_published(REPOSITORY / "wild_jdd" / "1" / "model.onnx")


def test_teacher_and_every_student_see_the_same_view(shop: Path) -> None:
    seen: dict[type, list[Tensor]] = {DeviceTeacher: [], HintedStudent: []}

    def record(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if type(module) in seen:
            seen[type(module)].append(inputs[0])

    hook = nn.modules.module.register_module_forward_pre_hook(record)
    try:
        train_patient(options(shop), lambda line: None, replace(RECIPE, members=("nano", "t0")))
    finally:
        hook.remove()
    assert len(seen[DeviceTeacher]) == SHORT.steps
    assert len(seen[HintedStudent]) == 2 * SHORT.steps
    for step, view in enumerate(seen[DeviceTeacher]):
        assert seen[HintedStudent][2 * step] is view
        assert seen[HintedStudent][2 * step + 1] is view
    assert not torch.equal(seen[DeviceTeacher][0], seen[DeviceTeacher][2])


# the whole preset


def test_a_run_ends_in_files_that_another_machine_publishes(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grocery, "STUDENT_VIEWS", ((64, 64),))
    lines: list[dict[str, float | int | str]] = []
    trained = train_patient(options(shop), lines.append, RECIPE)
    assert list(trained) == ["nano"]
    facts = trained["nano"].facts
    assert facts["command"] == "nonet train fasternet --preset patient --seed 0 --device cpu"
    assert facts["teacher"] == "published"
    assert "12 views of 64 px" in facts["run"]
    assert "100 % of the schedule" in facts["run"]
    assert lines[0] == {"stage": "data", "pictures": 9, "device": "CPU"}

    repository = shop.parent / "repository"
    elsewhere = options(
        shop, runs=shop.parent / "elsewhere", resume=True, publish=True, repository=repository
    )
    (elsewhere.runs / "patient").mkdir(parents=True)
    name = "patient/nano.safetensors"
    (elsewhere.runs / name).write_bytes((shop.parent / "runs" / name).read_bytes())
    taken = train_patient(elsewhere, lambda line: pytest.fail("nothing is left to train"), RECIPE)
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(taken["nano"].network(images), trained["nano"].network(images))
    (line,) = grocery.finish_patient(elsewhere, taken)
    assert line.startswith("fasternet_nano_grocery: fine")
    assert line.endswith("published as version 1")
    folder = read_model(repository, "fasternet_nano_grocery")
    assert folder is not None
    manifest = read_manifest(folder.versions[0].path / "manifest.json")
    assert manifest.command == facts["command"]
    assert manifest.source["run"] == facts["run"]
    assert manifest.data[0].name == "grocery_128 (train)"
    assert "fod_a_mini" not in {source.name for source in manifest.data}


def test_a_new_teacher_is_taken_only_if_validation_does_not_prefer_the_old(shop: Path) -> None:
    recipe = replace(RECIPE, teacher_view=(64, 64))
    lines: list[dict[str, float | int | str]] = []
    trained = train_patient(options(shop, weights=shop.parent / "lite0.safetensors"), lines.append, recipe)
    (verdict,) = [line for line in lines if "val new" in line]
    new = float(verdict["val new"]) >= float(verdict["val published"])
    assert ("lite0" in trained) == new
    assert trained["nano"].facts["teacher"] == ("new" if new else "published")
    again = train_patient(options(shop), lambda line: None, recipe)
    assert list(again) == ["nano"]  # without weights, an earlier run's teacher is no result of this one


def test_a_damaged_or_foreign_network_file_is_refused(shop: Path) -> None:
    train_patient(options(shop), lambda line: None, RECIPE)
    place = shop.parent / "runs" / "patient"
    (place / "students.pt").unlink()
    whole = (place / "nano.safetensors").read_bytes()
    (place / "t0.safetensors").write_bytes(whole)
    with pytest.raises(InvalidArgument, match="not a trained t0"):
        train_patient(options(shop, resume=True), lambda line: None, replace(RECIPE, members=("t0",)))
    (place / "nano.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidArgument, match="not a trained nano"):
        train_patient(options(shop, resume=True), lambda line: None, RECIPE)


def test_what_is_missing_is_named(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"no grocery_128/labels\.csv"):
        train_patient(options(shop, data=tmp_path), lambda line: None, RECIPE)
    with pytest.raises(InvalidArgument, match="no published teacher"):
        train_patient(options(shop, repository=tmp_path), lambda line: None, RECIPE)
    with pytest.raises(InvalidArgument, match="unknown variant 't7'"):
        train_patient(options(shop, variant="t7"), lambda line: None, RECIPE)
    with pytest.raises(InvalidArgument, match="unknown device 'gpu'"):
        usable_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(InvalidArgument, match="use --device cpu"):
            train_patient(options(shop, device="cuda"), lambda line: None, RECIPE)


def test_a_device_is_never_chosen_and_never_ignored(shop: Path) -> None:
    assert TrainOptions("tiny", shop, shop).device == "cpu"
    check_timed(find("fasternet"), options(shop, device="cuda", minutes=6.5, compiled=True))
    for preset in ("tiny", "paper"):
        with pytest.raises(InvalidArgument, match="--minutes is for patient"):
            check_timed(find("fasternet"), options(shop, preset=preset, minutes=1.0))
    with pytest.raises(InvalidArgument, match="--device is for no preset of this system"):
        check_timed(find("fis_one"), options(shop, preset="tiny", device="cuda"))


def test_a_signal_ends_a_run_with_what_there_is_saved(shop: Path) -> None:
    command = ["train", "fasternet", "--preset", "patient", "--variant", "nano", "--data", str(shop)]
    places = ["--runs", str(shop.parent / "runs"), "--repository", str(REPOSITORY), "--no-publish"]
    with subprocess.Popen(
        [sys.executable, "-m", "nonet.cli.main", *command, *places], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if '"step"' in line:
                process.send_signal(signal.SIGTERM)
                break
        rest = process.stdout.read()
        assert process.wait(60) == 0
    assert json.loads(rest.splitlines()[-1])["stage"] == "nano"
    runs = shop.parent / "runs" / "fasternet"
    stored = load_checkpoint(runs / "patient" / "students.pt")
    (runs / "patient" / "students.pt").unlink()  # nothing to go on from: what was saved is what there is
    taken = train_patient(options(shop, runs=runs, resume=True), lambda line: None, RECIPE)
    assert taken["nano"].facts["run"].startswith(f"{stored['views']} views of 128 px")


def test_training_needs_nothing_that_serves() -> None:
    program = (
        "import sys\n"
        "for name in ('pydantic', 'orjson', 'fastapi', 'grpc', 'redis', 'prometheus_client', 'zstandard'):\n"
        "    sys.modules[name] = None\n"
        "import nonet.cli.research, nonet.research.fasternet.commands, nonet.research.fasternet.patient\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=100)


def test_the_command_reports_in_lines_of_json(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(options(shop, minutes=0.02, variant="nano"))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["stage"] == "data"
    assert lines[-1]["share"] == 1.0


# the loop


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


TABLE = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))


def rows(chosen: Tensor, generator: torch.Generator, share: float) -> Tensor:
    return TABLE[chosen] + 0.01 * torch.rand(len(chosen), 3, generator=generator)


def error(forward: Callable[..., Tensor], lesson: Tensor) -> Tensor:
    return (forward(lesson)[:, 0] - lesson.sum(1)).square().mean()


LOOP = Schedule(steps=30, batch=16, lr=0.1, min_lr=0.0, warmup=2, ema=0.9, bfloat16=False)


def learners(
    *names: str, loss_of: Callable[..., Tensor] = error, schedule: Schedule = LOOP
) -> list[Learner[Tensor]]:
    torch.manual_seed(0)
    return [Learner(name, Line(), loss_of, schedule) for name in names]


def test_stopped_and_resumed_equals_unbroken(tmp_path: Path) -> None:
    whole = learners("a", "b")
    assert fit_together(whole, rows, LOOP, 40, CPU, tmp_path / "whole.pt") == 1.0
    shares = []
    for _ in range(4):
        parts = learners("a", "b")
        steps = iter(range(9))
        shares.append(
            fit_together(
                parts, rows, LOOP, 40, CPU, tmp_path / "parts.pt",
                resume=True, stopping=lambda steps=steps: next(steps, None) is None,
            )
        )  # fmt: skip
    assert shares == [0.3, 0.6, 0.9, 1.0]
    for one, other in zip(whole, parts, strict=True):
        for name, value in one.module.state_dict().items():
            assert torch.equal(other.module.state_dict()[name], value)
            assert torch.equal(other.average.state[name], one.average.state[name])


def test_the_rate_reaches_its_end_when_the_minutes_do(tmp_path: Path) -> None:
    now = [100.0]

    def make(chosen: Tensor, generator: torch.Generator, share: float) -> Tensor:
        now[0] += 1.5
        return rows(chosen, generator, share)

    lines: list[dict[str, float | int | str]] = []
    schedule = replace(LOOP, steps=10**9, minutes=1.0)
    (learner,) = learners("a", schedule=schedule)
    share = fit_together(
        [learner], make, schedule, 40, CPU, tmp_path / "run.pt",
        report=lines.append, clock=lambda: now[0], report_every=0.0,
    )  # fmt: skip
    rates = [float(line["lr"]) for line in lines]
    assert share == 1.0
    assert len(rates) == 40
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] < 0.002 * LOOP.lr


def test_memory_that_does_not_suffice_halves_the_batch(tmp_path: Path) -> None:
    sizes: list[int] = []

    def make(limit: int, chosen: Tensor, generator: torch.Generator, share: float) -> Tensor:
        sizes.append(len(chosen))
        if len(chosen) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return rows(chosen, generator, share)

    schedule = replace(LOOP, batch=32)
    path = tmp_path / "run.pt"
    fit_together(learners("a"), functools.partial(make, 8), schedule, 40, CPU, path)
    assert sizes[:2] == [32, 16]
    assert set(sizes[2:]) == {8}
    assert len(sizes) == 2 + schedule.steps
    assert load_checkpoint(path)["batch"] == SMALLEST_BATCH
    with pytest.raises(torch.OutOfMemoryError):
        fit_together(learners("a"), functools.partial(make, 4), schedule, 40, CPU, path)


def test_a_compiler_that_fails_costs_only_its_speed(capsys: pytest.CaptureFixture[str]) -> None:
    def broken(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Tensor]:
        raise RuntimeError("no such instruction")

    (plain,) = learners("plain")
    torch.manual_seed(0)
    compiled: Learner[Tensor] = Learner(
        "compiled", Line(), error, LOOP, compiler=functools.partial(torch.compile, backend=broken)
    )
    for number in range(3):
        plain.step(TABLE, 0.1, number)
        compiled.step(TABLE, 0.1, number)
    assert "compiled: compiling failed, going on without" in capsys.readouterr().out
    assert torch.equal(plain.module.linear.weight, compiled.module.linear.weight)


def test_an_error_of_the_network_itself_is_not_taken_for_the_compilers() -> None:
    (learner,) = learners("a")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        learner.step(torch.zeros(4, 5), 0.1, 0)


def test_a_loss_that_is_no_number_leads_back_at_half_the_rate() -> None:
    (learner,) = learners("a")
    learner.step(TABLE, 0.1, 0)
    learner.settle()
    good = learner.module.linear.weight.clone()
    learner.step(TABLE * float("nan"), 0.1, 1)
    assert not torch.equal(learner.module.linear.weight, good)
    learner.settle()
    assert torch.equal(learner.module.linear.weight, good)
    assert learner.pace == 0.5
    learner.step(TABLE, 0.1, 2)
    assert learner.optimiser.param_groups[0]["lr"] == 0.05
    assert np.isfinite(learner.settle())


def test_a_loss_that_never_is_a_number_is_an_error() -> None:
    (learner,) = learners("a")
    learner.step(TABLE * float("nan"), 0.1, 0)
    with pytest.raises(FloatingPointError, match="the loss of a became nan"):
        learner.settle()


def test_signals_are_received_inside_only() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals() as stopping:
        assert not stopping()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopping()
    assert signal.getsignal(signal.SIGTERM) is before
