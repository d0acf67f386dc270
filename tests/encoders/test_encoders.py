"""Encoders: what they compute, and that padding changes nothing."""

from __future__ import annotations

import pytest
import torch

from graphfusion.encoders import ENCODERS, LinearEncoder, PatchConvEncoder, TabularEncoder, make_encoder
from graphfusion.errors import ConfigError
from graphfusion.graph_builder import GraphBuilder, NodeStore
from graphfusion.modalities import MODALITIES, TokenizedSample
from tests.conftest import make_rows, tokenize


def test_every_kind_of_input_has_an_encoder() -> None:
    assert set(ENCODERS) == {
        kind for kind in MODALITIES if not kind.startswith("pretrained_")
    }  # those bring their model


def test_every_encoder_on_every_kind(samples: list[TokenizedSample]) -> None:
    """Shape, the empty type, and a sample's features beside other samples and alone."""
    modalities, _ = tokenize(make_rows(8))
    builder = GraphBuilder({n: m.node_type for n, m in modalities.items()}, [])
    batch = builder.build([s.tokens for s in samples])
    empty = builder.build([{}])
    for name, modality in modalities.items():
        for choice in ENCODERS[modality.node_type.kind]:
            encoder = make_encoder(modality, 12, {modality.node_type.kind: choice})
            out = encoder(batch.nodes[name])
            assert out.shape == (len(batch.nodes[name]), 12)
            assert encoder(empty.nodes[name]).shape == (0, 12)
            ptr = batch.nodes[name].ptr
            for i in (0, 3, 7):
                alone = encoder(builder.build([samples[i].tokens]).nodes[name])
                torch.testing.assert_close(out[ptr[i] : ptr[i + 1]], alone, rtol=0, atol=1e-5)


def test_an_unknown_encoder_is_named() -> None:
    modalities, _ = tokenize(make_rows(2))
    with pytest.raises(ConfigError, match="Did you mean 'conv'"):
        make_encoder(modalities["photo"], 8, {"image": "convv"})


def store(values: torch.Tensor, position: torch.Tensor) -> NodeStore:
    count = len(values)
    return NodeStore(values, torch.tensor([0, count]), position, torch.empty(count, 0))


def test_patch_conv_sees_the_image_not_the_patches() -> None:
    """With one stage of unit weights, a patch's features are those of the same convolution over the whole image."""
    torch.manual_seed(0)
    encoder = PatchConvEncoder(6, (1, 2, 2))
    image = torch.randn(1, 1, 6, 8)
    patches = image.unfold(2, 2, 2).unfold(3, 2, 2).reshape(12, 1, 2, 2)
    place = torch.cartesian_prod(torch.arange(3), torch.arange(4))
    out = encoder(store(patches, place))
    x = image
    for mixer, shrinker in zip(encoder.mixers, encoder.shrinkers, strict=True):
        x = torch.nn.functional.gelu(shrinker(torch.nn.functional.gelu(mixer(x))))
    whole = encoder.last(x)[0].flatten(1).T
    torch.testing.assert_close(out, encoder.norm(encoder.position(whole, place)))


def test_patch_conv_takes_any_patch() -> None:
    for shape in ((3, 5, 5), (8, 6), (2, 1, 1), (2, 1)):
        position = torch.zeros(1, len(shape) - 1, dtype=torch.int64)
        assert PatchConvEncoder(4, shape)(store(torch.randn(1, *shape), position)).shape == (1, 4)
    with pytest.raises(ValueError, match="expected tokens"):
        PatchConvEncoder(4, (3, 2, 4))


def test_linear_and_tabular_by_hand() -> None:
    linear = LinearEncoder(4, (3, 2))
    x, index = torch.randn(2, 3, 2), torch.tensor([[0], [1]])
    torch.testing.assert_close(
        linear(store(x, index)), linear.norm(linear.position(linear.linear(x.flatten(1)), index))
    )
    table = TabularEncoder(4, numeric=[True, False], categories=3)
    out = table(store(torch.tensor([[0.0, 1.5], [1.0, 2.0]]), index))
    h = table.column.weight + torch.stack([1.5 * table.slope.weight[0], table.category.weight[2]])
    torch.testing.assert_close(out, table.norm(h + table.mix(h)))
