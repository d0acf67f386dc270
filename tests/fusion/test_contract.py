"""What every fusion strategy promises, on every one of them."""

from __future__ import annotations

import importlib
import itertools
import pkgutil
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import graphfusion as gf
import graphfusion.fusion as package
from graphfusion.config import ModelConfig
from graphfusion.errors import ConfigError, GraphError
from graphfusion.fusion import FUSIONS, FusionStrategy
from graphfusion.fusion.strategy import PooledFusion, TokenFusion, ignored_by
from graphfusion.graph_builder import GraphBuilder
from graphfusion.modalities import TokenizedSample
from graphfusion.model import FusionModel, make_builder, make_model
from graphfusion.nn import READOUTS
from tests.conftest import SCHEMA, make_rows, tokenize

TYPES = SCHEMA.node_types
SUBSETS = [frozenset(s) for r in range(len(TYPES) + 1) for s in itertools.combinations(TYPES, r)]
EVERY = pytest.mark.parametrize("fusion", sorted(FUSIONS))
GRAPHS = {"graph", "gat", "gatv2", "hgt", "rgcn"}
VOTES = {name for name, kind in FUSIONS.items() if kind.vote}
LEFT_OUT = {*VOTES, "weighted_sum", "mean", "projection", "tensor", "low_rank_tensor", "bilinear", "cross_attention"}
"""Strategies that leave an absent modality out: it has zeros where others have a learned vector."""
SMALL: dict[str, Any] = {"columns": SCHEMA, "dim": 16, "heads": 2, "dropout": 0.0}
Make = Callable[..., Any]


def every_strategy() -> set[type[FusionStrategy]]:
    """Whatever is a strategy in any module of the package."""
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")

    def below(kind: type[FusionStrategy]) -> Iterator[type[FusionStrategy]]:
        for one in kind.__subclasses__():
            yield one
            yield from below(one)

    return {one for one in below(FusionStrategy) if one.__module__.startswith(package.__name__)} - {
        PooledFusion,
        TokenFusion,
    }


def thinned(samples: list[TokenizedSample]) -> list[TokenizedSample]:
    """Every subset of modalities, none and all of them too."""
    return [samples[i % len(samples)].without(frozenset(TYPES) - kept) for i, kept in enumerate(SUBSETS)]


def test_edges_are_built_for_those_that_look_at_them(make_test_model: Make) -> None:
    assert {name for name, kind in FUSIONS.items() if kind.edges} == GRAPHS
    modalities = tokenize(make_rows(4))[0]
    for fusion, built in (("graph", True), ("concat", False)):
        builder = make_builder(modalities, ModelConfig(fusion=fusion))
        assert bool(builder.edge_types) == built
        assert builder.hubs == (2 if built else 0)
    with pytest.raises(GraphError, match="Did you mean 'hub'"):
        make_builder(modalities, ModelConfig(fusion="concat", graph="hubb"))
    make_test_model("none", fusion="transformer", relation_attention={"full": "dot"})


def test_options_of_a_strategy(make_test_model: Make) -> None:
    assert make_test_model("none", fusion="split_sequence", fusion_options={"segment": 3})[1].fusion.segment == 3
    alpha = dict.fromkeys(TYPES, 1.0) | {"photo": 3.0}
    _, model = make_test_model("none", fusion="weighted_sum", fusion_options={"alpha": alpha})
    assert (3 * model.fusion.score.exp()).tolist() == pytest.approx(list(alpha.values()))
    with pytest.raises(
        ConfigError, match=r"fusion_options: unknown option of split_sequence 'segmant'\. Did you mean 'segment'"
    ):
        make_test_model("none", fusion="split_sequence", fusion_options={"segmant": 3})
    with pytest.raises(
        ConfigError, match=r"fusion_options.segment: expected a whole number, got the text '4'; write 4"
    ):
        make_test_model("none", fusion="split_sequence", fusion_options={"segment": "4"})
    with pytest.raises(ConfigError, match=r"fusion_options.alpha.photo: expected a number, got nothing"):
        make_test_model("none", fusion="weighted_sum", fusion_options={"alpha": {"photo": None}})
    with pytest.raises(ConfigError, match=r"unknown option of graph 'rank'\. Known: none"):
        make_test_model("none", fusion="graph", fusion_options={"rank": 3})


@EVERY
def test_it_says_which_settings_it_has_no_use_for(
    fusion: str, make_test_model: Make, samples: list[TokenizedSample]
) -> None:
    """Those that change nothing, from the same seed, neither weights nor an answer in training."""
    batch = make_test_model("hub")[0].build([r.tokens for r in samples])
    usual = {"layers": 2, "heads": 4, "attention": "gat", "readout": "attention", "dropout": 0.0, "feedforward": 0}
    other = {"layers": 1, "heads": 2, "attention": "dot", "readout": "mean", "dropout": 0.5, "feedforward": 24}

    def answer(settings: dict[str, Any]) -> torch.Tensor:
        torch.manual_seed(0)
        strategy = FUSIONS[fusion](make_test_model("hub")[0], 16, **settings)
        features = {name: torch.randn(len(store), 16) for name, store in batch.nodes.items()}
        torch.manual_seed(1)
        return strategy.train()(batch, features).unified  # type: ignore[no-any-return]

    idle = {name for name in usual if torch.equal(answer(usual), answer({**usual, name: other[name]}))}
    assert idle == set(ignored_by(FUSIONS[fusion])) & set(usual)


def test_what_is_of_no_use_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    options: dict[str, Any] = {"dim": 16, "heads": 2, "epochs": 1, "device": "cpu", "columns": SCHEMA}
    gf.FusionPredictor("label", fusion="gated", attention="dot", layers=3, graph="full", **options).fit(make_rows(8))
    assert "of no use to gated: graph='full', attention='dot', layers=3\n" in capsys.readouterr().out
    gf.FusionPredictor("label", fusion="graph", attention="dot", **options).fit(make_rows(8))
    assert "of no use" not in capsys.readouterr().out
    for fusion, told in (("concat", True), ("graph", False)):
        gf.FusionPredictor("label", fusion=fusion, readout="hub", **options).fit(make_rows(8))
        assert ("of no use to concat: readout='hub'\n" in capsys.readouterr().out) == told
    with pytest.raises(ConfigError, match=r"unknown relation 'fulll'. Did you mean 'full'"):
        gf.FusionPredictor("label", fusion="gated", relation_attention={"fulll": "dot"}, **options).fit(make_rows(8))
    with pytest.raises(ConfigError, match="hubs: expected 1 or more, since relations lead to hub nodes"):
        gf.FusionPredictor("label", hubs=0, **options).fit(make_rows(8))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fusion": "low_rank_tensor", "fusion_options": {"rank": 0}}, "fusion_options.rank: expected a whole number from 1"),
        ({"fusion": "low_rank_tensor", "fusion_options": {"rank": 10**12}}, "from 1 to 1,000,000"),
        ({"fusion": "split_sequence", "fusion_options": {"segment": 10**30}}, "from 1 to 1,000,000"),
        ({"fusion": "weighted_sum", "fusion_options": {"alpha": {"a": -1.0}}}, "fusion_options.alpha: expected weights of 0 or more"),
        ({"fusion": "gated", "fusion_options": {"heads": 8}}, "'heads' is a setting of its own: write it without fusion_options"),
    ],
)  # fmt: skip
def test_options_are_checked_before_a_row_is_read(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        gf.FusionPredictor("label", **settings)


def test_a_model_that_memory_cannot_hold() -> None:
    predictor = gf.FusionPredictor("label", columns=SCHEMA, dim=64, hubs=10**12)
    with pytest.raises(
        ConfigError, match=r"has 64,000,\d\d\d,\d\d\d,\d\d\d parameters, more than memory holds: lower dim"
    ):
        predictor.fit(make_rows(8), valid=None, quiet=True)


@pytest.mark.parametrize("fusion", ["weighted_sum", "modality_attention"])
def test_weights_say_what_counts(fusion: str) -> None:
    """One column tells the answer, another is noise."""
    rng = np.random.default_rng(0)
    clues = [["red pot", "blue pan"][i % 2] + f" {rng.integers(9)}" for i in range(200)]
    rows = [{"clue": c, "noise": f"w{rng.integers(9)} z", "y": "ab"[i % 2]} for i, c in enumerate(clues)]
    options = {"dim": 16, "heads": 2, "epochs": 20, "lr": 1e-2, "device": "cpu", "modality_dropout": 0.0}
    columns = {"clue": gf.Text(), "noise": gf.Text()}
    predictor = gf.FusionPredictor("y", columns=columns, fusion=fusion, **options).fit(rows, valid=None, quiet=True)
    weights = {m: float(w.mean()) for m, w in predictor.modality_weights(rows).items()}
    assert weights["clue"] > 0.55


def test_no_strategy_is_missing_from_the_words() -> None:
    assert every_strategy() == set(FUSIONS.values())
    assert len(set(FUSIONS.values())) == len(FUSIONS)


@EVERY
def test_its_docstring_says_what_it_is(fusion: str) -> None:
    told = vars(FUSIONS[fusion])["__doc__"]
    assert re.search(r"\b[A-Z]\w+(\s+et\s+al\.|\s+&\s+[A-Z]\w+)\s+(19|20)\d\d\b|Stone 1961|Wolpert 1992", told), (
        "its paper"
    )
    assert re.search(
        r"([=←]|argmax)[^\n]*(Σ|softmax|tanh|argmax|MLP|GELU|[⊗∘]|\b[A-Z](_\w+)?[( ]+[hxXH])|W_0.*Σ", told
    ), "its formula"
    assert "bsent modality:" in told or "Absent\n    modality:" in told, "what it does with an absent modality"


@EVERY
def test_every_subset_of_modalities_at_every_place(
    fusion: str, make_test_model: Make, samples: list[TokenizedSample]
) -> None:
    builder, model = make_test_model("hub", fusion=fusion)
    assert bool(builder.edge_types) == bool(builder.hubs) == (fusion in GRAPHS)
    check_alone_and_together(builder, model, thinned(samples))


@pytest.mark.parametrize("readout", sorted(READOUTS))
@pytest.mark.parametrize("fusion", ["graph", "concat"])
def test_every_readout(fusion: str, readout: str, make_test_model: Make, samples: list[TokenizedSample]) -> None:
    builder, model = make_test_model("hub", fusion=fusion, readout=readout)
    check_alone_and_together(builder, model, thinned(samples))
    check_shapes_and_shares(fusion, builder, model, samples)


def check_alone_and_together(builder: GraphBuilder, model: FusionModel, rows: list[TokenizedSample]) -> None:
    """A row has the same in a batch, in its reverse, and alone."""
    model.eval()
    with torch.no_grad():
        together = model(builder.build([r.tokens for r in rows]))
        backwards = model(builder.build([r.tokens for r in rows[::-1]]))
        batch = builder.build([r.tokens for r in rows])
        for i, row in enumerate(rows):
            alone = model(builder.build([row.tokens]))
            torch.testing.assert_close(together.unified[i], alone.unified[0], rtol=0, atol=1e-5)
            torch.testing.assert_close(backwards.unified[-1 - i], alone.unified[0], rtol=0, atol=1e-5)
            for name, readout in together.readouts.items():
                torch.testing.assert_close(readout[i], alone.readouts[name][0], rtol=0, atol=1e-5)
            for name, weight in together.weights.items():
                torch.testing.assert_close(weight[i], alone.weights[name][0], rtol=0, atol=1e-5)
            for name, each in together.token_weights.items():
                ptr = batch.nodes[name].ptr
                torch.testing.assert_close(each[ptr[i] : ptr[i + 1]], alone.token_weights[name], rtol=0, atol=1e-5)
            for name, states in together.states.items():
                ptr = batch.nodes[name].ptr
                torch.testing.assert_close(states[ptr[i] : ptr[i + 1]], alone.states[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("fusion", sorted(set(FUSIONS) - GRAPHS))
def test_hubs_and_edges_that_are_there_all_the_same(
    fusion: str, make_test_model: Make, samples: list[TokenizedSample]
) -> None:
    """Strategies for which no fit builds any take the engine's batch; edges say nothing to them."""
    builder, _ = make_test_model("hub")
    assert builder.edge_types
    assert builder.hubs == 2
    model = make_model(tokenize(make_rows(8))[0], builder, {}, ModelConfig(fusion=fusion, dim=16, heads=2)).eval()
    check_alone_and_together(builder, model, thinned(samples))
    check_shapes_and_shares(fusion, builder, model, samples)
    bare = GraphBuilder({name: builder.node_types[name] for name in TYPES}, [], hubs=2)
    with_edges, without = (model(each.build([r.tokens for r in samples])).unified for each in (builder, bare))
    assert torch.equal(with_edges, without)


@EVERY
def test_shapes_and_shares(fusion: str, make_test_model: Make, samples: list[TokenizedSample]) -> None:
    check_shapes_and_shares(fusion, *make_test_model("hub", fusion=fusion), samples)


def check_shapes_and_shares(
    fusion: str, builder: GraphBuilder, model: FusionModel, samples: list[TokenizedSample]
) -> None:
    """Of every subset of modalities."""
    batch = builder.build([r.tokens for r in thinned(samples)])
    found = model.eval()(batch)
    assert found.unified.shape == (len(SUBSETS), 16)
    assert {name: s.shape for name, s in found.states.items()} == {n: (len(s), 16) for n, s in batch.nodes.items()}
    assert set(TYPES) <= set(found.readouts)
    assert all(r.shape == (len(SUBSETS), 16) for r in found.readouts.values())
    assert bool(torch.isfinite(found.unified).all())
    assert bool(found.weights) == FUSIONS[fusion].weighs
    assert bool(found.token_weights) == FUSIONS[fusion].weighs_tokens
    if found.token_weights:
        assert set(found.token_weights) == set(TYPES)
        for name, each in found.token_weights.items():
            store = batch.nodes[name]
            total = torch.zeros(len(SUBSETS)).index_add(0, store.sample, each)
            torch.testing.assert_close(total, (store.ptr.diff() > 0).float())
    if found.weights:
        assert tuple(found.weights) == TYPES
        weights = torch.stack(list(found.weights.values()), dim=1)
        there = torch.tensor([[name in kept for name in TYPES] for kept in SUBSETS])
        assert bool((weights[~there] == 0).all())
        assert bool((weights[there] > 0).all())
        if fusion != "gated":  # whose gates are independent of each other
            torch.testing.assert_close(weights.sum(1), there.any(1).float())


@pytest.mark.parametrize("mode", ["gat", "gatv2"])
def test_a_word_for_a_kind_of_attention_is_the_engine_with_it(
    mode: str, make_test_model: Make, samples: list[TokenizedSample]
) -> None:
    builder, engine = make_test_model("hub", fusion="graph", attention=mode)
    batch = builder.build([r.tokens for r in samples])
    for other in ("gat", "gatv2", "dot"):  # whatever `attention` says
        _, word = make_test_model("hub", fusion=mode, attention=other)
        word.load_state_dict(engine.state_dict())
        assert torch.equal(word.eval()(batch).unified, engine.eval()(batch).unified)


@EVERY
def test_a_modality_of_zeros_is_not_a_missing_one(
    fusion: str, make_test_model: Make, samples: list[TokenizedSample]
) -> None:
    builder, model = make_test_model("hub", fusion=fusion)
    sound = samples[0].tokens["sound"]
    silent = type(sound)(np.zeros_like(sound.values), sound.position, sound.span)
    without = samples[0].without(frozenset({"sound"}))
    found = model.eval()(builder.build([without.tokens, {**samples[0].tokens, "sound": silent}])).unified
    assert (found[0] - found[1]).abs().max() > 1e-3


@EVERY
def test_gradients_reach_every_parameter(fusion: str, make_test_model: Make, samples: list[TokenizedSample]) -> None:
    builder, model = make_test_model("hub", fusion=fusion, readout="attention")
    batch = builder.build([r.tokens for r in thinned(samples)])
    torch.manual_seed(1)
    logits = model.logits(batch)["label"]
    (logits * torch.randn_like(logits)).sum().backward()
    assert FUSIONS[fusion].leaves_out == (fusion in LEFT_OUT)
    absent = [n for n, _ in model.fusion.named_parameters() if "absent" in n]
    assert bool(absent) == (fusion not in LEFT_OUT), "nothing is kept that nothing can learn"
    spared = [".score.bias"]  # a softmax does not feel a bias
    hub = len(TYPES)
    if fusion in GRAPHS:  # hubs are never absent
        spared.append(f"fusion.readouts.parts.{hub}.absent")
    if fusion in ("graph", "gat"):  # of the hub to itself: the weight of a single edge is 1 whatever its score
        spared += [f"layers.{k}.attention.groups.0.query.{hub}" for k in range(2)]
    idle = {n for n, p in model.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)}
    assert not {name for name in idle if not any(part in name for part in spared)}


@pytest.fixture(scope="module")
def sizes() -> dict[str, int]:
    """Every strategy → its number of parameters with `SMALL`, from the smallest."""
    made = {
        name: gf.count_parameters(gf.FusionPredictor("label", fusion=name, **SMALL), make_rows(8)) for name in FUSIONS
    }
    return dict(sorted(made.items(), key=lambda item: item[1]))


@EVERY
def test_any_two_can_have_as_many_parameters(fusion: str, sizes: dict[str, int]) -> None:
    """The smaller as many as the larger: as the next in size, the largest of all, and a larger one yet."""

    def predictor(name: str, **settings: Any) -> gf.FusionPredictor:
        return gf.FusionPredictor("label", fusion=name, **SMALL, **settings)

    larger = [name for name, size in sizes.items() if size >= sizes[fusion] and name != fusion] or [fusion]
    for other in (predictor(larger[0]), predictor(larger[-1]), predictor("graph", feedforward=256)):
        width = gf.matched_feedforward(predictor(fusion), other, make_rows(8))
        found = gf.count_parameters(predictor(fusion, feedforward=width), make_rows(8))
        assert abs(found / gf.count_parameters(other, make_rows(8)) - 1) < 0.05


@EVERY
def test_half_precision_is_near(fusion: str, make_test_model: Make, samples: list[TokenizedSample]) -> None:
    builder, model = make_test_model("hub", fusion=fusion)
    batch = builder.build([r.tokens for r in thinned(samples)])
    model.eval()
    full = model(batch).unified.detach()
    with torch.autocast("cpu", torch.bfloat16):
        half = model(batch).unified.detach()
        loss = model.loss(batch.with_targets({"label": torch.arange(len(SUBSETS)) % 3}))
    loss.backward()
    assert float((half.float() - full).norm() / full.norm()) < 0.05
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)


@EVERY
def test_one_modality_is_enough(fusion: str) -> None:
    rows = [{"title": f"{['red', 'blue'][i % 2]} pot {i}", "label": "ab"[i % 2]} for i in range(8)]
    options = {"dim": 8, "heads": 2, "layers": 1, "epochs": 1, "device": "cpu"}
    predictor = gf.FusionPredictor("label", columns={"title": gf.Text()}, fusion=fusion, **options)
    answers = predictor.fit(rows, valid=0.25, quiet=True).predict_proba([*rows, {"title": None}])
    np.testing.assert_allclose(answers.sum(1), np.ones(9), atol=1e-5)
    assert len(np.unique(answers[:8].round(5), axis=0)) > 1
