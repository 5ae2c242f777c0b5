"""Score-based pruning, a baseline of the DANCE paper (section 3.3): its Score, but no gate network and no sampling."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from nasbench import Method
from nasbench_dance import sampling
from nasbench_dance.scored import Scored


class ScorePruning(Scored, Method):
    """The channels with the highest Score are kept, in every step of the second stage and for every budget."""

    selected_on: ClassVar[str] = "Score on training images"

    def draw(
        self, logits: Tensor, noise: Tensor, score: Tensor, k: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        p = (score + 1e-6) / (score + 1e-6).sum(-1, keepdim=True)
        return sampling.top(p, k), sampling.soft_gates(p, k)
