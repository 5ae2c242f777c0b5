"""A space of 27 architectures that trains in a second: the fake on which everything fast is tested."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from nasbench import Arch, SearchSpace

if TYPE_CHECKING:
    import torch

    from nasbench.tables import Table

OPERATIONS = ("skip", "linear", "bottleneck")
SKIP, LINEAR, BOTTLENECK = range(3)


class Tiny(SearchSpace):
    """Three residual layers on the flattened image, each a skip, a linear layer or a bottleneck: 3^3 = 27."""

    name: ClassVar[str] = "tiny"

    width: int = Field(16, ge=2)
    """Units of the hidden layers."""

    @cached_property
    def choices(self) -> dict[str, tuple[str, ...]]:
        return {f"layer{i}": OPERATIONS for i in range(3)}

    def cost(self, arch: Arch) -> dict[str, int]:
        channels, height, width = self.image
        inputs, w, half = channels * height * width, self.width, self.width // 2
        weights = (
            inputs * w + w * self.classes + sum({SKIP: 0, LINEAR: w * w, BOTTLENECK: 2 * w * half}[o] for o in arch)
        )
        biases = w + self.classes + sum({SKIP: 0, LINEAR: w, BOTTLENECK: half + w}[o] for o in arch)
        return {"params": weights + biases, "conv_weights": weights, "madds": weights}

    def supernet(self) -> torch.nn.Module:
        from nasbench_tiny.tiny_networks import Supernet

        return Supernet(self)

    def build(self, arch: Arch) -> torch.nn.Module:
        from nasbench_tiny.tiny_networks import Network

        return Network(self, arch)

    def targets(self) -> list[str]:
        return ["digits"]

    def ground_truth(self, target: str) -> Table | None:
        """`digits`: the embedded table, networks trained alone (see tables/make_tiny_digits.py)."""
        from nasbench import tables

        if target != "digits":
            return None
        at = self.with_(width=16, classes=10, image=(1, 8, 8), allowed={})
        return tables.read_csv(Path(__file__).parent / "tables" / "tiny-digits.csv", "digits", 10, at)
