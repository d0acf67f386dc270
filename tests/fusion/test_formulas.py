"""Each strategy against its published formula: by numbers worked out by hand, or written down a second time, sample by sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from graphfusion.errors import ConfigError
from graphfusion.fusion import (
    FUSIONS,
    AlternatingCoAttentionFusion,
    BilinearFusion,
    CoAttentionFusion,
    ConcatFusion,
    CrossAttentionFusion,
    DotTransformerFusion,
    FusedGraph,
    FusionStrategy,
    GatedFusion,
    LowRankTensorFusion,
    LSTMFusion,
    MeanFusion,
    ModalityAttentionFusion,
    OutputFusion,
    ProjectionFusion,
    SharedTrunkFusion,
    SplitSequenceFusion,
    TensorFusion,
    TransformerFusion,
    WeightedSumFusion,
    options_of,
)
from graphfusion.fusion.split_sequence import split
from graphfusion.graph_builder import Full, GraphBatch, GraphBuilder, NodeStore
from graphfusion.modalities import NodeType

DIM = 8
COUNTS = {"text": [3, 1, 0, 4, 0], "image": [2, 0, 5, 3, 0], "sound": [1, 2, 0, 6, 0]}
"""Tokens of five samples: two have all modalities, one lacks the image, one has the image alone, one has nothing."""


def builder_of(names: tuple[str, ...] = tuple(COUNTS)) -> GraphBuilder:
    return GraphBuilder({n: NodeType(n, (DIM,)) for n in names}, [])


def batch_of(counts: Mapping[str, list[int]]) -> tuple[GraphBatch, dict[str, Tensor]]:
    """Random features of so many tokens a sample."""
    generator = torch.Generator().manual_seed(0)
    nodes, features = {}, {}
    for name, each in counts.items():
        ptr = torch.tensor([0, *torch.tensor(each).cumsum(0).tolist()])
        n = int(ptr[-1])
        features[name] = torch.randn(n, DIM, generator=generator)
        nodes[name] = NodeStore(features[name], ptr, torch.zeros(n, 1, dtype=torch.int64), torch.empty(n, 0))
    return GraphBatch(nodes, {}, torch.arange(len(each))), features


def made(kind: type[FusionStrategy], seed: int = 0, names: tuple[str, ...] = tuple(COUNTS), **settings: Any) -> Any:
    torch.manual_seed(seed)
    return kind(builder_of(names), DIM, **settings).eval()  # type: ignore[call-arg]


def of_sample(batch: GraphBatch, features: Mapping[str, Tensor], b: int) -> dict[str, Tensor]:
    """The tokens of one sample by modality; those it lacks left out."""
    cut = {n: x[batch.nodes[n].ptr[b] : batch.nodes[n].ptr[b + 1]] for n, x in features.items()}
    return {n: x for n, x in cut.items() if len(x)}


def check(fusion: Any, expected: Callable[[dict[str, Tensor]], Tensor], nothing: Tensor | None = None) -> FusedGraph:
    """The unified vector of every sample is what `expected` makes of its own tokens; `nothing`, if given, where there are none."""
    batch, features = batch_of(COUNTS)
    found: FusedGraph = fusion(batch, features)
    for b in range(len(batch)):
        tokens = of_sample(batch, features, b)
        wanted = expected(tokens) if tokens or nothing is None else nothing
        torch.testing.assert_close(found.unified[b], wanted, rtol=1e-4, atol=1e-5)
    return found


def vector(fusion: Any, tokens: Mapping[str, Tensor], name: str) -> Tensor:
    """Mean of a modality's tokens; the learned vector where there are none."""
    return tokens[name].mean(0) if name in tokens else fusion.readouts[name].absent


# by hand


def test_weighted_sum_by_hand() -> None:
    """α = softmax(ln 3, 0) = (3/4, 1/4); f doubles. Without the norm h = 3/4 · 2 · (1, 2) + 1/4 · 2 · (4, 8) = (3.5, 7)."""
    fusion = WeightedSumFusion(GraphBuilder({n: NodeType(n, (2,)) for n in "ab"}, []), 2, feedforward=4)
    fusion.score.data = torch.tensor([math.log(3.0), 0.0])
    for f in fusion.maps.parts:
        _as_identity(f, 2.0)
    # with it: norm(2 · (1, 2)) = (−1, 1), norm(2 · (8, 4)) = (1, −1), h = 3/4 · (−1, 1) + 1/4 · (1, −1)
    found, alpha = fusion.join(torch.tensor([[[1.0, 2.0], [8.0, 4.0]]]), torch.tensor([[True, True]]))
    torch.testing.assert_close(found, torch.tensor([[-0.5, 0.5]]), rtol=0, atol=2e-3)
    fusion.norm = torch.nn.Identity()
    found, alpha = fusion.join(torch.tensor([[[1.0, 2.0], [4.0, 8.0]]]), torch.tensor([[True, True]]))
    torch.testing.assert_close(found, torch.tensor([[3.5, 7.0]]), rtol=0, atol=2e-3)
    torch.testing.assert_close(alpha, torch.tensor([[0.75, 0.25]]))
    alone, alpha = fusion.join(torch.tensor([[[1.0, 2.0], [4.0, 8.0]]]), torch.tensor([[False, True]]))
    torch.testing.assert_close(alone, torch.tensor([[8.0, 16.0]]), rtol=0, atol=2e-3)
    assert alpha.tolist() == [[0.0, 1.0]]


def _as_identity(f: Any, scale: float) -> None:
    """Two layers 2 → 4 → 2 that scale positive numbers: GELU(x + 9) = x + 9 there."""
    f[0].weight.data = torch.cat([torch.eye(2), torch.zeros(2, 2)])
    f[0].bias.data = torch.tensor([9.0, 9.0, 0.0, 0.0])
    f[3].weight.data = torch.cat([scale * torch.eye(2), torch.zeros(2, 2)], dim=1)
    f[3].bias.data = torch.full((2,), -9.0 * scale)


@pytest.mark.parametrize(
    ("kind", "first"),
    [
        # scores of token 0 to (0, 1, 2): scaled 0, ln 2, ln 4 by construction → weights 1/7, 2/7, 4/7
        (TransformerFusion, (1 * 1.0 + 2 * 3.0 + 4 * 5.0) / 7),
        # plain: √C = 2 times as large, 0, ln 4, ln 16 → 1/21, 4/21, 16/21
        (DotTransformerFusion, (1 * 1.0 + 4 * 3.0 + 16 * 5.0) / 21),
    ],
)
def test_transformer_attention_by_hand(kind: Any, first: float) -> None:
    """a_ij = softmax_j(q_i · k_j / √C), ĥ_i = Σ_j a_ij v_j with C = 4, values 1, 3, 5."""
    attention = made(kind, names=("text",), layers=1, heads=2).layers[0].attention
    for linear in (attention.query, attention.key, attention.value, attention.out):
        linear.weight.data.zero_()
        linear.bias.data.zero_()
    attention.query.weight.data[0, 0] = 1.0
    attention.key.weight.data[0, 1] = 1.0
    attention.value.weight.data[0, 2] = 1.0
    attention.out.weight.data[0, 0] = 1.0
    x = torch.zeros(3, DIM)
    x[0, 0] = 1.0
    x[:, 1] = 2.0 * torch.tensor([0.0, math.log(2.0), math.log(4.0)])
    x[:, 2] = torch.tensor([1.0, 3.0, 5.0])
    from graphfusion.nn import self_plan

    found = attention(x, None, self_plan(3, torch.tensor([0, 3])))
    assert found[0, 0].item() == pytest.approx(first)
    assert found[1, 0].item() == pytest.approx(3.0)  # its query is 0: all alike, (1 + 3 + 5) / 3


# written a second time


def normed(x: Tensor) -> Tensor:
    """Mean 0, variance 1 over the features."""
    return (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt()


@pytest.mark.parametrize("kind", [WeightedSumFusion, MeanFusion])
def test_weighted_sum(kind: Any) -> None:
    fusion = made(kind)
    if kind is WeightedSumFusion:
        fusion.score.data = torch.tensor([0.3, -1.0, 2.0])
    score = dict(zip(COUNTS, fusion.score, strict=True))

    def expected(tokens: dict[str, Tensor]) -> Tensor:
        alpha = torch.stack([score[n] for n in tokens]).softmax(0)
        return sum(a * normed(fusion.maps[n](x.mean(0))) for a, (n, x) in zip(alpha, tokens.items(), strict=True))  # type: ignore[return-value]

    weights = check(fusion, expected, nothing=torch.zeros(DIM)).weights
    assert weights["image"][1] == 0
    assert weights["image"][2] == 1
    if kind is MeanFusion:
        assert weights["text"].tolist() == pytest.approx([1 / 3, 1 / 2, 0, 1 / 3, 0])
        assert "score" not in dict(fusion.named_parameters())


def test_fixed_weights() -> None:
    fusion = made(WeightedSumFusion, alpha={"sound": 3.0, "text": 1.0, "image": 0.0})
    batch, features = batch_of(COUNTS)
    weights = fusion(batch, features).weights
    assert [w[0].item() for w in weights.values()] == pytest.approx([0.25, 0.0, 0.75], abs=1e-6)
    assert weights["image"][2].item() == pytest.approx(1.0)
    for alpha in ((1.0, 2.0, -1.0), (0.0, 0.0, 0.0), (1.0, math.nan, 1.0), (1.0, math.inf, 1.0)):
        with pytest.raises(
            ConfigError, match=r"fusion_options\.alpha: expected weights of 0 or more, not all 0; got \{'text'"
        ):
            made(WeightedSumFusion, alpha=dict(zip(COUNTS, alpha, strict=True)))
    huge = made(WeightedSumFusion, alpha={"sound": 3e300, "text": 1e300, "image": 0.0})
    torch.testing.assert_close(huge.score, fusion.score)
    with pytest.raises(ConfigError, match="those of `mean` are equal; use `weighted_sum`"):
        made(MeanFusion, alpha=None)
    assert "alpha" not in options_of(MeanFusion)
    with pytest.raises(ConfigError, match="alpha: expected a weight for each of text, image, sound; got one for text"):
        made(WeightedSumFusion, alpha={"text": 1.0})
    with pytest.raises(ConfigError, match=r"unknown option of the fusion strategy 'aplha'\. Did you mean 'alpha'"):
        made(WeightedSumFusion, aplha={"text": 1.0})


def test_projection() -> None:
    fusion = made(ProjectionFusion)

    def expected(tokens: dict[str, Tensor]) -> Tensor:
        return fusion.back(torch.stack([fusion.maps[n](x.mean(0)) for n, x in tokens.items()]).mean(0))  # type: ignore[no-any-return]

    check(fusion, expected, nothing=fusion.back[1].bias)


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_concat(layers: int) -> None:
    fusion = made(ConcatFusion, layers=layers, dropout=0.5, feedforward=5)
    linear = [m for m in fusion.mlp.modules() if isinstance(m, torch.nn.Linear)]
    assert len(linear) == layers + 1
    assert sum(isinstance(m, torch.nn.Dropout) for m in fusion.mlp.modules()) == layers

    def expected(tokens: dict[str, Tensor]) -> Tensor:
        h = torch.cat([vector(fusion, tokens, n) for n in COUNTS])
        for each in linear[:-1]:
            h = torch.nn.functional.gelu(each.weight @ h + each.bias)
        return linear[-1].weight @ h + linear[-1].bias

    check(fusion, expected)


def test_output() -> None:
    """h = mean of h_m + f_m(h_m) over the modalities that are there."""
    fusion = made(OutputFusion)

    def expected(tokens: dict[str, Tensor]) -> Tensor:
        pooled = {n: x.mean(0) for n, x in tokens.items()}
        return torch.stack([h + fusion.maps[n](h) for n, h in pooled.items()]).mean(0)

    found = check(fusion, expected, nothing=torch.zeros(DIM))
    assert not any(r[4].any() for r in found.readouts.values())
    assert found.weights["sound"].tolist() == pytest.approx([1 / 3, 1 / 2, 0, 1 / 3, 0])


def test_gated() -> None:
    fusion = made(GatedFusion)

    def expected(tokens: dict[str, Tensor]) -> Tensor:
        joined = torch.cat([vector(fusion, tokens, n) for n in COUNTS])
        gates = fusion.gates(joined).sigmoid().chunk(3)
        parts = [
            z * fusion.maps[n](tokens[n].mean(0)).tanh() for n, z in zip(COUNTS, gates, strict=True) if n in tokens
        ]
        return fusion.back(sum(parts))

    check(fusion, expected, nothing=fusion.back[1].bias)


def test_modality_attention() -> None:
    fusion = made(ModalityAttentionFusion)

    def expected(tokens: dict[str, Tensor]) -> Tensor:
        query = fusion.query(torch.cat([vector(fusion, tokens, n) for n in COUNTS]))
        scores = torch.stack([query @ fusion.keys[n](x.mean(0)) for n, x in tokens.items()]) / DIM**0.5
        values = torch.stack([normed(fusion.maps[n](x.mean(0))) for n, x in tokens.items()])
        return scores.softmax(0) @ values

    check(fusion, expected, nothing=torch.zeros(DIM))


def test_tensor() -> None:
    fusion = made(TensorFusion)

    def expected(tokens: dict[str, Tensor]) -> Tensor:
        z = []
        for n in COUNTS:
            width = fusion.maps[n].out_features
            own = torch.nn.functional.gelu(fusion.maps[n](tokens[n].mean(0))) if n in tokens else torch.zeros(width)
            z.append(torch.cat([own, torch.ones(1)]))
        return fusion.products(torch.einsum("i,j,k->ijk", *z).flatten())

    check(fusion, expected)
    widths = {2: 31, 3: 9, 4: 4, 5: 3, 10: 1}
    for count, width in widths.items():
        names = tuple(f"m{i}" for i in range(count))
        assert TensorFusion(builder_of(names), 64).maps["m0"].out_features == width
    with pytest.raises(ConfigError, match="at most 10 modalities, got 11; use 'low_rank_tensor'"):
        TensorFusion(builder_of(tuple(f"m{i}" for i in range(11))), 64)


def test_low_rank_tensor_is_a_linear_map_of_the_tensor() -> None:
    fusion = made(LowRankTensorFusion, feedforward=5)
    with torch.no_grad():
        fusion.rank_weight.copy_(torch.tensor([1.0, -0.5, 0.2, 2.0]))
    factor = {n: torch.cat([f.weight, f.bias[:, None]], dim=1).view(4, 5, DIM + 1) for n, f in fusion.factors.items()}
    whole = torch.einsum("r,rwi,rwj,rwk->wijk", fusion.rank_weight, *factor.values())

    def expected(tokens: dict[str, Tensor]) -> Tensor:
        z = [torch.cat([tokens[n].mean(0) if n in tokens else torch.zeros(DIM), torch.ones(1)]) for n in COUNTS]
        return fusion.back(torch.einsum("wijk,i,j,k->w", whole, *z))

    check(fusion, expected)


def test_bilinear() -> None:
    fusion = made(BilinearFusion)

    def expected(tokens: dict[str, Tensor]) -> Tensor:
        names = list(COUNTS)
        total = torch.zeros(fusion.width)
        for (m, n), u, v in zip([(0, 1), (0, 2), (1, 2)], fusion.first, fusion.second, strict=True):
            if names[m] in tokens and names[n] in tokens:
                a, b = tokens[names[m]].mean(0), tokens[names[n]].mean(0)
                total = total + torch.tanh(u.weight @ a + u.bias) * torch.tanh(v.weight @ b + v.bias)
        alone = torch.cat([tokens[n].mean(0) if n in tokens else torch.zeros(DIM) for n in names])
        return fusion.back(total) + fusion.alone(alone)

    check(fusion, expected)
    assert made(BilinearFusion, names=("text",)).pairs == ((0, 0),)


def test_parallel_co_attention() -> None:
    fusion = made(CoAttentionFusion)
    for each in fusion.bias:
        torch.nn.init.normal_(each)
    bias = dict(zip(COUNTS, fusion.bias, strict=True))
    affinity = dict(zip(fusion.pairs, fusion.affinity, strict=True))

    def expected(tokens: dict[str, Tensor]) -> Tensor:
        total = torch.zeros(DIM)
        for m, own in zip(COUNTS, fusion.absent, strict=True):
            if m not in tokens:
                total = total + own
                continue
            x = tokens[m]
            hidden = fusion.maps[m](x) + bias[m]
            for n in tokens:
                if (m, n) in affinity:
                    hidden = hidden + torch.tanh(x @ affinity[m, n].weight.T @ tokens[n].T) @ fusion.maps[n](
                        tokens[n]
                    ) / len(tokens[n])
                elif (n, m) in affinity:
                    close = torch.tanh(tokens[n] @ affinity[n, m].weight.T @ x.T)
                    hidden = hidden + close.T @ fusion.maps[n](tokens[n]) / len(tokens[n])
            total = total + fusion.score[m](hidden.tanh())[:, 0].softmax(0) @ x
        return total + fusion.join(total)

    weights = check(fusion, expected).token_weights
    assert weights["text"].shape == (8,)
    assert weights["text"][:3].sum().item() == pytest.approx(1.0)
    assert weights["text"][3].item() == pytest.approx(1.0)


def test_alternating_co_attention() -> None:
    fusion = made(AlternatingCoAttentionFusion)

    def expected(tokens: dict[str, Tensor]) -> Tensor:
        guide, read = torch.zeros(DIM), {}
        for m in ("text", "image", "sound", "text", "image"):
            if m in tokens:
                hidden = torch.tanh(fusion.maps[m](tokens[m]) + fusion.guides[m].weight @ guide)
                guide = read[m] = fusion.score[m](hidden)[:, 0].softmax(0) @ tokens[m]
        total = sum(read.get(m, own) for m, own in zip(COUNTS, fusion.absent, strict=True))
        return total + fusion.join(total)  # type: ignore[no-any-return]

    check(fusion, expected)
    order = ("image", "text", "sound")
    kinds = {n: NodeType("text" if n == "text" else "features", (DIM,)) for n in order}
    other = AlternatingCoAttentionFusion(GraphBuilder(kinds, []), DIM).eval()
    for part in ("maps", "guides", "score", "join"):
        setattr(other, part, getattr(fusion, part))
    other.absent = torch.nn.ParameterList(fusion.absent[list(COUNTS).index(n)] for n in order)
    batch, features = batch_of({n: COUNTS[n] for n in order})
    found = other(batch, features)
    assert list(found.readouts) == list(found.token_weights) == list(order)
    for b in range(len(batch)):
        torch.testing.assert_close(found.unified[b], expected(of_sample(batch, features, b)), rtol=1e-4, atol=1e-5)


def attend(attention: Any, x: Tensor, y: Tensor, scale: float) -> Tensor:
    """Multi-head attention of the rows of x to those of y, head by head."""
    heads = attention.heads
    q, k, v = (f(z).chunk(heads, 1) for f, z in ((attention.query, x), (attention.key, y), (attention.value, y)))
    out = [(a @ b.T / scale).softmax(1) @ c for a, b, c in zip(q, k, v, strict=True)]
    return attention.out(torch.cat(out, dim=1))  # type: ignore[no-any-return]


def layer_by_hand(layer: Any, x: Tensor, scale: float) -> Tensor:
    normed = layer.norm(x)
    x = x + attend(layer.attention, normed, normed, scale)
    return x + layer.mlp(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("kind", "scale"), [(TransformerFusion, 2.0), (DotTransformerFusion, 1.0)])
def test_transformer(kind: Any, scale: float) -> None:
    fusion = made(kind, heads=2)

    def expected(tokens: dict[str, Tensor]) -> Tensor:
        own = dict(zip(COUNTS, fusion.modality, strict=True))
        x = torch.cat([h + own[n] for n, h in tokens.items()])
        for layer in fusion.layers:
            x = layer_by_hand(layer, x, scale)
        states = dict(zip(tokens, fusion.norm(x).split([len(h) for h in tokens.values()]), strict=True))
        return fusion.join(torch.cat([vector(fusion, states, n) for n in COUNTS]))  # type: ignore[no-any-return]

    absences = torch.cat([fusion.readouts[n].absent for n in COUNTS])
    check(fusion, expected, nothing=fusion.join(absences))


def test_transformer_equals_that_of_torch() -> None:
    """A layer with the weights of `nn.TransformerEncoderLayer`, on sequences that torch gets one by one."""
    from graphfusion.nn import TransformerLayer, self_plan

    torch.manual_seed(0)
    theirs = torch.nn.TransformerEncoderLayer(DIM, 2, 12, 0.0, "gelu", batch_first=True, norm_first=True)
    ours = TransformerLayer(DIM, 2, 12)
    weights, biases = theirs.self_attn.in_proj_weight.chunk(3), theirs.self_attn.in_proj_bias.chunk(3)
    torch.nn.init.normal_(theirs.self_attn.in_proj_bias)
    for part, weight, bias in zip(
        (ours.attention.query, ours.attention.key, ours.attention.value), weights, biases, strict=True
    ):
        part.load_state_dict({"weight": weight, "bias": bias})
    ours.attention.out.load_state_dict(theirs.self_attn.out_proj.state_dict())
    ours.norm.load_state_dict(theirs.norm1.state_dict())
    for mine, their in ((0, theirs.norm2), (1, theirs.linear1), (4, theirs.linear2)):
        ours.mlp[mine].load_state_dict(their.state_dict())
    x = torch.randn(9, DIM)
    found = ours(x, self_plan(9, torch.tensor([0, 4, 4, 5, 9])))
    expected = torch.cat([theirs(part[None])[0] for part in x.split([4, 1, 4])])
    torch.testing.assert_close(found, expected)


def test_dropout_of_attention_is_that_of_torch() -> None:
    """Each weight is left out in as many draws as it should be, and outputs are right on average."""
    from graphfusion.nn import DotAttention, self_plan

    torch.manual_seed(0)
    attention = DotAttention(DIM, 2, dropout=0.25).train()
    x, plan = torch.randn(3, DIM), self_plan(3, torch.tensor([0, 3]))
    draws = torch.stack([attention(x, None, plan) for _ in range(400)]).detach()
    assert float(draws.std(0).max()) > 0.01
    whole = attention.eval()(x, None, plan)
    torch.testing.assert_close(draws.mean(0), whole, rtol=0, atol=4 * float(draws.std(0).max()) / 400**0.5)
    for alone in (attention.train()(x[:1], None, self_plan(1, torch.tensor([0, 1]))) for _ in range(20)):
        parts = (alone - attention.out.bias) @ torch.linalg.inv(
            attention.out.weight.T
        )  # a head's one weight is 0 or 4/3
        ratio = parts / (attention.value(x[:1]))
        torch.testing.assert_close(ratio, (ratio > 0.5).float() * 4 / 3, rtol=0, atol=1e-3)


def test_shared_trunk() -> None:
    fusion = made(SharedTrunkFusion, heads=2)

    def expected(tokens: dict[str, Tensor]) -> Tensor:
        states = {}
        for n, x in tokens.items():
            for layer in fusion.trunk:
                x = layer_by_hand(layer, x, 2.0)
            states[n] = fusion.norms[n](x + fusion.own[n](x))
        return fusion.join(torch.cat([vector(fusion, states, n) for n in COUNTS]))  # type: ignore[no-any-return]

    check(fusion, expected)
    more = tuple(f"m{i}" for i in range(6))
    one, six = made(SharedTrunkFusion, names=("m0",)), made(SharedTrunkFusion, names=more)
    assert [p.shape for p in one.trunk.parameters()] == [p.shape for p in six.trunk.parameters()]
    counts = [sum(p.numel() for p in made(SharedTrunkFusion, names=more[:k]).parameters()) for k in (1, 2, 3)]
    each = sum(p.numel() for part in (six.own, six.norms, six.readouts) for p in part["m0"].parameters())
    assert counts[1] - counts[0] == counts[2] - counts[1] == each + 8 * DIM * DIM  # and what the unifier reads of it


def test_trunks_of_their_own() -> None:
    names = ("text", "image", "sound")
    apart, shared = (made(SharedTrunkFusion, heads=2, shared=flag) for flag in (False, True))

    def expected(tokens: dict[str, Tensor]) -> Tensor:
        states = {}
        for n, x in tokens.items():
            for layer in apart.trunk[n]:
                x = layer_by_hand(layer, x, 2.0)
            states[n] = apart.norms[n](x + apart.own[n](x))
        return apart.join(torch.cat([vector(apart, states, n) for n in names]))  # type: ignore[no-any-return]

    check(apart, expected)
    trunk, more, fewer = (sum(p.numel() for p in m.parameters()) for m in (shared.trunk, apart, shared))
    assert more - fewer == 2 * trunk
    for own in apart.trunk.parts:
        own.load_state_dict(shared.trunk.state_dict())
    rest = {n: w for n, w in shared.state_dict().items() if not n.startswith("trunk.")}
    apart.load_state_dict(rest, strict=False)
    batch, features = batch_of({"text": [2, 0], "image": [0, 3], "sound": [1, 4]})
    torch.testing.assert_close(apart(batch, features).unified, shared(batch, features).unified, rtol=0, atol=1e-5)


def test_shared_trunk_learns_from_every_modality() -> None:
    fusion = made(SharedTrunkFusion)
    batch, features = batch_of({"text": [2, 0], "image": [0, 3], "sound": [0, 0]})
    weight = fusion.trunk[0].attention.value.weight
    grads = [torch.autograd.grad(fusion(batch, features).unified[b].sum(), weight)[0] for b in range(2)]
    assert all(bool(g.abs().sum() > 0) for g in grads)
    assert not torch.allclose(grads[0], grads[1])


def test_cross_attention() -> None:
    fusion = made(CrossAttentionFusion, heads=2)
    assert fusion.query == "text"

    def expected(tokens: dict[str, Tensor]) -> Tensor:
        if "text" not in tokens:
            pooled = torch.stack([x.mean(0) for x in tokens.values()]).mean(0)
            return pooled + fusion.join(pooled)  # type: ignore[no-any-return]
        context = torch.cat([x for n, x in tokens.items() if n != "text"])
        x = tokens["text"]
        pooled = x.mean(0) + attend(fusion.attention, fusion.norms[0](x), fusion.norms[1](context), 2.0).mean(0)
        return pooled + fusion.join(pooled)  # type: ignore[no-any-return]

    check(fusion, expected, nothing=fusion.join(torch.zeros(DIM)))
    types = {"photo": NodeType("image", (DIM,)), "words": NodeType("text", (DIM,))}
    assert CrossAttentionFusion(GraphBuilder(types, []), DIM).query == "words"
    assert CrossAttentionFusion(GraphBuilder(types, []), DIM, query="photo").query == "photo"
    with pytest.raises(ConfigError, match=r"unknown modality 'foto'\. Did you mean 'photo'"):
        CrossAttentionFusion(GraphBuilder(types, []), DIM, query="foto")


@pytest.mark.parametrize("segment", [1, 2, 3, 50])
def test_split_sequence(segment: int) -> None:
    fusion = made(SplitSequenceFusion, heads=2, segment=segment)

    def expected(tokens: dict[str, Tensor]) -> Tensor:
        own = dict(zip(COUNTS, fusion.modality, strict=True))
        x = torch.cat([h + own[n] for n, h in tokens.items()])
        state = torch.zeros(DIM)
        for layer, link, decode in zip(fusion.layers, fusion.links, fusion.decoders, strict=True):
            parts = [layer_by_hand(layer, part, 2.0) for part in x.split(segment)]
            for k, part in enumerate(parts):
                said, last = link(part.mean(0)[None, None], state[None, None])
                state = last[0, 0]
                parts[k] = part + decode(said[0, 0])
            x = torch.cat(parts)
        states = dict(zip(tokens, fusion.norm(x).split([len(h) for h in tokens.values()]), strict=True))
        return fusion.join(torch.cat([vector(fusion, states, n) for n in COUNTS]))  # type: ignore[no-any-return]

    absences = torch.cat([fusion.readouts[n].absent for n in COUNTS])
    check(fusion, expected, nothing=fusion.join(absences))


def test_segments_by_hand() -> None:
    """Sequences of 5, 0, 3 and 1 tokens in segments of 3."""
    tokens, segments = split(torch.tensor([0, 5, 5, 8, 9]), 9, 3)
    assert tokens.tolist() == [0, 3, 5, 8, 9]
    assert segments.tolist() == [0, 2, 2, 3, 4]
    with pytest.raises(
        ConfigError, match=r"fusion_options.segment: expected a whole number from 1 to 1,000,000, got 0"
    ):
        made(SplitSequenceFusion, segment=0)


def test_lstm() -> None:
    fusion = made(LSTMFusion, feedforward=3)

    def expected(tokens: dict[str, Tensor]) -> Tensor:
        vectors = []
        for n, own in zip(COUNTS, fusion.absent, strict=True):
            if n in tokens:
                last = fusion.networks[n](tokens[n][:, None])[1][0]  # (directions, 1, 3)
                vectors.append(fusion.maps[n](torch.cat([last[0, 0], last[1, 0]])))
            else:
                vectors.append(own)
        return fusion.join(torch.nn.functional.gelu(torch.cat(vectors)))  # type: ignore[no-any-return]

    found = check(fusion, expected)
    features = batch_of(COUNTS)[1]
    states = fusion.networks["image"](features["image"][2:7][:, None])[0][:, 0]
    torch.testing.assert_close(found.states["image"][2:7], fusion.maps["image"](states))


@pytest.mark.parametrize("word", ["gated", "concat", "rgcn", "hgt"])
def test_heads_that_do_not_divide_are_refused_where_a_model_is_made(word: str) -> None:
    with pytest.raises(ConfigError, match="dim: expected a multiple of heads=3, got 8"):
        FUSIONS[word](
            GraphBuilder({n: NodeType(n, (DIM,)) for n in "ab"}, [Full("a", "b")]), DIM, heads=3, readout="attention"
        )


@torch.no_grad()
def test_co_attention_is_not_flat_from_the_start() -> None:
    """Tokens as the encoders give them (norm √D): with 64 of them the tanh of affinity and of H keep half of their slope."""
    torch.manual_seed(0)
    names, dim = ("text", "image"), 64
    fusion = CoAttentionFusion(GraphBuilder({n: NodeType(n, (dim,)) for n in names}, []), dim)
    x, y = (torch.nn.functional.layer_norm(torch.randn(64, dim), (dim,)) for _ in names)
    close = torch.tanh(fusion.affinity[0](x) @ y.T)
    hidden = torch.tanh(fusion.maps["text"](x) + close @ fusion.maps["image"](y) / len(y))
    assert float((1 - close**2).mean()) > 0.5
    assert float((1 - hidden**2).mean()) > 0.5
