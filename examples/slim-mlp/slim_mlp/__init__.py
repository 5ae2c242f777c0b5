"""Slim MLPs: widths of a perceptron chosen layer by layer, after Yu et al., Slimmable Neural Networks, ICLR 2019."""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from nasbench import Arch, SearchSpace

if TYPE_CHECKING:
    import torch

    from nasbench.tables import Table

WIDTHS = (4, 8, 16, 32)


class SlimMLP(SearchSpace):
    """Three hidden layers, each with 4, 8, 16 or 32 units: 4^3 = 64 architectures."""

    name: ClassVar[str] = "slim-mlp"

    @cached_property
    def choices(self) -> dict[str, tuple[str, ...]]:
        return {f"layer{i}": tuple(map(str, WIDTHS)) for i in range(3)}

    @property
    def relaxed(self) -> dict[str, tuple[str, ...]]:
        """None: layers of different widths cannot be mixed."""
        return {}

    def sizes(self, arch: Arch) -> list[int]:
        """Units of every layer, from the flattened image to the classes."""
        channels, height, width = self.image
        return [channels * height * width, *(WIDTHS[option] for option in arch), self.classes]

    def cost(self, arch: Arch) -> dict[str, int]:
        weights = sum(a * b for a, b in pairwise(self.sizes(arch)))
        return {"params": weights + sum(self.sizes(arch)[1:]), "conv_weights": weights, "madds": weights}

    def supernet(self) -> torch.nn.Module:
        from slim_mlp.networks import Supernet

        return Supernet(self)

    def build(self, arch: Arch) -> torch.nn.Module:
        from slim_mlp.networks import network

        return network(self.sizes(arch))

    def targets(self) -> list[str]:
        return ["digits"]

    def ground_truth(self, target: str) -> Table | None:
        """`digits`: the table beside this file, networks trained alone (see make_table.py)."""
        from nasbench import tables

        if target != "digits":
            return None
        at = self.with_(classes=10, image=(1, 8, 8), allowed={})
        return tables.read_csv(Path(__file__).parent / "slim-mlp-digits.csv", "digits", 40, at)
