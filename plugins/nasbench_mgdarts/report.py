"""What is said of a found network: its genes, its non-zero parameters, what is left, and what the search held."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, ClassVar

import torch
from nasbench_cells.darts import DARTS
from torch import nn

from nasbench import Arch, Choice, Metric, Modifier, Run, SearchSpace, hookimpl
from nasbench.metrics import accuracy_density
from nasbench_mgdarts.final import genes
from nasbench_mgdarts.layers import Kernel
from nasbench_mgdarts.network import FinalNet
from nasbench_mgdarts.retrain import Retrained

#: What the harness would say of the architecture at uniform widths, and who knows better.
BETTER = {
    "params": ("params_nonzero", "parameters of the found network that no mask sets to zero, without auxiliary head"),
    "madds": ("madds", "multiply-adds of the found network for one image, masked weights included"),
}


class Reported(Retrained):
    """Choices with genes, and metrics that count what their masks leave."""

    spaces: ClassVar[tuple[type[SearchSpace], ...]] = (DARTS,)
    """The spaces whose networks it can cut to size."""

    def refuse_space(self, run: Run) -> str | None:
        """Why this run cannot be, or None: these methods cut the networks of `spaces` to size."""
        name = next(name for name, plugin in run.plugins.items() if plugin is self)
        if not isinstance(run.space, self.spaces):
            known = " or ".join(str(space.name) for space in self.spaces)
            return f"{name} searches filters and weights of the space {known}; {run.recipe.space} has others."
        sizes = {"train.batch_size": run.recipe.train.batch_size, f"{name}.retrain_batch_size": self.retrain_batch_size}
        for setting, size in sizes.items():
            if len(run.data.train) % size == 1:
                return f"The last batch of an epoch would have one image, too few for statistics; change {setting}."
        for impl in run.hook.search.get_hookimpls():
            if isinstance(impl.plugin, Modifier):
                return f"{name} trains what it found itself, under its masks; leave {impl.plugin_name} out."
        return None

    def choices(self, run: Run, arch: Arch, network: FinalNet, how: str, **more: Any) -> list[Choice]:
        """The architecture as it was found and, trained with its masks fixed, as the phase `retrain`."""
        dense, nonzero = network.sizes()
        found = {
            "genes": genes(network),
            "params_dense": dense,
            "params_nonzero": nonzero,
            "madds": multiply_adds(network, run.space.image),
        }
        choices = [Choice(arch, {}, "search", how, artefact=found | more)]
        if self.retrain_epochs:
            choices.append(Choice(arch, {}, "retrain", how, self.retrain(run, network), found))
        return choices

    @hookimpl(wrapper=True)
    def evaluate(self, run: Run, choices: list[Choice]) -> Generator[None, Any, Any]:
        answers = yield
        top1 = {m.choice: m.value for answer in answers for m in answer if m.name == "top1"}
        corrected = [
            [corrected_(m, choices[m.choice].artefact, top1.get(m.choice)) for m in answer] for answer in answers
        ]
        extra = [m for i, choice in enumerate(choices) for m in self.of_choice(i, choice.artefact)]
        return [*corrected, extra]

    def of_choice(self, index: int, artefact: dict[str, Any] | None) -> list[Metric]:
        """Metrics that this method adds to a choice."""
        if artefact is None:
            return []
        about = "parameters of the found network, masked weights included, without auxiliary head"
        found = [Metric(name="params_dense", value=artefact["params_dense"], definition=about, choice=index)]
        for part, share in artefact.get("retention", {}).items():
            about = f"share of the {part}s that the search left, before filters were aligned"
            found.append(Metric(name=f"retention_{part}", value=share, definition=about, choice=index))
        about = "parameters, buffers, optimizer state and tensors saved for the backward pass of a step"
        for stage, count in artefact.get("memory", {}).items():
            found.append(Metric(name=f"memory_{stage}", value=count, unit="bytes", definition=about, choice=index))
        if artefact.get("memory"):
            most = max(artefact["memory"].values())
            about = f"largest over the stages: {about}"
            found.append(Metric(name="memory", value=most, unit="bytes", definition=about, choice=index))
        if "small_enough" in artefact:
            about = "1 if the search reached its target size, 0 if it ran out of epochs before"
            value = float(artefact["small_enough"])
            found.append(Metric(name="target_reached", value=value, definition=about, choice=index))
        return found


def corrected_(metric: Metric, artefact: dict[str, Any] | None, top1: float | None) -> Metric:
    """A metric of the harness in terms of the network that was found instead of the same cells at full width."""
    if artefact is None:
        return metric
    if metric.name in BETTER:
        name, definition = BETTER[metric.name]
        return metric.model_copy(update={"value": artefact[name], "definition": definition})
    if metric.name == "accuracy_density" and top1 is not None:
        value = accuracy_density(top1, artefact["params_nonzero"])
        definition = "top-1 (%) of the found network per million parameters that are not masked"
        return metric.model_copy(update={"value": value, "definition": definition})
    return metric


def multiply_adds(network: nn.Module, image: tuple[int, int, int]) -> int:
    """Multiply-adds of convolutions and linear layers for one image."""
    total = 0

    def count(module: Any, _: Any, output: torch.Tensor) -> None:
        nonlocal total
        total += output.numel() * module.weight[0].numel()

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear | Kernel)]
    like, training = next(network.parameters()), network.training
    with torch.no_grad():
        network.eval()(like.new_zeros(1, *image))
    network.train(training)
    for hook in hooks:
        hook.remove()
    return total
