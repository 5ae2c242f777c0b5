"""What EAS asks of a search space: decisions that stretch the network, smaller options being parts of larger ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

import torch

if TYPE_CHECKING:
    from nasbench import Arch, Mixture, Run


class ElasticSpace(Protocol):
    """A space whose options are ordered from the smallest to the largest, three to a decision."""

    elastic: dict[str, tuple[str, ...]]
    """The decisions by kind, `kernel`, `width` (block by block) and `depth` (unit by unit), in the space's order."""

    def expected_madds(self, mixture: torch.Tensor) -> torch.Tensor:
        """MAdds of mixtures [..., decisions, 3], shape [...], differentiable."""

    def nested(self, mixture: torch.Tensor) -> Mixture:
        """A mixture that masks the supernet's own weights."""

    def encode(self, arch: Arch) -> list[int]:
        """One-hot encoding without what has no effect."""


def elastic(run: Run) -> Any:
    """The run's space, as such a space as well."""
    return run.space


def is_elastic(space: object) -> bool:
    """Whether a space is one."""
    return all(hasattr(space, name) for name in ("elastic", "expected_madds", "nested", "encode"))


def madds(space: object, options: torch.Tensor) -> torch.Tensor:
    """MAdds, exact in float64, of architectures given as options, int64 [..., decisions]."""
    return cast(ElasticSpace, space).expected_madds(torch.nn.functional.one_hot(options, 3).double())
