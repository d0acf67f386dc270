"""Every relation policy against a loop over all pairs that says its docstring in Python."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphfusion.errors import GraphError
from graphfusion.graph_builder import (
    RELATIONS,
    AlignedInTime,
    FeatureKNN,
    Full,
    GridNeighbourhood,
    KnowledgePairs,
    OtherSpeaker,
    PositionKNN,
    Relation,
    SameSpan,
    SameSpeaker,
    SelfLoops,
    SequenceWindow,
    Shuffled,
    TimeWindow,
    TopKSimilarity,
    Union,
    knowledge_triples,
    relation_from_dict,
    relation_to_dict,
)
from graphfusion.graph_builder.nodes import Nodes, by_target, pack
from graphfusion.modalities import NodeType, Tokens

SEQUENCE = NodeType("features", (2,), "float32", 1, "seconds")
WORDS = NodeType("text", (2,), "float32", 1, "characters")
GRID = NodeType("image", (2,), "float32", 2, "pixels")


def random_nodes(name: str, layout: NodeType, counts: list[int], rng: np.random.Generator) -> Nodes:
    """Packed nodes with many ties: few distinct times, values, speakers and words."""
    rows = []
    for n in counts:
        values = rng.integers(0, 3, (n, 2)).astype(np.float32)
        if layout.coordinates == 2:
            cells = list(itertools.product(range(5), range(4)))
            position = np.array([cells[i] for i in rng.permutation(len(cells))[:n]], np.int64).reshape(n, 2)
            span = np.concatenate([position, position + 1], 1).astype(np.float64)
        else:
            position = np.arange(n, dtype=np.int64)[:, None]
            start = rng.integers(0, 12, n) * 0.1
            span = np.stack([start, start + rng.integers(0, 4, n) * 0.1], 1)
            span = np.rint(span * 10) if layout.span == "characters" else span
        attributes = {"speaker": rng.integers(0, 3, n), "entity": rng.choice(["cat", "Dog", "sun", "sea"], n)}
        rows.append(Tokens(values, position, span, attributes))
    return pack(name, layout, rows)


def pairs_of(relation: Relation, source: Nodes, target: Nodes) -> set[tuple[int, int]]:
    """The policy's edges, and a check of their form on the way."""
    there, here = by_target(relation.edges(source, target), len(source))
    assert (np.diff(here) >= 0).all()
    found = list(zip(there.tolist(), here.tolist(), strict=True))
    assert len(found) == len(set(found))
    return set(found)


def brute_force(source: Nodes, target: Nodes, wanted: Callable[[int, int], bool]) -> set[tuple[int, int]]:
    """All (j, i) of one sample for which `wanted(j, i)`."""
    return {
        (j, i)
        for j in range(len(source))
        for i in range(len(target))
        if source.sample[j] == target.sample[i] and wanted(j, i)
    }


def index_in_sample(nodes: Nodes, i: int) -> int:
    return int(i - nodes.ptr[nodes.sample[i]])


def us(seconds: float) -> int:
    return round(seconds * 1_000_000)


def nearest(source: Nodes, target: Nodes, k: int, key: Callable[[Nodes, int], Any]) -> set[tuple[int, int]]:
    found = set()
    for i in range(len(target)):
        own = source.name == target.name
        mine = [j for j in range(len(source)) if source.sample[j] == target.sample[i] and not (own and j == i)]
        mine.sort(
            key=lambda j: (
                sum((float(a) - float(b)) ** 2 for a, b in zip(key(source, j), key(target, i), strict=True)),
                j,
            )
        )
        found |= {(j, i) for j in mine[:k]}
    return found


def cases(
    source: Nodes, target: Nodes, grid: Nodes, left: Nodes, right: Nodes
) -> list[tuple[Relation, Nodes, Nodes, set]]:
    """(policy, its nodes, what it must give) for every policy that lays edges in the builder."""

    def place(i: int) -> int:
        return index_in_sample(source, i)

    def window(size: int, dilation: int, direction: str) -> Callable[[int, int], bool]:
        steps = [dilation * s for s in range(1, size + 1)]
        allowed = {"past": [-s for s in steps], "future": steps, "both": steps + [-s for s in steps]}[direction]
        return lambda j, i: place(j) - place(i) in allowed

    def moved(j: int, i: int) -> tuple[int, int]:
        return tuple(abs(int(a) - int(b)) for a, b in zip(grid.position[j], grid.position[i], strict=True))

    def overlap(a: Nodes, b: Nodes, unit: Callable[[float], int]) -> Callable[[int, int], bool]:
        return lambda j, i: (
            unit(a.span[j, 0]) < unit(b.span[i, 1])
            and unit(b.span[i, 0]) < unit(a.span[j, 1])
            and not (a is b and i == j)
        )

    def middles(j: int, i: int) -> int:
        return abs(us(source.span[j, 0]) + us(source.span[j, 1]) - us(target.span[i, 0]) - us(target.span[i, 1]))

    def said(relation: bool, reach: int) -> Callable[[int, int], bool]:
        speaker = source.attributes.get("speaker")
        return lambda j, i: (
            i != j and (speaker[j] == speaker[i]) == relation and (not reach or abs(place(j) - place(i)) <= reach)
        )

    known = (("cat", "dog"), ("cat", "sea"), ("sun", "sun"), ("moon", "cat"))
    entity = {id(n): [str(e).lower() for e in n.attributes.get("entity", [])] for n in (source, target)}
    a, b = "a", "b"
    found: list[tuple[Relation, Nodes, Nodes, set]] = [
        (SelfLoops(a), source, source, {(i, i) for i in range(len(source))}),
        (Full(a, b), source, target, brute_force(source, target, lambda j, i: True)),
        (Full(a, a), source, source, brute_force(source, source, lambda j, i: i != j)),
        (AlignedInTime(a, b), source, target, brute_force(source, target, overlap(source, target, us))),
        (AlignedInTime(a, a), source, source, brute_force(source, source, overlap(source, source, us))),
        (Shuffled(Full(a, b)), source, target, brute_force(source, target, lambda j, i: True)),
        (SameSpan("left", "right"), left, right, brute_force(left, right, overlap(left, right, int))),
        (KnowledgePairs(a, b, "is", known), source, target, brute_force(
            source, target, lambda j, i: (entity[id(source)][j], entity[id(target)][i]) in known)),
    ]  # fmt: skip
    for size, dilation, direction in itertools.product((1, 3), (1, 2), ("past", "future", "both")):
        wanted = brute_force(source, source, window(size, dilation, direction))
        found.append((SequenceWindow(a, size, dilation, direction), source, source, wanted))
    for radius in (1, 2):
        near = brute_force(grid, grid, lambda j, i, r=radius: i != j and max(moved(j, i)) <= r)
        found.append((GridNeighbourhood("grid", radius), grid, grid, near))
        cross = brute_force(grid, grid, lambda j, i, r=radius: i != j and sum(moved(j, i)) <= r)
        found.append((GridNeighbourhood("grid", radius, corners=False), grid, grid, cross))
    for seconds in (0.0, 0.1, 0.25):
        wanted = brute_force(source, target, lambda j, i, s=seconds: middles(j, i) <= 2 * us(s))
        found.append((TimeWindow(a, b, seconds), source, target, wanted))
    for k in (1, 3, 50):
        position = nearest(grid, grid, k, lambda n, i: n.position[i])
        found.append((PositionKNN("grid", "grid", k), grid, grid, position))
        found.append((FeatureKNN(a, b, k), source, target, nearest(source, target, k, lambda n, i: n.values[i])))
    for reach in (0, 2):
        found.append((SameSpeaker(a, reach), source, source, brute_force(source, source, said(True, reach))))
        found.append((OtherSpeaker(a, reach), source, source, brute_force(source, source, said(False, reach))))
    union = Union((SequenceWindow(a, 1), SameSpeaker(a)))
    both = brute_force(source, source, window(1, 1, "both")) | brute_force(source, source, said(True, 0))
    found.append((union, source, source, both))
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.tuples(*[st.integers(0, 9)] * 5), min_size=1, max_size=4))
def test_policies_equal_brute_force(seed: int, counts: list[tuple[int, ...]]) -> None:
    rng = np.random.default_rng(seed)
    layouts = {"a": SEQUENCE, "b": SEQUENCE, "grid": GRID, "left": WORDS, "right": WORDS}
    nodes = [random_nodes(n, t, [c[k] for c in counts], rng) for k, (n, t) in enumerate(layouts.items())]
    tried = set()
    for relation, source, target, expected in cases(*nodes):
        assert pairs_of(relation, source, target) == expected, relation
        tried.add(relation.kind)
    assert tried == {kind for kind, policy in RELATIONS.items() if not policy.learned}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_union_cap_keeps_earlier_policies_first(seed: int, cap: int) -> None:
    nodes = random_nodes("a", SEQUENCE, [7, 0, 5], np.random.default_rng(seed))
    first, second = SameSpeaker("a"), SequenceWindow("a", 2)
    parts = [pairs_of(r, nodes, nodes) for r in (first, second)]
    expected = set()
    for i in range(len(nodes)):
        ranked = sorted(
            {j: 0 if (j, i) in parts[0] else 1 for j, t in parts[0] | parts[1] if t == i}.items(),
            key=lambda x: (x[1], x[0]),
        )
        expected |= {(j, i) for j, _ in ranked[:cap]}
    assert pairs_of(Union((first, second), cap=cap), nodes, nodes) == expected


def test_every_policy_survives_json() -> None:
    import json

    examples: dict[str, Relation] = {
        "sequence_window": SequenceWindow("a", 2, 3, "past"),
        "grid_neighbourhood": GridNeighbourhood("g", 2, False),
        "full": Full("a", "b"),
        "self_loops": SelfLoops("a"),
        "time_window": TimeWindow("a", "b", 0.5),
        "aligned_in_time": AlignedInTime("a", "b"),
        "same_span": SameSpan("a", "b"),
        "position_knn": PositionKNN("a", "a", 3),
        "feature_knn": FeatureKNN("a", "b", 3),
        "top_k_similarity": TopKSimilarity("a", "b", 2),
        "same_speaker": SameSpeaker("a", 3),
        "other_speaker": OtherSpeaker("a"),
        "knowledge_pairs": KnowledgePairs("a", "b", "knows", (("x", "y"),)),
        "union": Union((Full("a", "a"), SelfLoops("a")), cap=3),
        "shuffled": Shuffled(SequenceWindow("a", 2, direction="past"), seed=5),
    }
    assert set(examples) == set(RELATIONS)
    for relation in examples.values():
        assert relation_from_dict(json.loads(json.dumps(relation_to_dict(relation)))) == relation


def test_knowledge_triples_make_one_relation_a_name() -> None:
    triples = [("paris", "capital_of", "France"), ("oslo", "capital_of", "norway"), ("paris", "part_of", "europe")]
    made = knowledge_triples("text", "text", triples)
    assert [(r.name, r.pairs) for r in made] == [
        ("capital_of", (("paris", "france"), ("oslo", "norway"))),
        ("part_of", (("paris", "europe"),)),
    ]


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: SequenceWindow("a", size=0), "size"),
        (lambda: SequenceWindow("a", direction="back"), "direction"),
        (lambda: GridNeighbourhood("a", radius=True), "radius"),
        (lambda: TimeWindow("a", "b", math.nan), "seconds"),
        (lambda: Union((Full("a", "b"), Full("b", "a"))), "same two node types"),
        (lambda: Union((TopKSimilarity("a", "b"),)), "learned"),
        (lambda: relation_from_dict({"kind": "sequence_windw", "node_type": "a"}), "sequence_window"),
        (lambda: relation_from_dict({"kind": "full", "source": "a", "target": "b", "sise": 2}), "sise"),
    ],
)
def test_bad_options_are_named(make: Callable[[], Any], part: str) -> None:
    with pytest.raises(GraphError, match=part):
        make()


def test_a_relation_says_which_attribute_or_unit_it_misses() -> None:
    bare = pack("a", SEQUENCE, [Tokens(np.zeros((2, 2), np.float32), np.array([[0], [1]]), np.zeros((2, 2)))])
    with pytest.raises(GraphError, match="speaker"):
        SameSpeaker("a").edges(bare, bare)
    with pytest.raises(GraphError, match="characters"):
        SameSpan("a", "a").edges(bare, bare)
    with pytest.raises(GraphError, match="row, column"):
        GridNeighbourhood("a").edges(bare, bare)


def test_no_loop_per_node() -> None:
    """A window of 10 over 4,000 nodes: the number of Python calls does not grow with the nodes."""
    import sys

    def calls(n: int) -> int:
        nodes = random_nodes("a", SEQUENCE, [n], np.random.default_rng(0))
        count = 0

        def profile(frame: Any, event: str, argument: Any) -> None:
            nonlocal count
            count += 1

        sys.setprofile(profile)
        try:
            found = by_target(SequenceWindow("a", 10).edges(nodes, nodes), n)
        finally:
            sys.setprofile(None)
        assert len(found[0]) == 2 * sum(n - s for s in range(1, 11))
        return count

    calls(50)
    assert calls(4000) < 1.5 * calls(100)


def test_shuffled_permutes_the_sources_of_each_sample() -> None:
    rng = np.random.default_rng(0)
    nodes = random_nodes("a", SEQUENCE, [30, 0, 25, 1], rng)
    relation = SequenceWindow("a", 3)
    real, found = relation.edges(nodes, nodes), Shuffled(relation).edges(nodes, nodes)
    assert (nodes.sample[found[0]] == nodes.sample[found[1]]).all()
    assert (found[0] != found[1]).all()
    images: dict[int, set[int]] = {j: set(range(len(nodes))) for j in set(real[0].tolist())}
    given = {i: set(found[0][found[1] == i].tolist()) | {i} for i in range(len(nodes))}
    for j, i in zip(*(e.tolist() for e in real), strict=True):
        images[j] &= given[i]  # where j may have gone: to a source of all that it was a source of
    assert all(images.values())
    assert sum(len(k) == 1 for k in images.values()) > 40
    near = np.abs(found[0] - found[1]) <= 3
    assert near.mean() < 0.5


def test_shuffled_edges_of_a_sample_do_not_depend_on_the_batch() -> None:
    rng = np.random.default_rng(1)
    together = random_nodes("a", SEQUENCE, [20, 20], rng)
    second = Nodes(
        "a", SEQUENCE, np.array([0, 20]), together.values[20:], together.position[20:], together.span[20:], {}
    )
    relation = Shuffled(SequenceWindow("a", 2), seed=3)
    source, target = relation.edges(together, together)
    mine = target >= 20
    alone = relation.edges(second, second)
    assert (source[mine] - 20).tolist() == alone[0].tolist()
    other = Shuffled(SequenceWindow("a", 2), seed=4).edges(second, second)[0]
    assert other.tolist() != alone[0].tolist()


def test_chosen_edges_cannot_be_shuffled() -> None:
    with pytest.raises(GraphError, match="cannot be shuffled"):
        Shuffled(TopKSimilarity("a", "b"))
