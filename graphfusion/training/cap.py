"""Rows too large for any batch, cut to what one batch may hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphfusion.data import Budget, Incident
from graphfusion.graph_builder import GraphBuilder
from graphfusion.modalities import TokenizedSample, Tokens

CUT = "cut"


def cap_rows(
    rows: Sequence[TokenizedSample], builder: GraphBuilder, budget: Budget
) -> tuple[list[TokenizedSample], list[Incident]]:
    """The rows, each within `budget`, and an incident for each modality of a row that lost its last tokens.

    A row above the budget keeps the first half of its longest modality, again and again until it fits.
    """
    capped, incidents = list(rows), []
    for i, (nodes, edges) in enumerate(zip(*builder.sizes([r.tokens for r in rows]), strict=True)):
        if nodes > budget.nodes or edges > budget.edges:
            capped[i] = _capped(rows[i], builder, budget)
            incidents += _lost(rows[i], capped[i], budget)
    return capped, incidents


def _capped(row: TokenizedSample, builder: GraphBuilder, budget: Budget) -> TokenizedSample:
    while True:
        (nodes,), (edges,) = builder.sizes([row.tokens])
        if not row.tokens:  # its hub nodes alone
            return row
        longest = max(row.tokens, key=lambda name: len(row.tokens[name]))
        tokens = row.tokens[longest]
        if (nodes <= budget.nodes and edges <= budget.edges) or len(tokens) < 2:
            return row
        row = replace(row, tokens={**row.tokens, longest: _first(tokens, len(tokens) // 2)})


def _first(tokens: Tokens, count: int) -> Tokens:
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
