"""Checkpoints of the classes of open grounding models, tiny and randomly initialised.

Nothing about pictures was learnt by any of them, and no answer means anything; the chat model was taught to
write one fixed answer, so that there is one to read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

BINS = 1000
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())


def grounding_dino(folder: Path) -> Path:
    """``GroundingDinoForObjectDetection`` with 20 queries."""
    import torch
    from transformers import (
        BertConfig,
        BertTokenizer,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoProcessor,
        SwinConfig,
    )
    from transformers.models.grounding_dino.image_processing_pil_grounding_dino import (
        GroundingDinoImageProcessorPil,
    )

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "the", "red", "dog", "one", "on", "left"]
    torch.manual_seed(0)
    tiny: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(
            embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, out_indices=[2, 3, 4]
        ),
        text_config=BertConfig(vocab_size=len(words), intermediate_size=32, **tiny),
        d_model=32,
        num_queries=20,
        encoder_layers=1,
        decoder_layers=2,  # of one layer transformers finds no weights to tie
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        disable_custom_kernels=True,
    )
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(words)})
    pictures = GroundingDinoImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 96})
    GroundingDinoProcessor(pictures, tokenizer).save_pretrained(folder)
    return folder


def florence2(folder: Path) -> Path:
    """``Florence2ForConditionalGeneration`` that writes places, whatever it sees."""
    import torch
    from transformers import (
        BartConfig,
        CLIPImageProcessorPil,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
        PreTrainedTokenizerFast,
    )
    from transformers.models.florence2.configuration_florence2 import Florence2VisionConfig

    special = ["<s>", "<pad>", "</s>", "<unk>", "<image>"]
    places = [f"<loc_{index}>" for index in range(BINS)]
    reader = _letters(special + places)
    torch.manual_seed(0)
    vision = Florence2VisionConfig(
        depths=[1, 1, 1, 1],
        embed_dim=[8, 8, 8, 8],
        num_heads=[1, 1, 1, 1],
        num_groups=[1, 1, 1, 1],
        window_size=4,
        projection_dim=16,
    )
    text = BartConfig(
        vocab_size=reader.get_vocab_size(),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_bos_token_id=None,
        forced_eos_token_id=2,
    )
    config = Florence2Config(
        vision_config=vision.to_dict(),
        text_config=text.to_dict(),
        image_token_id=reader.token_to_id("<image>"),
    )
    network = Florence2ForConditionalGeneration(config)
    network.generation_config.update(decoder_start_token_id=2, eos_token_id=2, bos_token_id=0, pad_token_id=1)
    network.save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=reader,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )
    pictures = CLIPImageProcessorPil(
        size={"height": 64, "width": 64}, do_center_crop=False, image_seq_length=5, resample=3
    )
    pictures.image_seq_length = 5
    Florence2Processor(pictures, tokenizer).save_pretrained(folder)
    return folder


def qwen2_5_vl(folder: Path, answer: str = "") -> Path:
    """``Qwen2_5_VLForConditionalGeneration`` that writes ``answer``, or random letters without one."""
    import torch
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
    )
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"]
    reader = _letters([*special, "<|image_pad|>", "<|video_pad|>", *([answer] if answer else [])])
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": reader.get_vocab_size(),
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "bos_token_id": None,
            "eos_token_id": reader.token_to_id("<|im_end|>"),
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
        },
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [0],
        },
        image_token_id=reader.token_to_id("<|image_pad|>"),
        video_token_id=reader.token_to_id("<|video_pad|>"),
        vision_start_token_id=reader.token_to_id("<|vision_start|>"),
        vision_end_token_id=reader.token_to_id("<|vision_end|>"),
    )
    network = Qwen2_5_VLForConditionalGeneration(config)
    network.generation_config.update(eos_token_id=reader.token_to_id("<|im_end|>"), pad_token_id=0)
    if answer:
        _teach(network, reader, answer)
    network.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=reader,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(folder)
    Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=112 * 112).save_pretrained(folder)
    return folder


def _teach(network: Any, reader: tokenizers.Tokenizer, answer: str) -> None:
    """Make the answer, one token, the likeliest after the end of a prompt, and the end what follows it."""
    import torch

    chain = [*reader.encode("\n").ids, reader.token_to_id(answer), reader.token_to_id("<|im_end|>")]
    network.train()
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-2)
    dice = torch.Generator().manual_seed(0)
    for _ in range(120):
        before = torch.randint(reader.get_vocab_size(), (8, 24), generator=dice)
        ids = torch.cat([before, torch.tensor(chain).repeat(8, 1)], 1)
        logits = network(input_ids=ids).logits[:, 24:-1]
        wanted = ids[:, 25:]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.eval()


def _letters(special: list[str]) -> tokenizers.Tokenizer:
    """Every byte a token of its own, behind the special tokens."""
    vocabulary = {token: index for index, token in enumerate([*special, *_LETTERS])}
    reader = tokenizers.Tokenizer(models.BPE(vocabulary, []))
    reader.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    reader.decoder = decoders.ByteLevel()
    reader.add_special_tokens(special)
    return reader
