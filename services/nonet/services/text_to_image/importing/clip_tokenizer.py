"""The tokenizer of a pipeline folder, as a file of the library `tokenizers` that pads and cuts by itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from nonet.runtime.network_import import NetworkRefused

__all__ = ["read_tokenizer"]

_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"
_WORDS: Final = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
"""What CLIP's tokenizer takes as one piece (A. Radford et al., arXiv 2103.00020; its byte-pair
vocabulary)."""


def read_tokenizer(folder: Path, tokens: int) -> tuple[bytes, int]:
    """The tokenizer that gives exactly ``tokens`` for every text, and the number of the token that ends one.

    Args:
        folder: with ``tokenizer.json``, or with ``vocab.json`` and ``merges.txt`` of CLIP.
        tokens: that the text encoder takes.

    Raises NetworkRefused where neither is there or can be read.
    """
    import tokenizers

    try:
        if (folder / "tokenizer.json").is_file():
            reader = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        else:
            reader = _of_vocabulary(folder)
    except NetworkRefused:
        raise
    except Exception as error:  # the binding raises a plain Exception
        raise NetworkRefused(f"the tokenizer in {folder.name} cannot be read: {error}") from error
    padding = _said(folder).get("pad_token", _END)
    if isinstance(padding, Mapping):
        padding = padding.get("content")
    end, pad = reader.token_to_id(_END), reader.token_to_id(str(padding))
    if end is None or pad is None:
        raise NetworkRefused(f"the tokenizer in {folder.name} has no {_END}: it is not CLIP's")
    reader.enable_truncation(tokens)
    reader.enable_padding(length=tokens, pad_id=pad, pad_token=str(padding))
    text: str = reader.to_str()
    return text.encode(), end


def _said(folder: Path) -> Mapping[str, Any]:
    try:
        found = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _of_vocabulary(folder: Path) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    if not (vocabulary.is_file() and merges.is_file()):
        raise NetworkRefused(f"{folder.name} has no tokenizer.json, and not vocab.json and merges.txt")
    model = models.BPE.from_file(
        str(vocabulary), str(merges), unk_token=_END, end_of_word_suffix="</w>", continuing_subword_prefix=""
    )
    made = Tokenizer(model)
    made.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    begin, end = made.token_to_id(_BEGIN), made.token_to_id(_END)
    if begin is None or end is None:
        raise NetworkRefused(f"the vocabulary in {folder.name} has no {_BEGIN} and {_END}")
    made.post_processor = processors.TemplateProcessing(
        single=f"{_BEGIN} $A {_END}", special_tokens=[(_BEGIN, begin), (_END, end)]
    )
    return made
