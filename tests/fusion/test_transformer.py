"""The dense Transformer over packed tokens against the same layers run sample by sample, without any padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from graphfusion.modalities import TokenizedSample


def test_padding_has_no_part_in_it(make_test_model: Callable[..., Any], samples: list[TokenizedSample]) -> None:
    builder, model = make_test_model("none", fusion="transformer")
    fusion = model.eval().fusion
    rows = [s.without(frozenset({"photo"})) if i % 3 == 0 else s for i, s in enumerate(samples)]
    batch = builder.build([r.tokens for r in rows])
    features = {name: encoder(batch.nodes[name]) for name, encoder in model.encoders.items()}
    found = fusion(batch, features)
    for b in range(len(rows)):
        parts = [features[n][batch.nodes[n].ptr[b] : batch.nodes[n].ptr[b + 1]] for n in fusion.types]
        tokens = torch.cat([part + fusion.modality[t] for t, part in enumerate(parts)])[None]
        for layer in fusion.layers:
            tokens = layer(tokens)
        alone = fusion.norm(tokens)[0].split([len(p) for p in parts])
        for name, states in zip(fusion.types, alone, strict=True):
            ptr = batch.nodes[name].ptr
            torch.testing.assert_close(found.states[name][ptr[b] : ptr[b + 1]], states, rtol=1e-4, atol=1e-5)


def test_every_token_reaches_every_other(make_test_model: Callable[..., Any], samples: list[TokenizedSample]) -> None:
    builder, model = make_test_model("none", fusion="transformer")
    batch = builder.build([samples[0].tokens, samples[1].tokens])
    features = {name: encoder(batch.nodes[name]).detach().requires_grad_() for name, encoder in model.encoders.items()}
    states = model.eval().fusion(batch, features).states
    ptr = batch.nodes["caption"].ptr
    states["caption"][0][:3].sum().backward()  # of all, a normalised vector's sum is 0 whatever the tokens are
    for name, x in features.items():
        first, last = batch.nodes[name].ptr[:2]
        assert (x.grad[first:last] != 0).any(1).all(), name  # all of its own sample
        assert not x.grad[last:].any(), name  # none of the next
    assert ptr[1] > 1
