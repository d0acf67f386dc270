"""Messages of the relations of one call: one operator for each bundle.

Letters: `N` nodes of a type, `E` edges of a relation, `D` features, `R` relations leaving a type, `Q` entering it,
`H` heads, `C` width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from graphfusion.nn.hetero_attention import fold
from graphfusion.nn.messages import Projections, messages, messages_into_few
from graphfusion.nn.pyg.calls import Call
from graphfusion.nn.pyg.convs import source_map, target_map
from graphfusion.nn.pyg.plans import Bundle, Prepared, bundles_of, loops_of, prepared
from graphfusion.nn.pyg.reached import Reached, stacked, watch
from graphfusion.ops.hetero_attention import Plan


@dataclass(frozen=True)
class Part:
    """A share (N, features) of the answer for `target`: the sum of `count` relations, the first at `place`."""

    place: int
    target: str
    value: Tensor
    count: int = 1


def run(calls: Sequence[Call], rows: Mapping[str, Tensor], merged: bool) -> list[Part]:
    """What the relations give together; `merged`: those that share a target are added in the operator."""
    if not calls:
        return []
    used = {name: rows[name] for name in dict.fromkeys(n for c in calls for n in (c.relation[0], c.relation[2]))}
    bundles = bundles_of(calls, used, merged)
    made = prepared(bundles, used, merged)
    parts: list[Part] = []
    for bundle, plan in zip(bundles, made.plans, strict=True):
        parts += _run_bundle(bundle, plan, made, used, merged)
    return parts


Grouped = Sequence[Sequence[Call]]
"""Of each node type the calls that leave it, or enter it, in slot order."""


@dataclass(frozen=True)
class Job:
    """A bundle with its plan: features `x` of the plan's types, options of the operator, outputs `reached` by a backward
    pass.
    """

    x: Sequence[Tensor]
    plan: Plan
    calls: Sequence[Call]
    leaving: Grouped
    entering: Grouped
    options: Mapping[str, Any]
    reached: Reached = field(default_factory=set)

    @property
    def shape(self) -> tuple[int, int]:
        """(H, C)."""
        return self.calls[0].conv.heads, self.calls[0].conv.out_channels


def _run_bundle(bundle: Bundle, plan: Plan, made: Prepared, rows: Mapping[str, Tensor], merged: bool) -> list[Part]:
    calls = {c.relation: c for c in bundle.calls}
    leaving = [[calls[r] for r in plan.leaving(name)] for name in plan.node_types]
    entering = [[calls[r] for r in plan.entering(name)] for name in plan.node_types]
    first = bundle.calls[0]
    options = {"slope": first.conv.negative_slope, "dropout": first.dropout}
    if not bundle.few:
        options["edge"] = _edge_terms(bundle.calls, plan, made, rows)
    job = Job([rows[name] for name in plan.node_types], plan, bundle.calls, leaving, entering, options)
    attend = _into_few if bundle.few else _gatv2 if first.mode == "gatv2" else _gat
    parts = []
    for name, out, into in zip(plan.node_types, attend(job), entering, strict=True):
        watch(out, name, job.reached)
        shares = [into] if merged and into else [[c] for c in into]
        parts += [_part(name, out[:, slot], share, rows[name]) for slot, share in enumerate(shares)]
    return parts


def _gat(job: Job) -> Sequence[Tensor]:
    value = _values(job)
    maps = Projections(value, _source_logits(value, job), _target_logits(job))
    return messages(job.x, job.plan, maps, *job.shape, "gat", **job.options)


def _into_few(job: Job) -> Sequence[Tensor]:
    heads, width = job.shape
    key, query = _source_logits(_values(job), job), _target_logits(job)
    weight = [source_map(c.conv).weight.view(heads, width, -1) for c in job.calls]
    found = messages_into_few(job.x, job.plan, key, query, weight, heads, **job.options)
    return [
        found[name].view(-1, 1, heads, width) if name in found else rows  # nothing enters: it is not looked at
        for name, rows in zip(job.plan.node_types, job.x, strict=True)
    ]


def _gatv2(job: Job) -> Sequence[Tensor]:
    sides = ((job.leaving, "lin_l"), (job.entering, "lin_r"))
    value, query = (_stacks(job, side, partial(_weight, name)) for side, name in sides)
    shifts: list[list[Tensor | None]] = [[], []]
    if any(getattr(c.conv, name).bias is not None for side, name in sides for each in side for c in each):
        shifts = [_stacks(job, side, partial(_bias, name)) for side, name in sides]
    maps = Projections(value, (), query, *shifts)
    att = stacked([c.conv.att for c in job.calls], [c.relation[2] for c in job.calls], job.reached).to(_high(job.x[0]))
    return messages(job.x, job.plan, maps, *job.shape, "gatv2", att=att, **job.options)


def _values(job: Job) -> list[Tensor | None]:
    """For each type the stacked maps (R·H·C, D) of the relations that leave it."""
    return _stacks(job, job.leaving, lambda c: source_map(c.conv).weight)


def _source_logits(value: Sequence[Tensor | None], job: Job) -> list[Tensor | None]:
    """For each type the map to the logits of all relations that leave it: att · (W x) = (att W) x."""
    att = _stacks(job, job.leaving, lambda c: c.conv.att_src)
    return [None if w is None or a is None else _fold(w, a) for w, a in zip(value, att, strict=True)]


def _target_logits(job: Job) -> list[Tensor | None]:
    return _stacks(job, job.entering, _target_logit)


def _target_logit(call: Call) -> Tensor:
    """(H, D); nothing is known of lone targets, so theirs is (H, 0), which gives 0."""
    if call.lone:
        empty: Tensor = call.conv.att_dst.new_empty(call.conv.heads, 0)
        return empty
    return _fold(target_map(call.conv).weight, call.conv.att_dst)


def _fold(weight: Tensor, att: Tensor) -> Tensor:
    high = _high(weight)
    return fold(weight.to(high), att.to(high))


def _edge_terms(calls: Sequence[Call], plan: Plan, made: Prepared, rows: Mapping[str, Tensor]) -> list[Tensor] | None:
    """What edge features add to the logits (`gat`) or under the rectifier (`gatv2`), sorted as the plan's edges."""
    if all(c.features is None for c in calls):
        return None
    empty = rows[calls[0].relation[0]].new_empty(0, dtype=_high(rows[calls[0].relation[0]]))
    return [empty if c.features is None else _edge_term(c, plan, made, rows) for c in calls]


def _edge_term(call: Call, plan: Plan, made: Prepared, rows: Mapping[str, Tensor]) -> Tensor:
    from torch_geometric.utils import add_self_loops

    conv, attr = call.conv, call.features
    assert attr is not None
    if call.relation in made.plain:
        edges, places = made.plain[call.relation]
        loops = loops_of(call, {name: len(x) for name, x in rows.items()})
        attr = add_self_loops(edges, attr[places], fill_value=conv.fill_value, num_nodes=loops)[1]
    attr = (attr[:, None] if attr.dim() == 1 else attr)[plan.order[call.relation]]
    weight = conv.lin_edge.weight
    if call.mode == "gatv2":
        return linear(attr, weight).view(-1, conv.heads, conv.out_channels).to(_high(attr))
    return linear(attr, fold(weight, conv.att_edge)).to(_high(attr))


def _part(target: str, out: Tensor, calls: Sequence[Call], x: Tensor) -> Part:
    """Heads joined, then what each conv adds: its bias, its map of the targets themselves."""
    total = out.flatten(1) if calls[0].conv.concat else out.mean(1)
    if not torch.is_autocast_enabled(x.device.type):
        total = total.to(x.dtype)
    bias = [c.conv.bias for c in calls if c.conv.bias is not None]
    skip = [c.conv.res.weight for c in calls if c.conv.res is not None and not c.lone]
    if skip:
        total = total + linear(x, _sum(skip))
    if bias:
        total = total + _sum(bias)
    return Part(calls[0].place, target, total, len(calls))


def combine(parts: Sequence[Part], aggr: str | None) -> dict[str, Tensor]:
    """Types in order of first appearance among the convs, relations joined by PyG's own rule."""
    from torch_geometric.nn.conv.hetero_conv import group

    of_target: dict[str, list[Part]] = {}
    for part in sorted(parts, key=lambda p: p.place):
        of_target.setdefault(part.target, []).append(part)
    out = {}
    for target, own in of_target.items():
        joined = group([p.value for p in own], "sum" if aggr == "mean" else aggr)
        count = sum(p.count for p in own)
        out[target] = joined / count if aggr == "mean" and count > 1 else joined
    return out


def _stacks(job: Job, groups: Grouped, part: Callable[[Call], Tensor]) -> list[Tensor | None]:
    """For each group of calls their parts one after another; None for an empty one."""
    return [
        stacked([part(c) for c in group], [c.relation[2] for c in group], job.reached) if group else None
        for group in groups
    ]


def _weight(name: str, call: Call) -> Tensor:
    weight: Tensor = getattr(call.conv, name).weight
    return weight


def _bias(name: str, call: Call) -> Tensor:
    lin = getattr(call.conv, name)
    bias: Tensor = lin.weight.new_zeros(len(lin.weight)) if lin.bias is None else lin.bias
    return bias


def _sum(tensors: Sequence[Tensor]) -> Tensor:
    return reduce(torch.add, tensors)


def _high(x: Tensor) -> torch.dtype:
    """Logits are made in float32 or better."""
    return torch.promote_types(x.dtype, torch.float32)
