"""Requests at different steps, scales, prompts and sizes share the network; none changes another's pixels."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nonet.runtime.errors import InvalidArgument, ModelOutputInvalid, ServingError
from nonet.runtime.requests import Continued, InferResponse
from nonet.runtime.tensors import Array
from nonet.runtime.text_states import EncodedText
from nonet.services.text_to_image.derive import derive
from nonet.services.text_to_image.network_rows import NetworkRows
from nonet.services.text_to_image.servable import GenerateServable
from tests.support.counted_network import CountedNetwork, asked, files, run, stepped


def service(network: CountedNetwork | None = None) -> GenerateServable:
    network = network or CountedNetwork()
    (derived,) = derive(network)
    network.batches.clear()
    assert isinstance(derived, GenerateServable)
    return derived


def pixels(file: bytes) -> Array:
    return np.asarray(Image.open(io.BytesIO(file)))


ONE = service()
REQUESTS = st.fixed_dictionaries(
    {
        "prompt": st.sampled_from(["a red apple", "a blue car", "cat", "the green apple on a car"]),
        "seed": st.integers(0, 2**32 - 1),
        "steps": st.integers(1, 7),
        "guidance_scale": st.sampled_from([1.0, 2.0, 7.5]),
        "size": st.sampled_from(["64x64", "64x32"]),
        "partial_images": st.integers(0, 3),
    }
)


def of(fields: dict[str, Any]) -> Any:
    return asked(fields["prompt"], **{name: each for name, each in fields.items() if name != "prompt"})


@settings(max_examples=25)
@given(st.lists(REQUESTS, min_size=2, max_size=6))
def test_equal_seeds_and_fields_give_equal_pixels_alone_and_in_any_batch(
    fields: list[dict[str, Any]],
) -> None:
    together = run(ONE, *map(of, fields))
    for each, answer in zip(fields, together, strict=True):
        (alone,) = run(ONE, of(each))
        assert files(answer) == files(alone)


def test_pictures_of_one_request_are_those_of_their_seeds_alone() -> None:
    (answer,) = run(ONE, asked(*["a red apple"] * 4, seed=[7, 8, 9, 10]))
    alone = [run(ONE, asked("a red apple", seed=seed))[0] for seed in (7, 8, 9, 10)]
    assert files(answer) == [files(each)[0] for each in alone]
    assert len({pixels(file).tobytes() for file in files(answer)}) == 4


def test_a_row_of_the_network_is_the_same_to_the_last_bit_with_and_without_company() -> None:
    network = CountedNetwork()
    rows = NetworkRows(network)
    random = np.random.default_rng(3)
    asked_of = []
    for place in range(9):
        states = random.standard_normal((32, 384), dtype=np.float32)
        text = EncodedText(states, np.ones(32, np.float32), 32, cut=False)
        latents = random.standard_normal((4, 8, 8), dtype=np.float32)
        asked_of.append(rows.row(latents, 1 - place / 9, text))
    together = rows.execute(asked_of)
    for row, answer in zip(asked_of, together, strict=True):
        (alone,) = rows.execute([row])
        assert isinstance(alone, InferResponse)
        assert isinstance(answer, InferResponse)
        assert (alone.output("velocity").data == answer.output("velocity").data).all()


def test_each_step_is_one_execution_of_all_that_are_under_way() -> None:
    network = CountedNetwork()
    guided, plain = asked("cat", steps=5), asked("the car", steps=2, guidance_scale=1.0)
    one = service(network)
    outcome = one.execute([guided])[0]
    assert isinstance(outcome, Continued)
    run(one, stepped(guided, outcome), plain)
    assert [len(feeds["time"]) for feeds in network.batches] == [2, 3, 3, 2, 2]
    first, second = network.batches[0]["time"], network.batches[1]["time"]
    assert first.tolist() == [1.0, 1.0]
    np.testing.assert_allclose(second, [0.8, 0.8, 1.0], rtol=1e-6)


def test_only_a_guided_picture_brings_an_unconditional_row() -> None:
    network = CountedNetwork()
    run(service(network), asked("cat", "car", steps=1, guidance_scale=[1.0, 4.0]))
    (feeds,) = network.batches
    assert len(feeds["time"]) == 3
    tokens = feeds["context_mask"].sum(axis=1).tolist()
    assert tokens == [3.0, 3.0, 2.0]  # the last row is the text without words


def test_each_size_of_latents_is_one_execution() -> None:
    network = CountedNetwork()
    run(service(network), asked("cat", "car", "cat", steps=1, size=["64x64", "64x32", "64x64"]))
    assert [feeds["latents"].shape for feeds in network.batches] == [(4, 4, 8, 8), (2, 4, 4, 8)]


def test_the_picture_is_what_the_flow_gives_step_by_step() -> None:
    """Euler's steps, guidance and the shift, written out here once more."""
    network = CountedNetwork(shift=3.0)
    one = service(network)
    (answer,) = run(one, asked("a red apple", seed=11, steps=4, guidance_scale=2.5))
    times = [1.0, 0.9, 0.75, 0.5, 0.0]  # 1, .75, .5, .25, 0 under t' = 3 t / (1 + 2 t)
    x = network.batches[0]["latents"][0]
    for step, feeds in enumerate(network.batches):
        assert feeds["time"].tolist() == pytest.approx([times[step]] * 2)
        np.testing.assert_allclose(feeds["latents"][0], x, rtol=1e-5, atol=1e-5)
        conditional, unconditional = network._session.run(None, feeds)[0]
        x = x + (times[step + 1] - times[step]) * (unconditional + 2.5 * (conditional - unconditional))
    levels = one._decoder.decode([x.astype(np.float32)])[0].transpose(1, 2, 0) * 255
    assert np.abs(pixels(files(answer)[0]) - levels).max() < 0.6


def test_few_step_goes_to_the_next_time_with_fresh_noise() -> None:
    network = CountedNetwork(sampler="few_step", steps=2, guidance_scale=1.0)
    (answer,) = run(service(network), asked("cat", seed=5))
    first, second = network.batches
    velocity = network._session.run(None, first)[0]
    assert (velocity[0] == velocity[1]).all()  # a row without company is run twice
    picture = first["latents"] - velocity
    fresh = (second["latents"] - 0.5 * picture)[0] / 0.5
    assert abs(float(fresh.mean())) < 0.2
    assert 0.8 < float(fresh.std()) < 1.2
    assert not np.allclose(fresh, first["latents"][0])
    (again,) = run(service(network), asked("cat", seed=5))
    assert files(again) == files(answer)


def test_a_prompt_is_encoded_once() -> None:
    one = service()
    run(one, asked("red", "red", "blue", steps=2))
    run(one, asked("blue", steps=3))
    assert one._encoder.encodings == 3  # red, blue, and the text without words


def test_partial_pictures_are_made_for_those_who_ask_and_for_no_other() -> None:
    shown: dict[int, list[InferResponse]] = {}
    quiet, watched = asked("cat", steps=8), asked("cat", steps=8, partial_images=3)
    ends = run(ONE, quiet, watched, shown=shown)
    assert list(shown) == [1]
    steps = [each.output("step").data.tolist() for each in shown[1]]
    assert steps == [[2], [4], [6]]
    assert [each.output("partial_image_index").data.tolist() for each in shown[1]] == [[0], [1], [2]]
    assert not any(each.final for each in shown[1])
    assert files(ends[0]) == files(ends[1])
    distances = [
        float(np.abs(pixels(files(each)[0]).astype(int) - pixels(files(ends[1])[0])).mean())
        for each in shown[1]
    ]
    assert distances[0] > distances[-1] > 0


def test_more_partial_pictures_than_steps_are_as_many_as_there_are_steps_between() -> None:
    shown: dict[int, list[InferResponse]] = {}
    run(ONE, asked("cat", steps=2, partial_images=3), shown=shown)
    assert len(shown[0]) == 1


def test_a_request_that_fails_takes_no_other_with_it() -> None:
    network = CountedNetwork()
    one = service(network)
    network.fails_at = 0.75  # only what takes four steps is ever at this time
    sound, broken, wrong = asked("cat", seed=1, steps=3), asked("cat", steps=4), asked("cat", steps=-2)
    ends = run(one, sound, broken, wrong)
    assert isinstance(ends[1], ModelOutputInvalid)
    assert isinstance(ends[2], InvalidArgument)
    assert files(ends[0]) == files(run(ONE, asked("cat", seed=1, steps=3))[0])


def test_the_answer_says_what_was_done() -> None:
    words = " ".join(["apple"] * 60)
    (answer,) = run(ONE, asked("a red apple", words, seed=[3, 4], steps=1, size="64x32"))
    assert isinstance(answer, InferResponse)
    known = {tensor.name: tensor.data.tolist() for tensor in answer.outputs}
    assert known["seed"] == [3, 4]
    assert known["steps"] == known["step"] == [1, 1]
    assert known["guidance_scale"] == [3.5, 3.5]
    assert known["size"] == [[64, 32]] * 2
    assert known["prompt_tokens"] == [5, 32]
    assert known["prompt_cut"] == [False, True]
    assert pixels(known["image"][0]).shape == (32, 64, 3)


@pytest.mark.parametrize(
    ("columns", "param"),
    [
        ({"steps": 10**9}, "steps"),
        ({"seed": -1}, "seed"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"guidance_scale": 31.0}, "guidance_scale"),
        ({"size": "63x64"}, "size"),
        ({"size": "9" * 4000 + "x64"}, "size"),
        ({"output_format": "gif"}, "output_format"),
        ({"output_compression": 101}, "output_compression"),
        ({"partial_images": 99}, "partial_images"),
        ({"negative_prompt": "a car", "guidance_scale": 1.0}, "negative_prompt"),
        ({"negative_prompt": "x" * 10_000}, "negative_prompt"),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_name(columns: dict[str, Any], param: str) -> None:
    (end,) = run(ONE, asked("a cat", **columns))
    assert isinstance(end, ServingError)
    assert (end.http_status, end.param) == (400, param)


@pytest.mark.parametrize("prompt", ["", " \n", "x" * 10_000, "a\x00cat", "a\x1b[31mcat", "\x7f"])
def test_a_text_that_is_no_prompt_is_refused(prompt: str) -> None:
    (end,) = run(ONE, asked(prompt))
    assert isinstance(end, InvalidArgument)
    assert end.param == "prompt"
    assert end.code.startswith("PROMPT_")


@pytest.mark.parametrize(
    "prompt", ["🍎🚗", "ein roter Apfel", "一个红苹果", "تفاحة حمراء", "a\ncat", "e\u0301"]
)
def test_every_script_is_a_prompt(prompt: str) -> None:
    (end,) = run(ONE, asked(prompt, steps=1))
    assert pixels(files(end)[0]).shape == (64, 64, 3)
