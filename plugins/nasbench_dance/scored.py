"""What DANCE shares with pruning by its Score: gates beside the backbone, trained with it in the second stage."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import torch
from nasbench_backbones.channels import ChannelSpace
from pydantic import Field
from torch import Tensor, nn

from nasbench import Arch, Choice, Metric, Run
from nasbench.data import Batch
from nasbench_dance import losses
from nasbench_dance.fitting import Groups
from nasbench_dance.gate import Gates, Gating
from nasbench_dance.masks import Selection, space_of
from nasbench_dance.pruning import Pruning


class Scored(Pruning):
    """Gates that keep a Score of every channel. A subclass says how a mask is drawn (`draw`)."""

    gate_lr: float = Field(1e-3, gt=0)
    """Peak learning rate of the gates."""
    embedding_lr: float = Field(5e-4, gt=0)
    """Peak learning rate of the batch embedding."""
    gate_decay: float = Field(1e-2, ge=0)
    """Weight decay of gates and batch embedding."""
    alpha: float = Field(0.1, gt=0, le=1)
    """How fast the Score's moving averages follow."""
    score_weights: list[float] = Field([0.3, 0.3, 0.2, 0.2], min_length=4, max_length=4)
    """Weights of the Score's static, dynamic, feature and correlation terms."""
    dynamic_noise: float = Field(0.1, ge=0)
    """Factor of the Gumbel noise in the dynamic term."""
    lambda2: float = Field(1.0, ge=0)
    """Weight of the mean correlation in the Score's correlation term."""
    lambda2_ramp: bool = False
    """Let lambda2 grow from a tenth of it to the whole over the second stage."""
    penalty: float = Field(0.1, ge=0)
    """Weight of the gates' own losses beside cross-entropy."""

    def draw(
        self, logits: Tensor, noise: Tensor, score: Tensor, k: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """A mask of exactly k channels and the soft gates whose gradient it takes, both shaped as the logits."""
        raise NotImplementedError

    def gates(self, space: ChannelSpace) -> nn.Module:
        return Gates(space, self, network=False)

    def groups(self, net: nn.ModuleDict) -> Groups:
        gates: Any = net["gates"]
        decay = {"weight_decay": self.gate_decay}
        parts = [(gates.all, self.gate_lr)] + ([(gates.embed, self.embedding_lr)] if gates.embed is not None else [])
        return [{"params": [*part.parameters()], "lr": lr, **decay} for part, lr in parts]

    def masks(self, run: Run, batch: Batch, ratio: float, sample: int) -> Gating:
        space = space_of(run)
        lambda2 = self.lambda2 * (0.1 + 0.9 * run.progress if self.lambda2_ramp else 1.0)
        widths, rng = space.widths(space.uniform(ratio)), run.generator(f"masks {sample}")
        return Gating(run.net["gates"], batch.images, widths, rng, ratio, lambda2)

    def keep_for(self, run: Run, text: str, arch: Arch) -> Selection:
        space = space_of(run)
        best: Selection = run.net["gates"].best(space.widths(arch))
        return best

    @torch.no_grad()
    def ask(self, run: Run, text: str, arch: Arch) -> Gating:
        """What the trained gates answer to one batch of validation images, drawing as they did in training."""
        space = space_of(run)
        net, images = run.net.eval(), run.data.batches("valid", run.recipe.score.batch_size)[0].images
        gating = Gating(net["gates"], images, space.widths(arch), run.generator(f"draw {text}"))
        run.predict(net["backbone"], images, gating)
        return gating

    def sampled(self, run: Run, text: str) -> Choice:
        choice = super().sampled(run, text)
        soft = self.ask(run, text, choice.arch).soft
        assert choice.artefact is not None
        choice.artefact["gates"] = {
            gate: {"mean": float(values.mean()), "entropy": -float(losses.diversity(values))}
            for gate, values in soft.items()
        }
        return choice

    def report(self, run: Run, choices: list[Choice]) -> list[Metric]:
        overhead = sum(p.numel() for p in run.net["gates"].parameters())
        definition = "trainable parameters of gates and batch embedding, which no pick's network has"
        found = [Metric(name="overhead_params", value=overhead, definition=definition)]
        for i, choice in enumerate(choices):
            if choice.phase == "sampled" and choice.artefact:
                for name, about in (("mean", "mean"), ("entropy", "mean binary entropy (nats)")):
                    value = fmean(each[name] for each in choice.artefact["gates"].values())
                    definition = f"{about} of the soft gates on a batch of validation images, over all gates"
                    found.append(Metric(name=f"gate_{name}", value=value, definition=definition, choice=i))
        return found
