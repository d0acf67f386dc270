"""Rows too large for any batch, cut to what one batch may hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphfusion.data import Budget, Incident
from graphfusion.graph_builder import GraphBuilder
from graphfusion.modalities import TokenizedSample, Tokens

CUT = "cut"
FIRST = 2_048
"""Tokens of a modality with which the counting of a long row begins."""


def cap_rows(
    rows: Sequence[TokenizedSample], builder: GraphBuilder, budget: Budget
) -> tuple[list[TokenizedSample], list[Incident]]:
    """The rows, each within `budget`, and an incident for each modality of a row that lost its last tokens.

    A row above the budget keeps the first half of its longest modality, again and again until it fits; one of very long
    modalities is cut first to a beginning of all of them that is above the budget, taken for granted that a longer one is too.
    """
    capped, incidents = [_not_far_above(row, builder, budget) for row in rows], []
    for i, (nodes, edges) in enumerate(zip(*builder.sizes([r.tokens for r in capped]), strict=True)):
        if nodes > budget.nodes or edges > budget.edges:
            capped[i] = _capped(capped[i], builder, budget)
        if capped[i] is not rows[i]:
            incidents += _lost(rows[i], capped[i], budget)
    return capped, incidents


def _not_far_above(row: TokenizedSample, builder: GraphBuilder, budget: Budget) -> TokenizedSample:
    """The row, or a beginning of it that is above the budget already: to count the edges of a much larger one takes more
    memory than the fit.
    """
    longest, count = _longest(row), FIRST
    while count < longest:
        beginning = replace(row, tokens={name: _first(t, count) for name, t in row.tokens.items()})
        if not _fits(beginning, builder, budget):
            return beginning
        count *= 2
    return row


def _capped(row: TokenizedSample, builder: GraphBuilder, budget: Budget) -> TokenizedSample:
    while _longest(row) > 1 and not _fits(row, builder, budget):
        name = max(row.tokens, key=lambda name: len(row.tokens[name]))
        tokens = row.tokens[name]
        row = replace(row, tokens={**row.tokens, name: _first(tokens, len(tokens) // 2)})
    return row


def _longest(row: TokenizedSample) -> int:
    return max(map(len, row.tokens.values()), default=0)


def _fits(row: TokenizedSample, builder: GraphBuilder, budget: Budget) -> bool:
    (nodes,), (edges,) = builder.sizes([row.tokens])
    return nodes <= budget.nodes and edges <= budget.edges


def _first(tokens: Tokens, count: int) -> Tokens:
    if len(tokens) <= count:
        return tokens
    attributes = {name: array[:count] for name, array in tokens.attributes.items()}
    return Tokens(tokens.values[:count].copy(), tokens.position[:count], tokens.span[:count], attributes)


def _lost(before: TokenizedSample, after: TokenizedSample, budget: Budget) -> list[Incident]:
    return [
        Incident(
            before.id,
            name,
            f"{len(tokens):,} tokens, of which the first {len(after.tokens[name]):,} are kept: a batch holds at most "
            f"max_nodes={budget.nodes:,} and max_edges={budget.edges:,}",
            CUT,
        )
        for name, tokens in before.tokens.items()
        if len(after.tokens[name]) < len(tokens)
    ]
