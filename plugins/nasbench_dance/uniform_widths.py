"""Uniform widths, OFA-Width of the DANCE paper's Table 1: one network at several width multipliers.

The width-multiplier subnets of once-for-all (Cai et al., ICLR 2020), as slimmable networks (Yu et al., ICLR 2019).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from nasbench import Arch, Method, Run
from nasbench.data import Batch
from nasbench_dance.masks import Masks, Selection, space_of
from nasbench_dance.pruning import Pruning


class UniformWidths(Pruning, Method):
    """The first channels of every layer are kept, as many as the step's or the budget's ratio says."""

    selected_on: ClassVar[str] = "nothing: the first channels"

    keep: list[float] = Field([0.5, 0.65, 0.75, 0.85, 1.0], min_length=1)
    """Keep ratios of the second stage; with several, each step draws one."""

    def masks(self, run: Run, batch: Batch, ratio: float, sample: int) -> Masks:
        space = space_of(run)
        return Masks(space, self.keep_for(run, f"keep={ratio}", space.uniform(ratio)))

    def keep_for(self, run: Run, text: str, arch: Arch) -> Selection:
        widths = space_of(run).widths(arch)
        return {
            gate: (torch.arange(c, device=run.device) < widths[gate]).float()
            for gate, c in space_of(run).channels.items()
        }
