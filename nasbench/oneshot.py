"""The default behaviour of every hook, itself a plugin: weight-sharing training, then the best score."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F

from nasbench import batch_norm, hookimpl, optimizers, static
from nasbench.data import shuffled, to_device
from nasbench.errors import BadInput
from nasbench.limits import refuse_limits
from nasbench.plugins import Plugin, answerer
from nasbench.records import Choice

if TYPE_CHECKING:
    from nasbench.data import Batch
    from nasbench.running import Run
    from nasbench.space import Arch


class Defaults(Plugin):
    """Answers last to every hook, so that a method overrides as little as it needs."""

    scores_by: ClassVar[str] = "supernet validation top-1"

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        return refuse_limits(run) or batch_norm.refuse(run) or static.refuse(run) or optimizers.refuse(run)

    @hookimpl(trylast=True)
    def search(self, run: Run) -> list[Choice]:
        run.hook.train(run=run)
        choices: list[Choice] = run.hook.select(run=run)
        return choices

    # ------------------------------------------------------------------ training

    @hookimpl(trylast=True)
    def train(self, run: Run) -> bool:
        def loop() -> None:
            run.net = run.hook.build_supernet(run=run)
            run.optimizer = run.hook.make_optimizer(run=run)
            for step in run.steps(run.recipe.train.epochs * run.steps_per_epoch):
                batch = run.hook.prepare_batch(run=run, batch=run.hook.next_batch(run=run))
                run.hook.train_step(run=run, batch=batch)
                if (step + 1) % run.steps_per_epoch == 0:
                    run.hook.after_epoch(run=run)

        run.stage("train", loop)
        return True

    @hookimpl(trylast=True)
    def build_supernet(self, run: Run) -> torch.nn.Module:
        with run.seeded("init"):
            return run.to_device(run.space.supernet())

    @hookimpl(trylast=True)
    def make_optimizer(self, run: Run) -> torch.optim.Optimizer:
        return optimizers.make(run)

    @hookimpl(trylast=True)
    def next_batch(self, run: Run) -> Batch:
        seed = run.generator("order", step=run.epoch).initial_seed()
        order = shuffled(len(run.data.train), seed, run.device)
        start = (run.step % run.steps_per_epoch) * run.recipe.train.batch_size
        rows = order[start : start + run.recipe.train.batch_size]
        return run.data.training_batch(rows, run.generator("augment"))

    @hookimpl(trylast=True)
    def prepare_batch(self, batch: Batch) -> Batch:
        return batch

    @hookimpl(trylast=True)
    def train_step(self, run: Run, batch: Batch) -> bool:
        """One backward of sum_k w_k loss_k.

        The rate stands outside the momentum (w_k = 1, as in SPOS), unless a plugin gives rates to several
        subnets at once: then inside (w_k = rate_k, the optimizer's rate 1, the decay term times the mean
        rate), as in Algorithm 2 of the CaLR/MS supplement.
        """
        assert run.optimizer is not None
        archs = run.hook.sample_archs(run=run)
        rates = run.hook.learning_rates(run=run, archs=archs)
        inside = places_rates_inside(run, len(archs))
        run.optimizer.zero_grad(set_to_none=run.recipe.train.update_scope == "subnet")
        weights = optimizers.loss_weights(run, rates, inside)
        losses = static.descend(run, batch, archs, weights) if loss_is_default(run) else None
        if losses is None:
            logits = run.forward(batch.images, archs)
            losses = run.hook.compute_loss(run=run, logits=logits, batch=batch, archs=archs)
            losses.backward(to_device(torch.tensor(weights, dtype=losses.dtype), run.device))
        mean_rate = place_rates(run, rates, inside)
        run.hook.update(run=run, archs=archs)
        run.info = {"loss": losses.detach().mean(), "lr": mean_rate}
        return True

    @hookimpl(trylast=True)
    def learning_rates(self, run: Run, archs: list[Arch]) -> list[float]:
        t = run.recipe.train
        falling = {
            "cosine": (1 + math.cos(math.pi * run.progress)) / 2,
            "linear": 1 - run.progress,
            "constant": 1.0,
        }
        return [t.lr * falling[t.schedule]] * len(archs)

    @hookimpl(trylast=True)
    def compute_loss(self, run: Run, logits: torch.Tensor, batch: Batch, archs: list[Arch]) -> torch.Tensor:
        smoothing = run.recipe.train.label_smoothing
        if batch.class_mask is not None:
            if smoothing:
                raise BadInput(
                    f"train.label_smoothing = {smoothing} gives weight to classes that take no part; set it to 0."
                )
            logits = logits.masked_fill(~batch.class_mask, -torch.inf)
        n, size, _ = logits.shape
        losses = F.cross_entropy(
            logits.flatten(0, 1), batch.labels.repeat(n), reduction="none", label_smoothing=smoothing
        )
        return losses.view(n, size).mean(1)

    @hookimpl(trylast=True)
    def update(self, run: Run, archs: list[Arch]) -> bool:
        assert run.optimizer is not None
        optimizers.step(run.optimizer, run.recipe.train.clip)
        return True

    # ------------------------------------------------------------------ selection

    @hookimpl(trylast=True)
    def select(self, run: Run) -> list[Choice]:
        scores = score_subset(run)
        fitting = [arch for arch in scores if math.isfinite(scores[arch]) and run.fits(arch)]
        if not fitting:
            raise BadInput(f"None of {len(scores)} ranked architectures has a finite score and keeps to the limits.")
        return [Choice(max(fitting, key=scores.__getitem__), selected_on=run.scored_by)]

    @hookimpl(trylast=True)
    def score(self, run: Run, archs: list[Arch]) -> list[float]:
        right = torch.zeros(len(archs), dtype=torch.int64, device=run.device)
        with torch.inference_mode():
            batches = run.data.batches("valid", run.recipe.score.batch_size)
            subnets = static.replayed(run, batch_norm.subnets(run, archs), batches)
            for batch in batches:
                right += (subnets(batch.images).argmax(-1) == batch.labels).sum(1)
        return [100 * count / len(run.data.valid) for count in right.tolist()]


def loss_is_default(run: Run) -> bool:
    """Whether no plugin has a say in `compute_loss`, where it might ask for gradients."""
    return {i.plugin_name for i in run.manager.hook.compute_loss.get_hookimpls()} <= {"default", "answers"}


def places_rates_inside(run: Run, n: int) -> bool:
    """Whether this step's rates multiply the gradients (see `train.rate_placement`)."""
    placement = run.recipe.train.rate_placement
    if placement == "auto":
        return n > 1 and answerer(run.manager, "learning_rates") is not None
    return placement == "inside"


def place_rates(run: Run, rates: list[float], inside: bool) -> float:
    """Set the optimizer's rate and weight decay for these subnets' rates, as `train.rate_placement` and `train.decay`
    say; return the mean rate."""
    assert run.optimizer is not None
    mean_rate = math.fsum(rates) / len(rates)
    decay_rate = mean_rate if run.recipe.train.decay == "mean_rate" else run.recipe.train.lr
    rate = 1.0 if inside and run.recipe.train.optimizer == "sgd" else mean_rate
    for group in run.optimizer.param_groups:
        group["lr"] = rate
        if inside:
            decay = group.setdefault("full_weight_decay", group["weight_decay"])
            group["weight_decay"] = decay * decay_rate / rate  # both optimizers multiply it by their rate
    return mean_rate


def score_all(run: Run, archs: list[Arch], stage: str = "score") -> dict[Arch, float]:
    """Score these architectures, as a resumable stage."""
    together = run.recipe.score.together

    def loop() -> list[float]:
        for step in run.steps(-(-len(archs) // together)):
            part = archs[step * together : (step + 1) * together]
            answers = zip(part, run.hook.score(run=run, archs=part), strict=True)
            run.state.setdefault("scores", []).extend(score for _, score in answers)
        return run.state.get("scores", [])

    # Fewer scores than architectures where nasbench.sweeps.estimate cuts the loop.
    return dict(zip(archs, run.stage(stage, loop), strict=False))


def score_subset(run: Run) -> dict[Arch, float]:
    """Score every architecture of the recipe's subset, as a resumable stage; kept in `run.scores`."""
    run.scores = score_all(run, run.subset())
    return run.scores
