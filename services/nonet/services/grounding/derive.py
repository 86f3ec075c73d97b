"""Which services a grounding network brings with it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from nonet.runtime.errors import ModelRefused
from nonet.runtime.extras import how_to_install
from nonet.runtime.images import ImageLimits
from nonet.runtime.images.regions import LOOKS as LOOKS_COUNT
from nonet.runtime.servable import HasFiles, ModelInfo, Servable
from nonet.runtime.task import ServiceLimits
from nonet.runtime.tensors import DataType
from nonet.runtime.text_states import EncoderMissing, TextEncoder, load_encoder
from nonet.services.grounding.ground import GroundServable
from nonet.services.grounding.names import NOTHING, SCORES, TASK
from nonet.services.grounding.pictures import LooksServable, ViewsServable
from nonet.services.grounding.prompted import (
    PromptedServable,
    PromptRecipe,
    as_prompted,
    open_tokenizer,
    prompt_recipe_of,
)
from nonet.services.grounding.recipe import Recipe, recipe_of
from nonet.services.grounding.texts import TextsServable

TOKENIZER_FILE = "tokenizer.json"
_INPUTS = (
    "boxes",
    "region_mask",
    "region_scores",
    "region_names",
    "region_looks",
    "aspect",
    "tokens",
    "token_mask",
)

logger = logging.getLogger(__name__)


def derive(network: Servable, limits: ServiceLimits | None = None) -> Sequence[Servable]:
    """``ground.<network>`` for a grounding network, and the services that make its inputs:
    ``looks.<network>``, ``views.<network>`` and ``texts.<network>``, unless it takes pictures itself; nothing
    for any other network.

    Its manifest says in ``source`` how it finds regions and reads text (:class:`Recipe`); ``tokenizer.json``
    is a further file of the version. Where the text encoder is not installed, the service answers every
    request with what to install. Raises ModelRefused if something is missing or does not fit.
    """
    info = network.info
    if info.task != TASK:
        return ()
    allowed = limits or ServiceLimits()
    bounds = ImageLimits(encoded_bytes=allowed.image_bytes, pixels=allowed.image_pixels)
    if (prompted := prompt_recipe_of(info)) is not None:
        return (_prompted(network, prompted, bounds),)
    recipe = recipe_of(info)
    width = _check_fit(info, recipe)
    if not isinstance(network, HasFiles):
        raise ModelRefused("a grounding network has further files, and none can be read here")
    encoder: TextEncoder | None = None
    tokenizer = network.read_file(TOKENIZER_FILE)
    try:
        encoder = load_encoder(recipe.encoder, recipe.encoder_sha256, tokenizer, recipe.length)
    except EncoderMissing as error:
        logger.warning("model %s needs %s: %s", info.name, error, how_to_install("images"))
    return (
        LooksServable(info, recipe.regions, bounds),
        ViewsServable(info, bounds),
        TextsServable(info, recipe, width, encoder),
        GroundServable(network, recipe, width, encoder),
    )


def _prompted(network: Servable, recipe: PromptRecipe, limits: ImageLimits) -> Servable:
    """The service of a network that takes a picture and a text. Raises ModelRefused if it is none."""
    if missing := as_prompted(network.info.inputs, network.info.outputs):
        raise ModelRefused(missing)
    if not isinstance(network, HasFiles):
        raise ModelRefused("a grounding network has further files, and none can be read here")
    tokenizer = open_tokenizer(network.read_file(TOKENIZER_FILE), recipe.length)
    return PromptedServable(network, recipe, tokenizer, limits)


def _check_fit(info: ModelInfo, recipe: Recipe) -> int:
    """The width of a token's state. Raises ModelRefused unless the network is what the recipe says; it may
    take any number of regions."""
    if info.max_batch_size < 1:
        raise ModelRefused("a grounding network batches")
    inputs = {spec.name: spec.shape[1:] for spec in info.inputs if spec.datatype is DataType.FP32}
    if len(info.inputs) != len(_INPUTS) or set(inputs) != set(_INPUTS):
        raise ModelRefused(f"a grounding network takes FP32 {', '.join(_INPUTS)}")
    length, width = recipe.length, inputs["tokens"][-1]
    regions = -1 if inputs["boxes"][:1] == (-1,) else recipe.regions
    wanted = {
        "boxes": (regions, 4),
        "region_mask": (regions,),
        "region_scores": (regions,),
        "region_names": (regions, width),
        "region_looks": (regions, LOOKS_COUNT),
        "aspect": (),
        "tokens": (length, width),
        "token_mask": (length,),
    }
    for name, shape in wanted.items():
        if inputs[name] != shape:
            raise ModelRefused(f"its input {name} is {['N', *inputs[name]]}, not {['N', *shape]}")
    outputs = {spec.name: spec.shape[1:] for spec in info.outputs if spec.datatype is DataType.FP32}
    if outputs != {SCORES: (regions,), NOTHING: ()}:
        raise ModelRefused(f"a grounding network gives FP32 {SCORES} [N, regions] and {NOTHING} [N]")
    return width
