"""A target that every modality answers by itself.

Letters: `B` samples, `M` modalities, `K` numbers of an answer (classes, labels, or 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graphfusion.errors import ConfigError, unknown_name
from graphfusion.fusion import FusedGraph
from graphfusion.nn import TypedModules
from graphfusion.tasks.classification import ClassificationTask
from graphfusion.tasks.multi_label import MultiLabelTask
from graphfusion.tasks.prediction import Prediction

VOTES = ("average", "soft", "hard", "weighted")
TIE = 1e-4
"""Weight of the mean probability in a hard vote: it decides where votes are even."""
MOST = 10.0
"""A fitted weight is at most e^20 times another."""


class VotingTask(nn.Module):
    """A head for each modality; each learns from its own loss, the answer is joined (late or output fusion).

    `average`: y = Σ_m β_m y_m over logits, or over numbers; `soft`: the same over probabilities; `hard`: each modality votes for
    its answer; β = 1 / M. `weighted`: soft, with β on the simplex from `fit_weights`. An absent modality has no vote, the other β
    are scaled up to sum 1; where all are absent, every class is as probable as the others, no label is on, a number is the mean.

    Logits (B, M, K + 1) are those of all modalities; the last column is 1 where the modality is there, else 0.

    Args:
        members: modality → its task, all for the same target.

    Raises:
        ConfigError: the vote is unknown, or `hard` over numbers.
    """

    def __init__(self, members: Mapping[str, nn.Module], vote: str) -> None:
        super().__init__()
        if vote not in VOTES:
            raise ConfigError(unknown_name("vote", vote, VOTES))
        self.members = TypedModules(members)
        self.vote = vote
        self.name: str = self.first.name
        self.primary: str = self.first.primary
        self.is_number = not isinstance(self.first, ClassificationTask | MultiLabelTask)
        if vote == "hard" and self.is_number:
            raise ConfigError(
                f"fusion='hard_vote': {self.name!r} is a number, which has no majority; use 'output_average'."
            )
        self.register_buffer("beta", torch.full((len(members),), 1 / len(members)))
        self.beta: Tensor

    @property
    def first(self) -> Any:
        """The task of the first modality, for what is the same in all."""
        return self.members.parts[0]

    @property
    def weights(self) -> dict[str, float]:
        """Modality → β."""
        return dict(zip(self.members.names, self.beta.tolist(), strict=True))

    def encode(self, labels: Sequence[Any]) -> Tensor:
        """As the members do."""
        found: Tensor = self.first.encode(labels)
        return found

    def __getattr__(self, name: str) -> Any:
        if name in ("classes", "encode_unseen"):
            return getattr(self.first, name)
        return super().__getattr__(name)

    def forward(self, fused: FusedGraph) -> Tensor:
        """(B, M, K + 1)."""
        each = [task(replace(fused, unified=fused.readouts[m])) for m, task in self.members.items()]
        answers = torch.stack([a if a.dim() > 1 else a[:, None] for a in each], dim=1)
        present = torch.stack([fused.weights[m] > 0 for m in self.members.names], dim=1)
        return torch.cat([answers, present[:, :, None].to(answers.dtype)], dim=2)

    def known(self, target: Tensor) -> Tensor:
        """As the members do."""
        found: Tensor = self.first.known(target)
        return found

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean over samples and members of each member's loss, 0 where its modality is absent."""
        total = logits.sum() * 0.0
        known = self.known(target)
        for (_, task), answers in zip(self.members.items(), logits.unbind(1), strict=True):
            there = answers[:, -1] > 0
            share = (there & known).sum() / known.sum().clamp(min=1)
            total = total + share * task.loss(self._plain(answers[there, :-1]), target[there])  # type: ignore[operator]
        return total / len(self.members.names)

    def answer_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Of the joined answers, as other strategies' loss is of theirs."""
        found: Tensor = self.first.loss(self.join(logits), target)
        return found

    def predict(self, logits: Tensor) -> Prediction:
        """Of the joined answers."""
        found: Prediction = self.first.predict(self.join(logits))
        return found

    def metrics(self, logits: Tensor, target: Tensor) -> dict[str, Any]:
        """Of the joined answers."""
        found: dict[str, Any] = self.first.metrics(self.join(logits), target)
        return found

    def join(self, logits: Tensor, beta: Tensor | None = None) -> Tensor:
        """(B, M, K + 1) → logits of one task, (B, K) or (B,)."""
        answers, present = logits[..., :-1], logits[..., -1]
        share = self.shares(present, beta)[:, :, None]
        if self.vote == "average" or self.is_number:
            return self._plain((share * answers).sum(1) - self._nobody(present, answers))
        probability = self._probability(answers)
        mean = (share * probability).sum(1)
        if self.vote == "hard":
            mean = (1 - TIE) * (share * self._votes(answers)).sum(1) + TIE * mean
        mean = torch.where(present.any(1, keepdim=True), mean, 0.5)  # nobody has an answer: all alike
        mean = mean.clamp(min=torch.finfo(mean.dtype).tiny, max=1 - torch.finfo(mean.dtype).eps)
        if isinstance(self.first, ClassificationTask):
            return mean.log()
        return mean.logit() - self._nobody(present, answers)

    def shares(self, present: Tensor, beta: Tensor | None = None) -> Tensor:
        """β of the modalities that are there (B, M), scaled to sum 1; 0 for the others."""
        beta = (self.beta if beta is None else beta).to(present) * present
        return beta / beta.sum(1, keepdim=True).clamp(min=torch.finfo(beta.dtype).tiny)

    def fit_weights(self, logits: Tensor, target: Tensor) -> bool:
        """β with the least loss on rows that nothing was learned from: from equal weights, by L-BFGS on a softmax. False, and β as
        they are, where no row has the target or there is nothing to weigh.
        """
        from scipy.optimize import minimize

        known = self.known(target)
        if not bool(known.any()) or len(self.beta) == 1:
            return False
        rows, truth = logits[known].double(), target[known]

        def loss(scores: Any) -> tuple[float, Any]:
            point = torch.tensor(scores, dtype=torch.float64, requires_grad=True)
            with torch.enable_grad():
                value = self.first.loss(self.join(rows, point.softmax(0)), truth)
            (slope,) = torch.autograd.grad(value, point)
            return float(value.detach()), slope.numpy()

        found = minimize(
            loss, np.zeros(len(self.beta)), jac=True, bounds=[(-MOST, MOST)] * len(self.beta), method="L-BFGS-B"
        )
        self.beta.copy_(torch.from_numpy(found.x).softmax(0))
        return True

    def _nobody(self, present: Tensor, answers: Tensor) -> Tensor:
        """(B, 1) what to take from a label's logit of 0 so that it is off where nobody has an answer."""
        alone = ~present.any(1, keepdim=True) & isinstance(self.first, MultiLabelTask)
        return TIE * alone.to(answers.dtype)

    def _plain(self, answers: Tensor) -> Tensor:
        """(B, K) as the members' tasks take them."""
        return answers[:, 0] if self.is_number else answers

    def _probability(self, answers: Tensor) -> Tensor:
        return answers.softmax(-1) if isinstance(self.first, ClassificationTask) else answers.sigmoid()

    def _votes(self, answers: Tensor) -> Tensor:
        """1 for the answer of a modality, else 0."""
        if isinstance(self.first, ClassificationTask):
            return nn.functional.one_hot(answers.argmax(-1), answers.shape[-1]).to(answers)
        return (answers > 0).to(answers)
