"""Small pretrained models with random weights, saved as transformers saves large ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

WORDS = ("a", "red", "green", "cat", "dog", "sat", "on", "the", "mat", "##s", "un", "##happy", "?", ".", ",")
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
    "vocab_size": 300,
}
PATCHED = {
    **{k: v for k, v in SMALL.items() if "_size" not in k and "max" not in k},
    "hidden_size": 16,
    "intermediate_size": 32,
}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
SIZES: dict[str, dict[str, Any]] = {
    "albert": {**SMALL, "embedding_size": 8},
    "bert": SMALL,
    "clip_text_model": {**SMALL, **TOKENS},
    "distilbert": {
        "dim": 16,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 32,
        "vocab_size": 300,
        "max_position_embeddings": 40,
    },
    "electra": {**SMALL, "embedding_size": 8},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 300, "n_positions": 40, **TOKENS},
    "modernbert": {**SMALL, **TOKENS},
    "mpnet": SMALL,
    "roberta": SMALL,
    "xlm-roberta": SMALL,
    "beit": {**PATCHED, "image_size": 32, "patch_size": 8},
    "clip_vision_model": {**PATCHED, "image_size": 32, "patch_size": 8},
    "convnext": {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "image_size": 64},
    "convnextv2": {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "image_size": 64},
    "deit": {**PATCHED, "image_size": 32, "patch_size": 8},
    "dinov2": {**PATCHED, "image_size": 28, "patch_size": 7},
    "dinov2_with_registers": {**PATCHED, "image_size": 28, "patch_size": 7},
    "resnet": {
        "embedding_size": 8,
        "hidden_sizes": [8, 16, 16, 24],
        "depths": [1, 1, 1, 1],
        "layer_type": "bottleneck",
    },
    "swin": {
        "image_size": 32,
        "patch_size": 4,
        "embed_dim": 8,
        "depths": [1, 1],
        "num_heads": [2, 2],
        "window_size": 4,
    },
    "vit": {**PATCHED, "image_size": 32, "patch_size": 8},
}
"""Family → options of a model of a few thousand weights."""


def save_model(family: str, folder: Path, **options: Any) -> Any:
    """config.json and model.safetensors of a small model with weights of some size; the model, ready to be asked."""
    from transformers import AutoConfig, AutoModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = AutoModel.from_config(AutoConfig.for_model(family, **{**SIZES[family], **options})).eval()
        for name, weight in model.named_parameters():
            if weight.dim() > 1 or "position" in name or "token" in name:
                weight.data = torch.randn_like(weight) * (0.5 if weight.dim() < 4 else 0.2)
        for name, statistic in model.named_buffers():
            if "running_mean" in name:
                statistic.data = torch.randn_like(statistic) * 0.1
            elif "running_var" in name:
                statistic.data = torch.rand_like(statistic) + 0.5
    model.save_pretrained(folder)
    return model


def save_text_model(folder: Path, family: str = "bert", **options: Any) -> Any:
    """A language model with a WordPiece tokenizer of `WORDS`."""
    from transformers import BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {word: i for i, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS))}
    BertTokenizerFast(vocab=vocabulary, model_max_length=32).save_pretrained(folder)
    return save_model(family, folder, **options)


def save_byte_model(folder: Path) -> Any:
    """A GPT-2 with a byte-level BPE tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=40).save_pretrained(folder)
    return save_model("gpt2", folder)


def save_image_model(folder: Path, family: str = "vit", size: int = 32, **options: Any) -> Any:
    """A vision model with the scales of its pictures."""
    from transformers import ViTImageProcessor

    sides = {"height": size, "width": size}
    ViTImageProcessor(size=sides, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4]).save_pretrained(folder)
    return save_model(family, folder, **options)
