"""DANCE: Wang et al., DANCE: Resource-Efficient Neural Architecture Search with Data-Aware and Continuous Adaptation,
IJCAI 2025."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from nasbench_backbones.channels import ChannelSpace
from pydantic import Field
from torch import Tensor, nn

from nasbench import Arch, Choice, Method, Metric, Run
from nasbench.networks import top1
from nasbench_dance import sampling
from nasbench_dance.gate import Gates, Scope
from nasbench_dance.masks import Masked, Masks, Selection, random_masks, space_of
from nasbench_dance.scored import Scored


class DANCE(Scored, Method):
    """Gates that look at the batch draw which channels of each layer are kept, and are trained with the backbone."""

    selected_on: ClassVar[str] = "gates trained on training images"

    tau: float = Field(0.5, gt=0)
    """Temperature of the Gumbel-softmax."""
    sampler: sampling.Sampler = "gumbel_topk"
    """How exactly k channels are drawn: see `nasbench_dance.sampling.sample`."""
    gate_combine: sampling.Combine = "product"
    """How shares and Score become probabilities: see `nasbench_dance.sampling.combine`."""
    kappa: float = 1.0
    """Weight of the Score with gate_combine=logit_add."""
    relaxation: Literal["softmax", "sigmoid_code"] = "softmax"
    """softmax: the paper's, with temperature; sigmoid_code: the code's k largest of sigmoid(logits + noise)."""
    gate_scope: Scope = "batch"
    """One mask for a batch, or, as in the code, one for every image while it is trained."""
    gate_activation: Literal["leaky_relu", "relu"] = "leaky_relu"
    """Between the two layers of a gate's network: the code's, or the paper's."""
    tie_residual: bool = True
    """Layers that write into one residual stream share a gate. Untied, as in the code, they keep different channels:
    networks are then masked, not cut out, and not fine-tuned."""
    eval_gate: Literal["score", "sample", "random"] = "score"
    """How a budget's channels are chosen: by Score, by the gates' draw on one batch, or, as a control, blindly."""

    def gates(self, space: ChannelSpace) -> nn.Module:
        relu = self.gate_activation == "relu"
        return Gates(space, self, scope=self.gate_scope, relu=relu, tied=self.tie_residual)

    def draw(
        self, logits: Tensor, noise: Tensor, score: Tensor, k: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        if self.relaxation == "sigmoid_code":
            soft = torch.sigmoid(logits + self.dynamic_noise * noise)
            return sampling.top(soft, k), soft
        shares = sampling.relax(logits, noise, self.tau)
        p = sampling.combine(shares, score, self.gate_combine, self.kappa)
        return sampling.sample(p, k, self.sampler, generator), sampling.soft_gates(p, k)

    def keep_for(self, run: Run, text: str, arch: Arch) -> Selection:
        if self.eval_gate == "random":
            return random_masks(run, text, arch)
        if self.eval_gate == "score":
            return super().keep_for(run, text, arch)
        drawn = self.ask(run, text, arch).masks
        return {
            gate: mask if mask.dim() == 1 else sampling.top(mask.mean(0), int(mask[0].sum()))
            for gate, mask in drawn.items()
        }

    def report(self, run: Run, choices: list[Choice]) -> list[Metric]:
        """What could not be cut out is measured under its masks."""
        found = super().report(run, choices)
        for i, choice in enumerate(choices):
            if choice.network is None and choice.artefact and run.data.test is not None:
                net = Masked(run.net["backbone"], Masks(space_of(run), self.given(run, choice.artefact)))
                about = "top-1 of the trained backbone under the pick's masks"
                value = top1(run, net, "test")
                found.append(
                    Metric(
                        name="masked_top1",
                        value=value,
                        unit="%",
                        definition=about,
                        dataset=run.data.name,
                        split="test",
                        selected_on=choice.selected_on,
                        choice=i,
                    )
                )
        return found

    def given(self, run: Run, artefact: dict[str, Any]) -> Selection:
        """The masks of kept channels."""
        gates, channels = run.net["gates"], space_of(run).channels
        masks = {}
        for gate, rows in artefact["kept_channels"].items():
            mask = torch.zeros(channels[gates.home[gate]], device=run.device)
            mask[rows] = 1
            masks[gate] = mask
        return masks
