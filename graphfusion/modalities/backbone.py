"""Pretrained models in the format of Hugging Face's transformers: the configuration as text that a saved predictor can carry, the
module that it describes, and what a checkpoint gives to both. Nothing of a checkpoint is run: families by name, weights from
safetensors, no remote code.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphfusion.errors import CheckpointError, ConfigError, GraphFusionError, unknown_name

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import nn

FAMILIES: dict[str, tuple[str, ...]] = {
    "text": (
        "albert", "bert", "clip_text_model", "distilbert", "electra", "gpt2", "modernbert", "mpnet", "roberta", "xlm-roberta",
    ),
    "image": (
        "beit", "clip_vision_model", "convnext", "convnextv2", "deit", "dinov2", "dinov2_with_registers", "resnet", "swin", "vit",
    ),
}  # fmt: skip
"""Kind of input → `model_type` of the models that read it, each of them tried in the tests."""
PARTS = {"text": "text_config", "image": "vision_config"}
"""Where a model of both kinds (CLIP) keeps the configuration of its part."""
COUNTS_FROM_PAD = ("mpnet", "roberta", "xlm-roberta")
"""Families whose first place has the number after that of padding."""
MOST_WHOLE = 32
"""States of the whole picture, beside those of its cells, are fewer."""
INTERPOLATIONS = {0: "nearest-exact", 1: "bicubic", 2: "bilinear", 3: "bicubic"}
"""By Pillow's number; Lanczos, which torchvision does not have for arrays, as the one that is most like it."""
KEPT = ("bos_token_id", "eos_token_id", "pad_token_id")
"""What is kept of the options that all families share; the others name labels, code and kernels."""


def read_config(checkpoint: str, kind: str) -> str:
    """The configuration of a checkpoint, as JSON with no more than its family knows.

    Raises:
        ConfigError: there is no such checkpoint, or its family is not one for this kind of input.
    """
    import torch
    from transformers import AutoConfig

    with _named(checkpoint) as where:
        if where.startswith(("/", ".")) and not Path(where).is_dir():  # no name that the hub could know
            raise FileNotFoundError("there is no such folder.")
        whole = AutoConfig.from_pretrained(where, trust_remote_code=False)
    config = getattr(whole, PARTS[kind], None) or whole
    family = str(config.model_type)
    if family not in FAMILIES[kind]:
        raise ConfigError(f"checkpoint {checkpoint!r}: {unknown_name(f'{kind} model', family, FAMILIES[kind])}")
    options = {name: value for name, value in config.to_dict().items() if name in _options_of(family)}
    text = json.dumps({"model_type": family, **options}, sort_keys=True)
    try:
        with torch.device("meta"):  # whether the options go together, without their weights
            make_backbone(text, kind)
    except CheckpointError as error:
        raise ConfigError(f"checkpoint {checkpoint!r}: {error}") from error
    return text


def make_backbone(config: str, kind: str) -> nn.Module:
    """The model that `read_config` describes, with fresh weights and without pooler: its `last_hidden_state` is what is used.

    Raises:
        CheckpointError: the text describes no model of `FAMILIES`, or has an option that its family does not know or take.
    """
    from transformers import AutoModel

    options = _config_of(config, kind)
    try:
        with _quiet():
            model: nn.Module = AutoModel.from_config(options, trust_remote_code=False)  # type: ignore[no-untyped-call]
    except Exception as error:  # where numbers do not go together, families raise what they like
        said = f"{type(error).__name__}, {_first_line(error)}"
        raise CheckpointError(f"a pretrained model: not the configuration of a {options.model_type}: {said}") from error
    pooler = getattr(model, "pooler", None)
    if pooler is not None and any(True for _ in pooler.parameters()):
        model.pooler = None  # type: ignore[assignment]
    return model


def grid_of(config: str, size: int) -> tuple[int, int]:
    """Cells on each side of what a vision model makes of a picture of `size` x `size` pixels, and the width of their states;
    found without computing one.

    Raises:
        ValueError, RuntimeError: the model does not take that size, or its states are not one for each cell of a square grid.
    """
    import torch

    with torch.device("meta"):
        states = make_backbone(config, "image")(pixel_values=torch.empty(1, 3, size, size)).last_hidden_state
    shape = tuple(states.shape)
    if len(shape) == 4:
        width, side = shape[1], shape[2] if shape[2] == shape[3] else 0
    else:  # before the cells may stand states of the whole picture; patches are cells, unless they are joined (Swin)
        patches = size // int(json.loads(config).get("patch_size") or size)
        side = patches if 0 <= shape[1] - patches**2 < MOST_WHOLE else math.isqrt(shape[1])
        width, side = shape[2], side if 0 <= shape[1] - side * side < MOST_WHOLE else 0
    if not side or size % side:
        raise ValueError(f"states of shape {shape} are not those of a square grid that divides the picture.")
    return side, width


def places_of(config: str) -> int:
    """Tokens that a language model has places for (0: as many as you like)."""
    options = _config_of(config, "text")
    places = int(getattr(options, "max_position_embeddings", None) or 0)
    return places - options.pad_token_id - 1 if places and options.model_type in COUNTS_FROM_PAD else places


def width_of(config: str) -> int:
    """Width of the states of a language model."""
    return int(_config_of(config, "text").hidden_size)


def ids_of(config: str) -> int:
    """How many ids of tokens a language model knows."""
    return int(_config_of(config, "text").vocab_size)


def library() -> str:
    """What reads checkpoints here: the names of a model's weights are those of its version."""
    from transformers import __version__

    return f"transformers {__version__}"


def padding_of(config: str) -> int:
    """The id that a language model takes for padding, 0 where any will do."""
    return int(_config_of(config, "text").pad_token_id or 0)


def load_weights(model: nn.Module, checkpoint: str, config: str, kind: str) -> None:
    """Put the weights of a checkpoint into what `make_backbone` made.

    Raises:
        ConfigError: they are not there as safetensors, not all of them, or not finite.
    """
    import torch
    from transformers import AutoModel

    with _named(checkpoint) as where, _quiet():
        if (Path(where) / "adapter_config.json").exists():  # its weights may be pickled, its base model elsewhere
            raise ValueError("it is an adapter; merge it into its model first.")
        found, told = AutoModel.from_pretrained(
            where,
            config=_config_of(config, kind),
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    needed, there = model.state_dict(), found.state_dict()
    lacking = sorted(name for name in needed if name in told["missing_keys"] or name not in there)
    if lacking:
        raise ConfigError(
            f"checkpoint {checkpoint!r}: {len(lacking)} of {len(needed)} weights are missing, the first is {lacking[0]}; "
            "is it a checkpoint of this model?"
        )
    weights = {name: tensor for name, tensor in there.items() if name in needed}
    for name, tensor in weights.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ConfigError(f"checkpoint {checkpoint!r}: weight {name!r} is not finite.")
    model.load_state_dict(weights)


def read_tokenizer(checkpoint: str) -> tuple[Tokenizer, int]:
    """The tokenizer of a checkpoint, and the most tokens that its model takes (0: not said).

    Raises:
        ConfigError: there is none, or none that tells the characters of a token.
    """
    from transformers import AutoTokenizer

    with _named(checkpoint) as where, _quiet():
        found = AutoTokenizer.from_pretrained(where, trust_remote_code=False)
        if not set(found.get_vocab()) - {*found.all_special_tokens, *found.get_added_vocab()}:
            raise FileNotFoundError(
                "it has no tokenizer.json or vocabulary."
            )  # of which transformers makes an empty one
    if not found.is_fast:
        raise ConfigError(
            f"checkpoint {checkpoint!r}: its tokenizer does not tell where in the text a token is; "
            "save one with tokenizer.json beside the model."
        )
    longest = int(found.model_max_length)
    return found.backend_tokenizer, longest if longest < 1_000_000 else 0  # transformers' "not said" is 1e30


def read_scales(checkpoint: str) -> dict[str, Any]:
    """`size` (0: none that is square is said), `mean`, `std` and `interpolation` of the pictures that a checkpoint was trained on,
    for pixels from 0 to 1.

    Raises:
        ConfigError: the checkpoint has no preprocessor_config.json, or none with which pictures could be scaled.
    """
    from transformers import AutoImageProcessor

    with _named(checkpoint) as where, _quiet():
        found = AutoImageProcessor.from_pretrained(where, trust_remote_code=False)  # type: ignore[no-untyped-call]
        cut = getattr(found, "do_center_crop", False) and getattr(found, "crop_size", None)
        size = dict(cut or found.size or {})
        sides = {size[name] for name in ("height", "width", "shortest_edge") if size.get(name)}
        white = 255 * float(found.rescale_factor) if getattr(found, "do_rescale", True) else 255.0
        scaled = getattr(found, "do_normalize", True)
        mean, std = (
            (tuple(map(float, found.image_mean)), tuple(map(float, found.image_std)))
            if scaled
            else ((0.0,) * 3, (1.0,) * 3)
        )
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0 or not 0 < white < math.inf:
            raise ValueError(
                f"preprocessor_config.json: expected scales of three channels above 0, got {mean} and {std}."
            )
    return {
        "size": int(sides.pop()) if len(sides) == 1 else 0,
        "mean": tuple(m / white for m in mean),
        "std": tuple(s / white for s in std),
        "interpolation": INTERPOLATIONS.get(int(found.resample), "bilinear"),
    }


def _config_of(text: str, kind: str) -> Any:
    """The configuration from the JSON of `read_config`; CheckpointError if it is not such a text."""
    from transformers import AutoConfig

    try:
        options = dict(json.loads(text))
        family = options.pop("model_type")
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError("a pretrained model: expected its configuration as JSON with model_type.") from error
    if family not in FAMILIES[kind]:
        raise CheckpointError(f"a pretrained model: {unknown_name(f'{kind} model', family, FAMILIES[kind])}")
    for name in options:
        if name not in _options_of(family):
            raise CheckpointError(
                f"a pretrained model: {unknown_name(f'option of {family}', name, _options_of(family))}"
            )
    if "use_cache" in _options_of(family):
        options["use_cache"] = False  # keys and values of earlier tokens are for writing on
    try:
        return AutoConfig.for_model(family, **options)
    except Exception as error:  # transformers checks types by several libraries
        raise CheckpointError(
            f"a pretrained model: not the configuration of a {family}: {_first_line(error)}"
        ) from error


@cache
def _options_of(family: str) -> frozenset[str]:
    """The options that a family has beside those of all (of which a few are kept)."""
    from transformers import CONFIG_MAPPING, PreTrainedConfig

    with _quiet():
        own, shared = CONFIG_MAPPING[family]().to_dict(), PreTrainedConfig().to_dict()
    return frozenset({*(set(own) - set(shared)), *(set(KEPT) & set(own))} - {"model_type"})


@contextmanager
def _named(checkpoint: str) -> Iterator[str]:
    """Where the checkpoint is; what transformers raises as a ConfigError that names it."""
    try:
        yield os.path.expanduser(checkpoint)
    except GraphFusionError:
        raise
    except Exception as error:  # OSError, ValueError, errors of the hub and of safetensors
        raise ConfigError(
            f"checkpoint {checkpoint!r} cannot be read: {_first_line(error)} Expected a folder with config.json, "
            "model.safetensors and the files of its tokenizer or image processor, or the name of such a model on the hub."
        ) from error


def _first_line(error: Exception) -> str:
    text = (str(error).strip() or type(error).__name__).splitlines()[0].strip()
    return text if text.endswith(".") else f"{text}."


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' advice and progress bars: what matters of it is an error here."""
    from transformers import utils

    logging: Any = utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
