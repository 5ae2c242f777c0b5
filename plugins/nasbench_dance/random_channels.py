"""Random channels, the baseline of Fig. 3 of the DANCE paper."""

from __future__ import annotations

from typing import ClassVar

from nasbench import Arch, Method, Run
from nasbench.data import Batch
from nasbench_dance.masks import Masks, Selection, random_masks, space_of
from nasbench_dance.pruning import Pruning


class RandomChannels(Pruning, Method):
    """Channels drawn at random are kept, others in every step of the second stage, and for every budget."""

    selected_on: ClassVar[str] = "chance"

    def masks(self, run: Run, batch: Batch, ratio: float, sample: int) -> Masks:
        space = space_of(run)
        return Masks(space, random_masks(run, f"masks {sample}", space.uniform(ratio)))

    def keep_for(self, run: Run, text: str, arch: Arch) -> Selection:
        return random_masks(run, f"draw {text}", arch)
