"""Superclass dropout: EAS, section 3.1, arXiv:2108.01224."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field, PrivateAttr

from nasbench import Modifier, Run, hookimpl
from nasbench.data import Batch
from nasbench_eas.superclass import Name, Superclasses, superclasses_of


def superclass_mask(
    of_classes: torch.Tensor, labels: torch.Tensor, q: float, generator: torch.Generator, alike: bool = False
) -> torch.Tensor:
    """Which classes take part for each image, bool [B,K]: its own superclass, every other with probability 1 - q.

    `of_classes` [K] and `labels` [B] are int64. `alike`: the same superclasses are dropped for the whole batch.
    """
    own, t = of_classes[labels], int(of_classes.max()) + 1
    kept = torch.rand(1 if alike else len(labels), t, generator=generator) >= q
    kept = kept.expand(len(labels), t).clone().to(labels.device)
    kept[torch.arange(len(labels), device=labels.device), own] = True
    return kept[:, of_classes]


class SuperclassDropout(Modifier):
    """Each step hides the logits of random superclasses other than the image's own (Eq. 1, 2).

    The loss, and a distillation loss beside it, is over the classes that are left.
    """

    q: float = Field(0.6, ge=0, le=1)
    """Probability of each other superclass to be dropped; 0 is none, 1 leaves the image's own alone. The paper takes
    0.6 on ImageNet-10, 0.1 on ImageNet-12, 0.15 on Car-20."""
    superclasses: Name = "auto"
    """The superclasses' file or its name; auto is the one named like the dataset's target."""
    per: Literal["image", "batch"] = "image"
    """Whether each image draws its own superclasses to drop, or a batch draws once."""
    _found: Superclasses | None = PrivateAttr(None)

    def of(self, run: Run) -> Superclasses:
        """The superclasses of the run's dataset."""
        self._found = self._found or superclasses_of(run, self.superclasses)
        return self._found

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        self.of(run)
        return None

    @hookimpl
    def prepare_batch(self, run: Run, batch: Batch) -> Batch:
        of_classes, rng = self.of(run).of_classes().to(run.device), run.generator("superclass-dropout")
        return replace(batch, class_mask=superclass_mask(of_classes, batch.labels, self.q, rng, self.per == "batch"))
