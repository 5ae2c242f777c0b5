"""From a trained backbone to a network for every budget, in three stages: what DANCE and its baselines share."""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Generator
from typing import Any, ClassVar, Literal

import torch
from nasbench_backbones.channels import ChannelSpace
from pydantic import Field, PrivateAttr, field_validator
from torch import Tensor, nn

from nasbench import Arch, BadInput, Choice, Metric, Plugin, Run, hookimpl
from nasbench.budget import Budget
from nasbench.data import Batch
from nasbench.networks import top1
from nasbench_dance.fitting import Groups, fit
from nasbench_dance.masks import Masked, Masks, Selection, recalibrate, space_of

_RANDOM = re.compile(r"random:([1-9]\d*)")


class Pruning(Plugin):
    """Train the backbone; train it again under masks; cut it down for every budget, and fine-tune what is left.

    A subclass says how a step's masks are made (`masks`) and which channels a budget keeps (`keep_for`).
    """

    calls: ClassVar[frozenset[str]] = frozenset({"next_batch", "prepare_batch", "compute_loss"})

    budgets: list[str] = Field(["keep=0.9", "keep=0.7", "keep=0.5", "keep=0.3", "keep=0.1"], min_length=1)
    """A network for each of these: keep=R, madds=N, params=N with one ratio everywhere, or random:N for N networks
    whose layers each draw a keep ratio from 0.1 to 0.9 (Fig. 3)."""
    keep: list[float] = Field([0.5], min_length=1)
    """Keep ratios of the second stage; with several, each step draws one."""
    stage2_epochs: int | None = Field(None, ge=1)
    """Epochs under masks, after train.epochs of the backbone alone; null takes as many."""
    finetune_epochs: int | None = Field(None, ge=0)
    """Epochs of each network alone; null takes train.epochs, 0 leaves the third stage out."""
    backbone_lr: float | None = Field(None, gt=0)
    """Peak learning rate of the backbone in the second stage; null takes a tenth of train.lr, the first's."""
    finetune_lr: float | None = Field(None, gt=0)
    """Peak learning rate of fine-tuning; null takes train.lr."""
    samples: int = Field(1, ge=1)
    """Architectures sampled for each batch (T)."""
    patience: int = Field(15, ge=1)
    """Epochs without a better validation top-1 after which a stage ends."""
    recalibrate: bool = True
    """Learn batch statistics anew, on score.recalibration_images, once channels are gone."""
    clip_scope: Literal["global", "tensor"] = "global"
    """What train.clip limits in the second stage: the norm over all parameters, or of each tensor, as in the code."""
    cycle_momentum: bool = True
    """Let OneCycle move AdamW's first beta between 0.95 and 0.85, as torch does unless told otherwise."""
    _unpruned: nn.Module | None = PrivateAttr(None)

    @field_validator("budgets")
    @classmethod
    def _readable(cls, budgets: list[str]) -> list[str]:
        read = [text if _RANDOM.fullmatch(text) else str(Budget.parse(text)) for text in budgets]
        return list(dict.fromkeys(read))  # one given twice, however it is written, is one

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        space, name = run.space, next(name for name, plugin in run.plugins.items() if plugin is self)
        if not isinstance(space, ChannelSpace):
            return f"{name} keeps some channels of each layer, and {run.recipe.space} is no channel space."
        if space.widths(space.uniform(1.0)) != space.channels or space.allowed:
            return f"{name} starts from the backbone at full width, which {space.name} does not offer here."
        if not all(0 < r <= 1 for r in self.keep):
            return f"keep = {self.keep} does not fit: expected shares above 0, up to 1."
        if len(run.data.train) % run.recipe.train.batch_size == 1:
            return (
                "The last batch of an epoch would have one image, of which no statistics can be taken; change "
                "train.batch_size."
            )
        for text in self.scenarios():
            self.architecture(run, text)  # a budget that no network fits is found out now
        return None

    # ------------------------------------------------------------------ what a method gives

    def gates(self, space: ChannelSpace) -> nn.Module:
        """What is trained beside the backbone; here nothing."""
        return nn.Module()

    def groups(self, net: nn.ModuleDict) -> Groups:
        """Parameter groups of the second stage beside the backbone's."""
        return []

    def masks(self, run: Run, batch: Batch, ratio: float, sample: int) -> Any:
        """The gate of one pass in the second stage; it may have a `penalty`, which is added to the loss."""
        raise NotImplementedError

    def keep_for(self, run: Run, text: str, arch: Arch) -> Selection:
        """Which channels a scenario keeps; no chance but run's."""
        raise NotImplementedError

    # ------------------------------------------------------------------ stages 1 and 2

    @hookimpl
    def train(self, run: Run) -> bool:
        space = space_of(run)
        t, full = run.recipe.train, space.uniform(1.0)
        with run.seeded("init"):
            backbone = run.net = run.to_device(space.backbone())
        decay = {"weight_decay": t.weight_decay}

        def alone() -> float:
            return self.fit(run, [{"params": [*backbone.parameters()], "lr": t.lr, **decay}], t.epochs, full)

        settings = t.model_dump(include={"epochs", "batch_size", "lr", "weight_decay", "clip"})
        settings |= self.model_dump(include={"patience", "cycle_momentum"})
        # Left out where there is none: a backbone trained before these could differ keeps its name.
        if t.label_smoothing:
            settings["label_smoothing"] = t.label_smoothing
        others = {name: plugin.model_dump(mode="json") for name, plugin in run.plugins.items() if plugin is not self}
        if others:
            settings["terms"] = others
        run.stage("backbone", alone, shared=settings)
        self._unpruned = copy.deepcopy(backbone)
        with run.seeded("gates"):
            net = run.net = nn.ModuleDict({"backbone": backbone, "gates": run.to_device(self.gates(space))})

        def under_masks() -> float:
            groups = [
                *self.groups(net),
                {"params": [*backbone.parameters()], "lr": self.backbone_lr or t.lr / 10, **decay},
            ]
            return fit(
                run,
                net,
                groups,
                self.stage2_epochs or t.epochs,
                lambda batch: self.masked_loss(run, batch),
                lambda: self.masked_top1(run),
                patience=self.patience,
                clip_scope=self.clip_scope,
                cycle_momentum=self.cycle_momentum,
            )

        run.stage("masks", under_masks)
        return True

    def fit(self, run: Run, groups: Groups, epochs: int, arch: Arch) -> float:
        """Train run.net, a plain network, on cross-entropy."""
        net = run.net
        return fit(
            run,
            net,
            groups,
            epochs,
            lambda batch: self.loss(run, run.predict(net, batch.images), batch, arch),
            lambda: top1(run, net, "valid"),
            patience=self.patience,
            cycle_momentum=self.cycle_momentum,
        )

    def loss(self, run: Run, logits: Tensor, batch: Batch, arch: Arch) -> Tensor:
        """The task's loss of logits [B,K]."""
        losses: Tensor = run.hook.compute_loss(run=run, logits=logits[None], batch=batch, archs=[arch])
        return losses[0]

    def masked_loss(self, run: Run, batch: Batch) -> Tensor:
        """The mean over T masked passes of the task's loss and what the masks add to it."""
        ratio, total = run.rng("keep").choice(self.keep), torch.zeros((), device=run.device)
        for i in range(self.samples):
            gate = self.masks(run, batch, ratio, i)
            logits = run.predict(run.net["backbone"], batch.images, gate)
            total = total + self.loss(run, logits, batch, space_of(run).uniform(ratio)) + getattr(gate, "penalty", 0.0)
        return total / self.samples

    def masked_top1(self, run: Run) -> float:
        """Validation top-1 (%) under the masks of the first keep ratio, those that a choice now would have."""
        text = f"keep={self.keep[0]}"
        gate = Masks(space_of(run), self.keep_for(run, text, self.architecture(run, text)))
        return top1(run, Masked(run.net["backbone"], gate), "valid")

    # ------------------------------------------------------------------ stage 3

    def scenarios(self) -> list[str]:
        """The budgets, those of random:N one by one."""
        every = [
            [f"{text}#{i}" for i in range(int(m[1]))] if (m := _RANDOM.fullmatch(text)) else [text]
            for text in self.budgets
        ]
        return [text for some in every for text in some]

    def architecture(self, run: Run, text: str) -> Arch:
        """The widths of a scenario."""
        space = space_of(run)
        if text.startswith("random:"):
            rng = run.fixed_rng(text)
            return space.arch_of({gate: max(1, int(rng.uniform(0.1, 0.9) * c)) for gate, c in space.channels.items()})
        return space.within(Budget.parse(text))

    def sampled(self, run: Run, text: str) -> Choice:
        """The network of a scenario, cut out of the trained one, not retrained."""
        space = space_of(run)
        arch = self.architecture(run, text)
        masks = self.keep_for(run, text, arch)
        kept = {gate: mask.nonzero()[:, 0] for gate, mask in masks.items()}
        # Where layers of one residual stream keep different channels, no network can be cut out.
        network = space.slice(run.net["backbone"], kept) if kept.keys() == space.channels.keys() else None
        if network is not None and self.recalibrate:
            recalibrate(run, network)
        artefact = {"kept_channels": {gate: rows.tolist() for gate, rows in kept.items()}}
        return Choice(arch, {"budget": text}, "sampled", self.selected_on, network, artefact)

    #: What choices are made by, for the record.
    selected_on: ClassVar[str] = ""

    @hookimpl
    def specialize(self, run: Run, scenario: dict[str, str]) -> Choice:
        if set(scenario) != {"budget"}:
            raise BadInput(f"{run.recipe.method} knows budgets alone; give --budget keep=0.4 and nothing else.")
        return self.sampled(run, str(Budget.parse(scenario["budget"])))

    @hookimpl
    def select(self, run: Run) -> list[Choice]:
        trained, full = run.net, space_of(run).uniform(1.0)
        choices = [Choice(full, {"budget": "keep=1"}, "backbone", "validation top-1, early stopping", self._unpruned)]
        for text in self.scenarios():
            run.net, began = trained, time.perf_counter()
            choices.append(choice := self.sampled(run, text))
            run.seconds[f"sample {text}"] = time.perf_counter() - began
            if self.finetune_epochs != 0 and choice.network is not None:
                choices.append(self.finetuned(run, choice))
        run.net = trained
        return choices

    def finetuned(self, run: Run, choice: Choice) -> Choice:
        """The network of a choice, trained on alone with cross-entropy."""
        net = run.net = copy.deepcopy(choice.network)
        assert net is not None
        t = run.recipe.train
        lr, epochs = self.finetune_lr or t.lr, self.finetune_epochs or t.epochs
        groups: Groups = [{"params": [*net.parameters()], "lr": lr, "weight_decay": t.weight_decay}]
        name = f"finetune {choice.scenario['budget']}"
        run.stage(name, lambda: self.fit(run, groups, epochs, choice.arch))
        return Choice(choice.arch, choice.scenario, "fine-tuned", choice.selected_on, net, choice.artefact)

    # ------------------------------------------------------------------ what it comes to

    @hookimpl(wrapper=True)
    def evaluate(self, run: Run, choices: list[Choice]) -> Generator[None, Any, Any]:
        answers = yield
        found = {m.choice: m for answer in answers for m in answer if m.name == "top1"}
        whole = next((found[i].value for i, c in enumerate(choices) if c.phase == "backbone" and i in found), None)
        about = "top-1 of the pick's network in percent of the unpruned backbone's"
        metrics = [
            Metric(
                name="retention",
                value=100 * m.value / whole,
                unit="%",
                definition=about,
                **m.model_dump(include={"choice", "dataset", "split", "selected_on"}),
            )
            for m in found.values()
            if whole and m.value is not None
        ]
        return [*answers, metrics, self.report(run, choices)]

    def report(self, run: Run, choices: list[Choice]) -> list[Metric]:
        """What else the method says of its choices."""
        return []
