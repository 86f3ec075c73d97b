"""Pipelines of diffusers' kind are read as their own libraries read them, and then served like any other."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from diffusers import DDIMScheduler
from numpy.typing import NDArray
from PIL import Image
from transformers import CLIPTokenizer

from nonet.cli.main import main
from nonet.runtime.network_import import ImportOptions, NetworkOfAnotherTask, NetworkRefused, NetworkUnclear
from nonet.runtime.text_states import encoder_of
from nonet.services.text_to_image.importing.flow_graph import velocity_graph
from nonet.services.text_to_image.importing.importer import import_pipeline
from nonet.services.text_to_image.importing.noise_schedules import read_schedule
from nonet.services.text_to_image.sampling import flow_times, next_latents, noise
from tests.support.exported_pipelines import (
    LATENT_SIDE,
    OTHER_WIDTH,
    POOLED,
    SCHEDULER,
    TOKENS,
    WIDTH,
    TinyPipeline,
)
from tests.support.running_server import RunningServer

Array = NDArray[Any]
PROMPTS = ("a red apple", "A  Blue CAR, on the cat.", "", "zebra's 42 x" * 9, "naïve ☂ 猫")


class Imported:
    """A tiny pipeline, its folder, and the repository that it was imported into."""

    def __init__(self, root: Path, large: bool) -> None:
        self.pipeline = TinyPipeline(large=large)
        self.folder = self.pipeline.export(root / "exported")
        self.repository = root / "models"
        import_pipeline(self.folder)("tiny", self.repository, ImportOptions())
        self.version = self.repository / "tiny" / "1"
        self.manifest = json.loads((self.version / "manifest.json").read_text())
        self.network = session(self.version / "model.onnx")

    def velocity(self, latents: Array, times: Array, context: Array) -> Array:
        feeds = {"latents": latents, "time": times.astype(np.float32), "context": context}
        feeds["context_mask"] = np.ones(context.shape[:2], np.float32)
        found: Array = self.network.run(None, feeds)[0]
        return found


def session(path: Path) -> Any:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Imported:
    return Imported(tmp_path_factory.mktemp("plain"), large=False)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Imported:
    return Imported(tmp_path_factory.mktemp("large"), large=True)


@pytest.mark.parametrize(
    ("prediction", "betas"),
    [("epsilon", "scaled_linear"), ("v_prediction", "linear"), ("sample", "squaredcos_cap_v2")],
)
def test_steps_along_the_straight_path_are_those_of_ddim(
    plain: Imported, tmp_path: Path, prediction: str, betas: str
) -> None:
    """Ten steps from the same noise: the picture at every step is that of diffusers' sampler."""
    config = {**SCHEDULER, "prediction_type": prediction, "beta_schedule": betas}
    unet = onnx.load(str(plain.folder / "unet" / "model.onnx"))
    path = tmp_path / "model.onnx"
    onnx.save(velocity_graph(unet, read_schedule(config), TOKENS, WIDTH, 0, 8), str(path))
    network = session(path)
    named = {name: value for name, value in config.items() if name != "_class_name"}
    sampler = DDIMScheduler(**named, clip_sample=False, set_alpha_to_one=True, steps_offset=0)
    sampler.set_timesteps(10)
    steps = [int(step) for step in sampler.timesteps]
    signal = sampler.alphas_cumprod.double().numpy()[steps]
    sigma = np.append(np.sqrt((1 - signal) / signal), 0.0)
    times = sigma / (1 + sigma)
    random = np.random.default_rng(1)
    context = random.standard_normal((1, TOKENS, WIDTH), dtype=np.float32)
    theirs = torch.from_numpy(random.standard_normal((1, 4, LATENT_SIDE, LATENT_SIDE), dtype=np.float32))
    ours = theirs.numpy() * np.float32((1 - times[0]) / np.sqrt(signal[0]))
    mask = np.ones((1, TOKENS), np.float32)
    for place, step in enumerate(steps):
        with torch.no_grad():
            said = plain.pipeline.unet(
                theirs, torch.tensor([step]), torch.from_numpy(context), return_dict=False
            )[0]
        theirs = sampler.step(said, step, theirs, return_dict=False)[0]
        feeds = {"latents": ours, "time": np.float32(times[place : place + 1])}
        (velocity,) = network.run(None, {**feeds, "context": context, "context_mask": mask})
        fresh = (0, place)
        ours = next_latents("flow_euler", ours, velocity, float(times[place]), float(times[place + 1]), fresh)
        scale = float(theirs.abs().max())
        now = 1.0 if place + 1 == len(steps) else np.sqrt(signal[place + 1]) / (1 - times[place + 1])
        np.testing.assert_allclose(ours * now, theirs.numpy(), atol=2e-3 * scale)


def test_every_row_has_a_time_of_its_own_and_extremes_are_finite(plain: Imported) -> None:
    random = np.random.default_rng(2)
    times = np.array([1.0, 0.93, 0.5, 1e-3, 0.0])
    latents = random.standard_normal((5, 4, LATENT_SIDE, LATENT_SIDE), dtype=np.float32)
    context = random.standard_normal((5, TOKENS, WIDTH), dtype=np.float32)
    together = plain.velocity(latents, times, context)
    assert np.isfinite(together).all()
    for row in range(3):
        alone = plain.velocity(latents[row : row + 1], times[row : row + 1], context[row : row + 1])
        np.testing.assert_allclose(alone[0], together[row], atol=1e-4)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompts_become_the_tokens_and_states_of_their_own_library(plain: Imported, prompt: str) -> None:
    theirs = CLIPTokenizer.from_pretrained(str(plain.folder / "tokenizer"))
    ids = theirs(prompt, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt")
    encoder = encoder_of(
        (plain.version / "text_encoder.onnx").read_bytes(),
        (plain.version / "tokenizer.json").read_bytes(),
        TOKENS,
    )
    found = encoder.encode(prompt)
    with torch.no_grad():
        states = plain.pipeline.encoders[0](ids.input_ids).last_hidden_state[0].numpy()
    np.testing.assert_allclose(found.context, states, atol=1e-4)
    assert found.mask.tolist() == [1.0] * TOKENS
    assert found.tokens == int(ids.attention_mask.sum())
    assert found.cut == (len(theirs(prompt).input_ids) > TOKENS)


def test_two_encoders_and_the_size_are_given_as_sdxl_wants_them(large: Imported) -> None:
    theirs = CLIPTokenizer.from_pretrained(str(large.folder / "tokenizer"))
    ids = theirs("a red cat", padding="max_length", max_length=TOKENS, return_tensors="pt").input_ids
    end = theirs.eos_token_id
    after = (ids == end).int().cumsum(1) > 1
    first, second = large.pipeline.encoders
    random = np.random.default_rng(3)
    latents = random.standard_normal((2, 4, LATENT_SIDE, LATENT_SIDE), dtype=np.float32)
    with torch.no_grad():
        one = first(ids, output_hidden_states=True).hidden_states[-2]
        other = second(ids.masked_fill(after, 0), output_hidden_states=True)
        states = torch.cat([one, other.hidden_states[-2]], -1)
        sigma = 0.6 / 0.4
        sample = torch.from_numpy(latents) / (0.6**2 + 0.4**2) ** 0.5
        table = read_schedule(SCHEDULER).log_sigma
        step = float(np.interp(np.log(sigma), table, np.arange(1000)))
        said = large.pipeline.unet(
            sample,
            torch.full((2,), step),
            states.expand(2, -1, -1),
            added_cond_kwargs={
                "text_embeds": other.text_embeds.expand(2, -1),
                "time_ids": torch.tensor([[64.0, 64.0, 0, 0, 64.0, 64.0]] * 2),
            },
            return_dict=False,
        )[0]
        picture = sample * (1 + sigma**2) ** 0.5 - sigma * said
        wanted = (torch.from_numpy(latents) - picture) / 0.6
    encoder = encoder_of(
        (large.version / "text_encoder.onnx").read_bytes(),
        (large.version / "tokenizer.json").read_bytes(),
        TOKENS + 1,
    )
    context = encoder.encode("a red cat").context
    assert context.shape == (TOKENS + 1, WIDTH + OTHER_WIDTH)
    assert not context[-1, POOLED:].any()
    got = large.velocity(latents, np.full(2, 0.6), np.stack([context] * 2))
    np.testing.assert_allclose(got, wanted.numpy(), atol=2e-3 * float(wanted.abs().max()))


def test_latents_become_the_picture_of_their_own_autoencoder(plain: Imported) -> None:
    latents = np.random.default_rng(4).standard_normal((2, 4, 6, LATENT_SIDE), dtype=np.float32)
    (got,) = session(plain.version / "decoder.onnx").run(None, {"latents": latents})
    with torch.no_grad():
        raw = plain.pipeline.autoencoder.decode(torch.from_numpy(latents) / 0.18215, return_dict=False)[0]
    assert got.shape == (2, 3, 48, 64)
    np.testing.assert_allclose(got, (raw / 2 + 0.5).clamp(0, 1).numpy(), atol=1e-4)


def test_the_scheduler_says_how_many_steps_and_whether_guidance() -> None:
    usual, fast = read_schedule(SCHEDULER), read_schedule({**SCHEDULER, "timestep_spacing": "trailing"})
    assert (usual.distilled, fast.distilled) == (False, True)
    assert (np.diff(usual.log_sigma) > 0).all()
    assert read_schedule({**SCHEDULER, "rescale_betas_zero_snr": True}).log_sigma[-1] > 8


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"beta_schedule": "cosine"}, "beta_schedule is 'cosine'"),
        ({"prediction_type": "flow"}, "predicts 'flow'"),
        ({"num_train_timesteps": 1}, "has 1 steps"),
        ({"trained_betas": [0.1, 0.0, 0.1]}, "no noise that grows"),
    ],
)
def test_schedules_that_are_none_are_refused(change: Mapping[str, Any], said: str) -> None:
    with pytest.raises(NetworkRefused, match=said):
        read_schedule({**SCHEDULER, **change})


def test_a_folder_that_cannot_be_served_says_what_is_missing(plain: Imported, tmp_path: Path) -> None:
    with pytest.raises(NetworkOfAnotherTask, match=r"model_index\.json"):
        import_pipeline(tmp_path)
    folder = tmp_path / "pipeline"
    shutil.copytree(plain.folder, folder)
    (folder / "unet" / "model.onnx").rename(folder / "unet" / "kept.onnx")
    with pytest.raises(NetworkRefused, match=r"unet/model\.onnx is not there: export the pipeline"):
        import_pipeline(folder)
    (folder / "unet" / "kept.onnx").rename(folder / "unet" / "model.onnx")
    publish = import_pipeline(folder / "model_index.json")
    with pytest.raises(NetworkUnclear, match="multiple of 16"):
        publish("tiny", tmp_path / "models", ImportOptions(size=40))
    (folder / "tokenizer" / "merges.txt").unlink()
    with pytest.raises(NetworkRefused, match=r"vocab\.json and merges\.txt"):
        publish("tiny", tmp_path / "models", ImportOptions())
    index = {"_class_name": "StableDiffusion3Pipeline", "transformer": ["diffusers", "any"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(NetworkRefused, match="StableDiffusion3Pipeline has a transformer"):
        import_pipeline(folder)
    assert not (tmp_path / "models").exists()


def test_weights_beside_a_network_come_along(plain: Imported, tmp_path: Path) -> None:
    folder = tmp_path / "pipeline"
    shutil.copytree(plain.folder, folder)
    unet = folder / "unet" / "model.onnx"
    model = onnx.load(str(unet))
    onnx.save(model, str(unet), save_as_external_data=True, location="weights.bin", size_threshold=64)
    import_pipeline(folder)("tiny", tmp_path / "models", ImportOptions())
    version = tmp_path / "models" / "tiny" / "1"
    assert (version / "weights.bin").stat().st_size > 100_000
    latents = np.ones((1, 4, LATENT_SIDE, LATENT_SIDE), np.float32)
    context = np.ones((1, TOKENS, WIDTH), np.float32)
    feeds = {"latents": latents, "time": np.float32([0.7]), "context": context}
    feeds["context_mask"] = np.ones((1, TOKENS), np.float32)
    (got,) = session(version / "model.onnx").run(None, feeds)
    np.testing.assert_array_equal(got, plain.velocity(latents, np.array([0.7]), context))
    (folder / "unet" / "weights.bin").unlink()
    with pytest.raises(NetworkRefused, match=r"needs the file 'weights\.bin'"):
        import_pipeline(folder)("again", tmp_path / "models", ImportOptions())


def test_an_imported_pipeline_makes_pictures(
    plain: Imported, tmp_path: Path, start_server: Callable[..., RunningServer], capsys: Any
) -> None:
    """From the command to a picture over the route: the one that its own parts give, step by step."""
    models = tmp_path / "models"
    line = [
        "models",
        "import",
        str(plain.folder),
        "--as",
        "sd",
        "--repository",
        str(models),
        "--licence",
        "MIT",
    ]
    assert main(line) == 0
    assert "read as StableDiffusionPipeline: 64 px, epsilon over 1000 steps" in capsys.readouterr().out
    server = start_server(models)
    asked = {"prompt": "a red apple", "seed": 5, "steps": 3, "guidance_scale": 1.0, "size": "64x64"}
    first, again = (picture(server.http.post("/v1/images/generations", json=asked)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    guided = picture(server.http.post("/v1/images/generations", json={**asked, "guidance_scale": 4.0}))
    assert (guided != first).any()
    assert first.shape == (64, 64, 3)
    encoder = encoder_of(
        (plain.version / "text_encoder.onnx").read_bytes(),
        (plain.version / "tokenizer.json").read_bytes(),
        TOKENS,
    )
    context = encoder.encode("a red apple").context[None]
    latents, times = noise(5, 0, (4, LATENT_SIDE, LATENT_SIDE))[None], flow_times(3, 1.6)
    for place in range(3):
        velocity = plain.velocity(latents, np.array(times[place : place + 1]), context)
        latents = next_latents("flow_euler", latents, velocity, *times[place : place + 2], (5, place + 1))
    (wanted,) = session(plain.version / "decoder.onnx").run(None, {"latents": latents})
    np.testing.assert_allclose(first, wanted[0].transpose(1, 2, 0) * 255, atol=1.0)


def picture(answer: httpx.Response) -> Array:
    assert answer.status_code == 200, answer.text
    (only,) = answer.json()["data"]
    with Image.open(io.BytesIO(base64.b64decode(only["b64_json"]))) as opened:
        return np.asarray(opened.convert("RGB"))
