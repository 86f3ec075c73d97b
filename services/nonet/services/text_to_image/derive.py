"""Which service a text-to-image network brings with it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from nonet.runtime.errors import ModelRefused
from nonet.runtime.extras import how_to_install
from nonet.runtime.servable import HasFiles, ModelInfo, Servable
from nonet.runtime.task import ServiceLimits
from nonet.runtime.tensors import DataType
from nonet.runtime.text_states import EncoderMissing, encoder_of, load_encoder
from nonet.services.text_to_image.missing_encoder import MissingEncoderServable
from nonet.services.text_to_image.network_rows import NetworkRows
from nonet.services.text_to_image.picture_decoder import DECODER_FILE, PictureDecoder
from nonet.services.text_to_image.recipe import Recipe, recipe_of
from nonet.services.text_to_image.safety_filter import NsfwFilter
from nonet.services.text_to_image.sampling import noise
from nonet.services.text_to_image.servable import GenerateServable, generate_info

TASK = "text_to_image"
TOKENIZER_FILE = "tokenizer.json"

logger = logging.getLogger(__name__)


def derive(network: Servable, limits: ServiceLimits | None = None) -> Sequence[Servable]:
    """``[generate.<network>]`` for a text-to-image network, nothing for any other.

    Its manifest says in ``source`` how it makes pictures (:class:`Recipe`); ``decoder.onnx`` and
    ``tokenizer.json`` are further files of the version. Where the text encoder is not installed, the service
    answers every request with what to install. Raises ModelRefused if something is missing or does not fit.
    """
    info = network.info
    if info.task != TASK:
        return ()
    recipe = recipe_of(info)
    channels = _check_fit(info, recipe)
    if not isinstance(network, HasFiles):
        raise ModelRefused("a text-to-image network has further files, and none can be read here")
    score = limits.unsafe_score if limits is not None else 0.0
    facts = {"unsafe_score": score}
    decoder = PictureDecoder(network.read_file(DECODER_FILE), recipe.reduction)
    decoder.check((channels, *recipe.latent(recipe.sizes[0])))
    tokenizer = network.read_file(TOKENIZER_FILE)
    try:
        if recipe.encoder_file:
            encoder = encoder_of(network.read_file(recipe.encoder_file), tokenizer, recipe.length)
        else:
            encoder = load_encoder(recipe.encoder, recipe.encoder_sha256, tokenizer, recipe.length)
    except EncoderMissing as error:
        logger.warning("model %s needs %s: %s", info.name, error, how_to_install("images"))
        return (MissingEncoderServable(generate_info(info, recipe, facts)),)
    safety = NsfwFilter(score) if score > 0 else None
    latents = noise(0, 0, (channels, *recipe.latent(recipe.sizes[0])))
    rows = NetworkRows(network)
    step = [rows.row(latents, 1.0, encoder.encode(""))] * (2 if recipe.guided else 1)
    cost = _quickest(lambda: decoder.decode([latents])) / _quickest(lambda: rows.execute(step))
    return (GenerateServable(network, recipe, encoder, decoder, safety, facts, round(cost, 2)),)


def _quickest(run: Callable[[], object]) -> float:
    """Seconds of the fastest of three runs, which other load disturbs least."""
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return max(min(seconds), 1e-6)


def _check_fit(info: ModelInfo, recipe: Recipe) -> int:
    """The channels of the latents. Raises ModelRefused unless the network is what the recipe says."""
    if info.max_batch_size < 1:
        raise ModelRefused("a text-to-image network batches")
    inputs: Mapping[str, tuple[int, ...]] = {
        spec.name: spec.shape for spec in info.inputs if spec.datatype is DataType.FP32
    }
    outputs = {spec.name for spec in info.outputs if spec.datatype is DataType.FP32}
    if len(info.inputs) != 4 or set(inputs) != {"latents", "time", "context", "context_mask"}:
        raise ModelRefused("a text-to-image network takes FP32 latents, time, context and context_mask")
    if "velocity" not in outputs:
        raise ModelRefused("a text-to-image network gives FP32 velocity")
    latents = inputs["latents"]
    for size in recipe.sizes:
        height, width = recipe.latent(size)
        if len(latents) != 4 or latents[2] not in (-1, height) or latents[3] not in (-1, width):
            raise ModelRefused(
                f"its latents {list(latents)} are not those of a picture of {size[0]}x{size[1]}"
            )
    if latents[1] < 1 or len(inputs["time"]) != 1 or inputs["context"][1:2] != (recipe.length,):
        raise ModelRefused(
            f"its inputs must be latents [N, C, H, W], time [N], context [N, {recipe.length}, D] and "
            f"context_mask [N, {recipe.length}]"
        )
    return latents[1]
