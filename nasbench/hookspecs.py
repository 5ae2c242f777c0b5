"""The plugin API on one page, in the order a run calls it.

A plugin implements any of these methods, marked `@nasbench.hookimpl`, and takes only the parameters it needs.

- *first*: the first answer that is not None is the choice. The default answers last, so a plugin's answer
  replaces it; two plugins that both answer are refused before anything is trained.
- *list*: every plugin is called, all answers count.
- `@hookimpl(wrapper=True)` goes around whoever answers: `answer = yield`, then return an answer.

Hooks that speak of architectures speak of several subnets at once: `archs` is a list of n.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import torch

    from nasbench.data import Batch
    from nasbench.records import Choice, Metric
    from nasbench.running import Run
    from nasbench.space import Arch, Mixture

hookspec = pluggy.HookspecMarker("nasbench")

#: It rises when plugins must be rewritten; a plugin declares the one it is written for as `api`. A hook that is to go
#: is first marked `@hookspec(warn_on_impl=FutureWarning("what to implement instead"))` for a while.
VERSION = 1


class Hooks:
    """Every hook of nasbench; `nasbench.oneshot` holds the defaults."""

    # ------------------------------------------------------------------ may this combination run at all?

    @hookspec
    def refuse(self, run: Run) -> str | None:
        """Say in one sentence why this combination cannot run, or return None. *list*, before training."""

    # ------------------------------------------------------------------ observers

    @hookspec
    def run_started(self, run: Run) -> None:
        """A run begins or goes on. *list*"""

    @hookspec
    def progress(self, run: Run, stage: str, done: int, total: int, info: dict[str, Any]) -> None:
        """A stage has done `done` of `total` steps; `info` holds what the method reports. *list*

        A value of `info` may be a tensor on the device: convert it only when you show it.
        """

    @hookspec
    def run_finished(self, run: Run, record: dict[str, Any]) -> None:
        """The run is complete; `record` is what `record.json` will hold. Told again if killed before that. *list*"""

    # ------------------------------------------------------------------ trainer: the whole

    @hookspec(firstresult=True)
    def search(self, run: Run) -> list[Choice]:
        """Search, and return the chosen architectures. *first*; default: `train`, then `select`."""

    @hookspec(firstresult=True)
    def train(self, run: Run) -> bool:
        """Leave the trained supernet in `run.net`; return True. *first*; default: the supernet loop."""

    # ------------------------------------------------------------------ trainer: what the loop is made of

    @hookspec(firstresult=True)
    def build_supernet(self, run: Run) -> torch.nn.Module:
        """Return the supernet, called as `net(images [B,C,H,W], archs) -> logits [n,B,K]`.

        *first*; default `run.space.supernet()`. Batch-norm statistics are taken per subnet.
        """

    @hookspec(firstresult=True)
    def make_optimizer(self, run: Run) -> torch.optim.Optimizer:
        """Return one optimizer of `run.net`'s parameters. *first*; default: SGD from `run.recipe.train`."""

    @hookspec(firstresult=True)
    def next_batch(self, run: Run) -> Batch:
        """Return the batch of step `run.step`. *first*; default: the epoch's shuffled, augmented batches."""

    @hookspec(firstresult=True)
    def prepare_batch(self, run: Run, batch: Batch) -> Batch:
        """Return the batch that the step trains on, say with a class mask set. *first*; default: as it is."""

    @hookspec(firstresult=True)
    def train_step(self, run: Run, batch: Batch) -> bool:
        """Do one training step; return True. *first*; default: sample, forward, backward, update."""

    @hookspec(firstresult=True)
    def sample_archs(self, run: Run) -> list[Arch] | list[Mixture]:
        """Return the n subnets (or, for differentiable methods, mixtures) of this step. *first*"""

    @hookspec(firstresult=True)
    def learning_rates(self, run: Run, archs: list[Arch]) -> list[float]:
        """Return n learning rates. *first*; default: the schedule of `run.recipe.train`, equal for all."""

    @hookspec(firstresult=True)
    def compute_loss(self, run: Run, logits: torch.Tensor, batch: Batch, archs: list[Arch]) -> torch.Tensor:
        """Return the n losses, shape [n], of logits [n,B,K]. *first*; default: cross-entropy.

        `batch.class_mask` [B,K], where set, names the classes that take part; every loss honours it.
        """

    @hookspec(firstresult=True)
    def update(self, run: Run, archs: list[Arch]) -> bool:
        """Apply the gradients; return True. *first*; default: clip the norm, then `run.optimizer.step()`."""

    @hookspec
    def after_epoch(self, run: Run) -> None:
        """An epoch of the supernet loop is over: prune, grow or anneal. *list*

        A net whose shape changes is handed over with `run.replace_net(net, mapping)`.
        """

    # ------------------------------------------------------------------ selection

    @hookspec(firstresult=True)
    def select(self, run: Run) -> list[Choice]:
        """Choose from what was trained. *first*; default: the best `score` on the recipe's subset."""

    @hookspec(firstresult=True)
    def specialize(self, run: Run, scenario: dict[str, str]) -> Choice:
        """Choose for a scenario that the run was not asked about, without training. *first*

        `scenario` may hold `budget` (see `nasbench.budget`) and `superclass`; `train` has been replayed.
        """

    @hookspec(firstresult=True)
    def score(self, run: Run, archs: list[Arch]) -> list[float]:
        """Say how good each architecture is, higher is better, without training. *first*

        Default: top-1 (%) of the subnets of `run.net` on the validation images.
        """

    # ------------------------------------------------------------------ evaluators

    @hookspec
    def evaluate(self, run: Run, choices: list[Choice]) -> list[Metric]:
        """Return named metrics of the choices. *list*; one name answered twice for a choice is an error."""


#: What each default calls, so that a composition can tell which hooks are reached at all.
CALLS: dict[str, frozenset[str]] = {
    "search": frozenset({"train", "select"}),
    "train": frozenset(
        {"build_supernet", "make_optimizer", "next_batch", "prepare_batch", "train_step", "after_epoch"}
    ),
    "train_step": frozenset({"sample_archs", "learning_rates", "compute_loss", "update"}),
    "select": frozenset({"score"}),
}
#: Hooks the harness itself calls.
ROOTS = frozenset({"refuse", "run_started", "progress", "run_finished", "search", "specialize", "evaluate"})
