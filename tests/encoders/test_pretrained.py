"""Pretrained models as encoders: the states that transformers gives, of checkpoints in its own format."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graphfusion.encoders import PretrainedEncoder, PretrainedImageEncoder, PretrainedTextEncoder, make_encoder
from graphfusion.errors import CheckpointError, ConfigError
from graphfusion.graph_builder import GraphBuilder
from graphfusion.modalities import modality_from_dict, modality_to_dict
from graphfusion.modalities.backbone import FAMILIES, load_weights, make_backbone, read_config
from graphfusion.modalities.pretrained_image import PretrainedImageModality
from graphfusion.modalities.pretrained_text import PretrainedTextModality
from tests.checkpoints import SIZES, save_byte_model, save_image_model, save_model, save_text_model

KIND = {family: kind for kind, families in FAMILIES.items() for family in families}
ROOT = Path()
TEXTS = ("The red cats sat.", "a dog", "unhappy green mats on the mat, a cat?")


def picture(seed: int, height: int = 32, width: int = 32) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).random((3, height, width), dtype=np.float32)


def fitted_text(folder: Path, **options: Any) -> PretrainedTextModality:
    return PretrainedTextModality("text", checkpoint=str(folder), **{"max_tokens": 32, **options}).fit([], ROOT)


def fitted_image(folder: Path, **options: Any) -> PretrainedImageModality:
    return PretrainedImageModality("photo", checkpoint=str(folder), **{"size": 0, **options}).fit([], ROOT)


def encoder_of(modality: Any, dim: int = 12) -> PretrainedEncoder:
    """With the checkpoint's weights, without dropout."""
    encoder = make_encoder(modality, dim, {})
    assert isinstance(encoder, PretrainedEncoder)
    encoder.start_from(modality.checkpoint)
    return encoder.eval()


def test_every_family_is_tried() -> None:
    assert set(SIZES) == set(KIND)


@pytest.mark.parametrize("family", sorted(SIZES))
def test_the_states_of_a_family_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    kind = KIND[family]
    theirs = save_model(family, tmp_path)
    config = read_config(str(tmp_path), kind)
    ours = make_backbone(config, kind).eval()
    load_weights(ours, str(tmp_path), config, kind)
    if kind == "text":
        asked = {"input_ids": torch.arange(3, 17).reshape(2, 7), "attention_mask": torch.ones(2, 7, dtype=torch.int64)}
    else:
        asked = {"pixel_values": torch.randn(2, 3, *[SIZES[family].get("image_size", 64)] * 2)}
    with torch.no_grad():
        expected = theirs(**asked).last_hidden_state
        torch.testing.assert_close(ours(**asked).last_hidden_state, expected, rtol=0, atol=0)
    assert expected.std() > 0.01  # weights that say something
    assert not any("pooler" in name for name, _ in ours.named_parameters())


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_text_tokens_have_the_models_states_with_and_without_padding(family: str, tmp_path: Path) -> None:
    theirs = save_text_model(tmp_path) if family == "bert" else save_byte_model(tmp_path)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    modality = fitted_text(tmp_path, max_tokens=tokenizer.model_max_length)
    builder = GraphBuilder({"text": modality.node_type}, [])
    rows = [{"text": modality.tokens({"text": t}, ROOT)} for t in TEXTS] + [{}]
    batch = builder.build(rows)
    encoder = encoder_of(modality)
    out = encoder(batch.nodes["text"])
    ptr = batch.nodes["text"].ptr.tolist()
    for i, text in enumerate(TEXTS):
        ids = tokenizer(text, return_tensors="pt")
        assert batch.nodes["text"].values[ptr[i] : ptr[i + 1]].tolist() == ids["input_ids"][0].tolist()
        with torch.no_grad():
            states = theirs(**{k: v for k, v in ids.items() if k != "token_type_ids"}).last_hidden_state[0]
            expected = encoder.norm(encoder.projection(states))
        torch.testing.assert_close(out[ptr[i] : ptr[i + 1]], expected, rtol=0, atol=1e-5)
    assert ptr[-1] == ptr[-2]


def test_spans_lead_back_into_the_text_and_special_tokens_have_none(tmp_path: Path) -> None:
    save_text_model(tmp_path)
    tokens = fitted_text(tmp_path).tokens({"text": TEXTS[0]}, ROOT)
    pieces = [TEXTS[0][int(a) : int(b)] for a, b in tokens.span]
    assert pieces == ["", "The", "red", "cat", "s", "sat", ".", ""]
    assert tokens.attributes["entity"].tolist() == ["", "the", "red", "cats", "cats", "sat", ".", ""]


def test_a_long_text_is_cut_and_told_and_keeps_its_last_special_token(tmp_path: Path) -> None:
    save_text_model(tmp_path)
    modality = fitted_text(tmp_path, max_tokens=8)
    tokens = modality.tokens({"text": "the cat sat on the mat a red dog"}, ROOT)
    assert modality.decode(tokens.values.tolist()) == "the cat sat on the mat"
    assert len(tokens) == 8
    assert tokens.values[-1] == 3
    assert tokens.cut.startswith("11 tokens, of which the first max_tokens=8")


def test_more_tokens_than_the_model_has_places_are_refused(tmp_path: Path) -> None:
    save_text_model(tmp_path)
    with pytest.raises(ConfigError, match=r"max_tokens=33.* takes 32; lower max_tokens"):
        fitted_text(tmp_path, max_tokens=33)


def test_places_of_a_roberta_begin_after_its_padding(tmp_path: Path) -> None:
    save_text_model(tmp_path, "roberta", max_position_embeddings=20)
    with pytest.raises(ConfigError, match="takes 18;"):
        fitted_text(tmp_path, max_tokens=19)
    modality = fitted_text(tmp_path, max_tokens=18)
    batch = GraphBuilder({"text": modality.node_type}, []).build(
        [{"text": modality.tokens({"text": "a cat " * 20}, ROOT)}]
    )
    assert encoder_of(modality)(batch.nodes["text"]).shape == (18, 12)


@pytest.mark.parametrize(
    ("family", "size", "side"), [("vit", 32, 4), ("deit", 32, 4), ("resnet", 64, 2), ("swin", 32, 4)]
)
def test_cells_of_a_picture_have_the_models_states(family: str, size: int, side: int, tmp_path: Path) -> None:
    theirs = save_image_model(tmp_path, family, size)
    modality = fitted_image(tmp_path)
    assert (modality.size, modality.patch) == (size, size // side)
    pictures = [picture(i, size, size) for i in range(2)]
    builder = GraphBuilder({"photo": modality.node_type}, [])
    rows = [{"photo": modality.tokens({"photo": p}, ROOT)} for p in pictures]
    nodes = builder.build([rows[0], {}, rows[1]]).nodes["photo"]
    encoder = encoder_of(modality)
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.4, 0.5, 0.6], [0.2, 0.3, 0.4]))
    pixels = torch.stack([(torch.from_numpy(p) - mean) / std for p in pictures])
    with torch.no_grad():
        states = theirs(pixel_values=pixels).last_hidden_state
        cells = states.flatten(2).transpose(1, 2) if states.dim() == 4 else states[:, -(side**2) :]
        expected = encoder.norm(encoder.projection(cells)).flatten(0, 1)
    torch.testing.assert_close(encoder(nodes), expected, rtol=0, atol=1e-5)
    assert nodes.position[:side].tolist() == [[0, i] for i in range(side)]


def test_a_picture_is_resized_whole_and_its_spans_are_in_its_own_pixels(tmp_path: Path) -> None:
    save_image_model(tmp_path)
    tokens = fitted_image(tmp_path).tokens({"photo": picture(0, 20, 60)}, ROOT)
    assert tokens.span[0].tolist() == [0, 0, 15, 5]
    assert tokens.span[-1].tolist() == [45, 15, 60, 20]


def test_pictures_are_scaled_as_the_checkpoint_says(tmp_path: Path) -> None:
    from transformers import BeitImageProcessor, CLIPImageProcessor, ConvNextImageProcessor

    save_model("clip_vision_model", tmp_path / "clip")
    CLIPImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}).save_pretrained(
        tmp_path / "clip"
    )
    clip = fitted_image(tmp_path / "clip")
    assert (clip.size, clip.interpolation) == (32, "bicubic")
    assert clip.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    save_model("convnext", tmp_path / "convnext")
    ConvNextImageProcessor(size={"shortest_edge": 64}, do_normalize=False).save_pretrained(tmp_path / "convnext")
    save_model("beit", tmp_path / "beit")
    BeitImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False).save_pretrained(tmp_path / "beit")
    assert fitted_image(tmp_path / "beit").size == 32
    convnext = fitted_image(tmp_path / "convnext")
    assert (convnext.size, convnext.mean, convnext.std) == (64, (0, 0, 0), (1, 1, 1))


def test_a_size_that_the_model_does_not_take_is_refused(tmp_path: Path) -> None:
    save_image_model(tmp_path)
    with pytest.raises(ConfigError, match=r"column 'photo': .* does not take size=48"):
        fitted_image(tmp_path, size=48)


@pytest.mark.parametrize("family", sorted(FAMILIES["text"]))
def test_a_text_has_the_same_states_beside_longer_ones(family: str, tmp_path: Path) -> None:
    save_text_model(tmp_path, family)
    modality = fitted_text(tmp_path)
    builder = GraphBuilder({"text": modality.node_type}, [])
    rows = [{"text": modality.tokens({"text": text}, ROOT)} for text in TEXTS]
    encoder = encoder_of(modality)
    together, nodes = encoder(builder.build(rows).nodes["text"]), builder.build(rows).nodes["text"]
    for i, row in enumerate(rows):
        alone = encoder(builder.build([row]).nodes["text"])
        torch.testing.assert_close(together[nodes.ptr[i] : nodes.ptr[i + 1]], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", sorted({*FAMILIES["text"]} - {"clip_text_model"}))
def test_a_checkpoint_without_its_vocabulary_is_refused(family: str, tmp_path: Path) -> None:
    """transformers makes an empty one, to which every word is unknown."""
    save_model(family, tmp_path)
    with pytest.raises(ConfigError, match=r"cannot be read|tokenizer"):
        fitted_text(tmp_path, max_tokens=18)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    save_text_model(tmp_path, vocab_size=10)
    with pytest.raises(ConfigError, match="its tokenizer has an id 19, its model knows 10"):
        fitted_text(tmp_path)


def test_special_tokens_alone_are_refused(tmp_path: Path) -> None:
    save_text_model(tmp_path)
    with pytest.raises(ConfigError, match=r"max_tokens=2 counts the 2 special tokens .*; raise max_tokens"):
        fitted_text(tmp_path, max_tokens=2)
    assert len(fitted_text(tmp_path, max_tokens=3).tokens({"text": TEXTS[0]}, ROOT)) == 3


def test_an_adapter_is_refused(tmp_path: Path) -> None:
    save_text_model(tmp_path)
    modality = fitted_text(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "someone/model"}')
    with pytest.raises(ConfigError, match="it is an adapter; merge it"):
        encoder_of(modality)


def test_registers_are_no_cells(tmp_path: Path) -> None:
    """2 × 2 patches and five states of the whole picture are nine states, and not 3 × 3 cells."""
    save_image_model(tmp_path, "dinov2_with_registers", 24, image_size=24, patch_size=12)
    assert fitted_image(tmp_path).patch == 12


def test_pixels_are_scaled_as_the_image_processor_does(tmp_path: Path) -> None:
    from transformers import AutoImageProcessor

    save_image_model(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    pixels = (255 * picture(1).transpose(1, 2, 0)).astype(np.uint8)
    plain = json.loads(file.read_text())
    for change in ({}, {"rescale_factor": 1 / 127.5}, {"do_rescale": False}, {"do_normalize": False}):
        file.write_text(json.dumps({**plain, **change}))
        theirs = AutoImageProcessor.from_pretrained(tmp_path)(pixels, return_tensors="pt")["pixel_values"][0]
        values = fitted_image(tmp_path).tokens({"photo": pixels}, ROOT).values  # (16, 3, 8, 8)
        ours = torch.from_numpy(values).unflatten(0, (4, 4)).permute(2, 0, 3, 1, 4).reshape(3, 32, 32)
        torch.testing.assert_close(ours, theirs.float(), rtol=1e-4, atol=1e-4)
    for change in ({"image_std": [0, 0, 0]}, {"image_mean": 0.5}):
        file.write_text(json.dumps({**plain, **change}))
        with pytest.raises(ConfigError, match="cannot be read"):
            fitted_image(tmp_path)
    file.write_text(json.dumps({**plain, "size": {"height": 32, "width": 48}}))
    with pytest.raises(ConfigError, match=r"does not say one size of a square; pass size="):
        fitted_image(tmp_path)


@pytest.mark.parametrize("form", ["head", "shards", "half"])
def test_checkpoints_of_other_forms_give_the_same_weights(form: str, tmp_path: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(2)
    whole = BertForSequenceClassification(BertConfig(**SIZES["bert"])).eval()
    if form == "half":
        whole.half()
    whole.save_pretrained(tmp_path, max_shard_size="20KB" if form == "shards" else "1GB")
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (form == "shards")
    config = read_config(str(tmp_path), "text")
    model = make_backbone(config, "text").eval()
    load_weights(model, str(tmp_path), config, "text")
    ids = torch.arange(3, 10)[None]
    torch.testing.assert_close(
        model(input_ids=ids).last_hidden_state, whole.float().bert(input_ids=ids).last_hidden_state, rtol=0, atol=0
    )


def test_weights_that_are_not_finite_are_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_text_model(tmp_path)
    modality = fitted_text(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    weights["encoder.layer.1.output.dense.bias"][3] = float("nan")
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"weight 'encoder.layer.1.output.dense.bias' is not finite"):
        encoder_of(modality)


def test_a_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_text_model(tmp_path / "bert")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert PretrainedTextModality("text", max_tokens=8, checkpoint="~/bert").fit([], ROOT).vocabulary


def test_both_halves_of_a_clip_can_be_read(tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    config = CLIPConfig(
        text_config=CLIPTextConfig(**SIZES["clip_text_model"]).to_dict(),
        vision_config=CLIPVisionConfig(**SIZES["clip_vision_model"]).to_dict(),
        projection_dim=8,
    )
    torch.manual_seed(3)
    whole = CLIPModel(config).eval()
    whole.save_pretrained(tmp_path)
    ids, pixels = torch.arange(3, 10)[None], torch.randn(1, 3, 32, 32)
    for kind, part, asked in (
        ("text", whole.text_model, {"input_ids": ids}),
        ("image", whole.vision_model, {"pixel_values": pixels}),
    ):
        text = read_config(str(tmp_path), kind)
        model = make_backbone(text, kind).eval()
        load_weights(model, str(tmp_path), text, kind)
        torch.testing.assert_close(model(**asked).last_hidden_state, part(**asked).last_hidden_state, rtol=0, atol=0)


def test_a_frozen_model_has_no_gradients_and_no_dropout_a_tuned_one_has_both(tmp_path: Path) -> None:
    save_text_model(tmp_path)
    modality = fitted_text(tmp_path)
    batch = GraphBuilder({"text": modality.node_type}, []).build([{"text": modality.tokens({"text": TEXTS[0]}, ROOT)}])
    nodes = batch.nodes["text"]
    frozen, tuned = (encoder_of(replace(modality, tune=tune)).train() for tune in (0.0, 0.1))
    for encoder in (frozen, tuned):
        encoder(nodes).square().sum().backward()
        assert encoder.projection.weight.grad is not None
    assert all(p.grad is None and not p.requires_grad for p in frozen.model.parameters())
    assert all(p.grad is not None for p in tuned.model.parameters())
    assert torch.equal(frozen(nodes), frozen(nodes))
    assert not torch.equal(tuned(nodes), tuned(nodes))


def test_batch_statistics_stay_those_of_the_checkpoint(tmp_path: Path) -> None:
    """Else a picture's states would depend on the pictures beside it."""
    save_image_model(tmp_path, "resnet", 64)
    modality = replace(fitted_image(tmp_path), tune=0.1)
    builder = GraphBuilder({"photo": modality.node_type}, [])
    rows = [{"photo": modality.tokens({"photo": picture(i, 64, 64)}, ROOT)} for i in range(3)]
    encoder = encoder_of(modality).train()
    before = {name: b.clone() for name, b in encoder.model.named_buffers()}
    together = encoder(builder.build(rows).nodes["photo"])
    alone = encoder(builder.build(rows[1:2]).nodes["photo"])
    torch.testing.assert_close(together[4:8], alone, rtol=0, atol=1e-5)
    for name, buffer in encoder.model.named_buffers():
        assert torch.equal(buffer, before[name]), name


def test_no_tokens_give_no_features(tmp_path: Path) -> None:
    save_text_model(tmp_path / "t")
    save_image_model(tmp_path / "i")
    for modality in (fitted_text(tmp_path / "t"), fitted_image(tmp_path / "i")):
        nodes = GraphBuilder({"x": modality.node_type}, []).build([{}]).nodes["x"]
        assert encoder_of(modality)(nodes).shape == (0, 12)


def test_a_fitted_modality_needs_no_checkpoint_any_more(tmp_path: Path) -> None:
    save_text_model(tmp_path / "t")
    save_image_model(tmp_path / "i", "resnet", 64)
    for modality in (fitted_text(tmp_path / "t"), fitted_image(tmp_path / "i")):
        document = json.loads(json.dumps(modality_to_dict(modality)))
        assert modality_from_dict(document) == modality
        encoder = encoder_of(modality)
        assert isinstance(encoder, PretrainedTextEncoder | PretrainedImageEncoder)
        elsewhere = make_encoder(replace(modality, checkpoint="/nowhere"), 12, {})
        elsewhere.load_state_dict(encoder.state_dict())


@pytest.mark.parametrize("change", [
    {"model_type": "llama"}, {"auto_map": {"AutoModel": "evil.Model"}}, {"attn_implementation": "someone/kernel"},
    {"_attn_implementation_internal": "someone/kernel"}, {"fusion_config": {"patch_embeddings": True}}, {"hidden_size": "wide"},
    {"num_attention_heads": 0}, {"num_attention_heads": 3}, {"pad_token_id": 10**6}, {"hidden_act": "os.system"},
])  # fmt: skip
def test_a_configuration_that_its_family_does_not_know_or_take_is_refused(
    change: dict[str, Any], tmp_path: Path
) -> None:
    save_model("bert", tmp_path)
    config = json.loads(read_config(str(tmp_path), "text"))
    with pytest.raises(CheckpointError, match="pretrained model"):
        make_backbone(json.dumps({**config, **change}), "text")


def test_numbers_of_a_checkpoint_that_do_not_go_together_are_told_with_its_name(tmp_path: Path) -> None:
    save_image_model(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "num_attention_heads": 0}))
    with pytest.raises(
        ConfigError, match=r"checkpoint '.*' *: a pretrained model: not the configuration of a vit: ZeroDivisionError"
    ):
        fitted_image(tmp_path)


def test_what_a_checkpoint_says_of_code_is_not_taken_along(tmp_path: Path) -> None:
    save_model("bert", tmp_path)
    file = tmp_path / "config.json"
    told = {"auto_map": {"AutoModel": "evil.Model"}, "attn_implementation": "eager", "num_labels": 5}
    file.write_text(json.dumps({**json.loads(file.read_text()), **told}))
    kept = json.loads(read_config(str(tmp_path), "text"))
    assert not {*told, "id2label", "_name_or_path", "architectures"} & set(kept)


def test_a_checkpoint_that_is_not_there_or_of_another_kind_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"checkpoint '.*nothing' cannot be read: there is no such folder. Expected a folder with config.json",
    ):
        fitted_text(tmp_path / "nothing")
    save_model("vit", tmp_path / "vit")
    with pytest.raises(ConfigError, match=r"unknown text model 'vit'.*Known: albert, bert"):
        fitted_text(tmp_path / "vit")
    with pytest.raises(ConfigError, match="cannot be read"):  # no preprocessor_config.json
        fitted_image(tmp_path / "vit")


def test_weights_that_lack_are_not_made_up(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_text_model(tmp_path)
    modality = fitted_text(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = {name: w for name, w in load_file(file).items() if "layer.1.output.dense" not in name}
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(
        ConfigError, match=r"2 of \d+ weights are missing, the first is encoder.layer.1.output.dense.bias"
    ):
        encoder_of(modality)


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    model = save_text_model(tmp_path)
    modality = fitted_text(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="cannot be read"):
        encoder_of(modality)
