"""`engine.static`: the subnets of a step as one pass that never changes, which a GPU records once and replays.

A supernet offers it as `static(images [B,C,H,W], numbers [L], kind) -> logits [n,B,K]`: the same kernels in the
same order for all subnets of a kind, with nothing that the host has to wait for. `static_plan(archs)` gives the kind,
anything hashable, and the numbers that tell its members apart, an input like the images; or None for subnets that have
no such pass. `used(archs)` names the parameters that an output depends on. What is recorded is a copy of the net with
the same weights: averages that it keeps, or hooks, do not reach the net itself.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import lru_cache
from itertools import compress
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nasbench.data import to_device
from nasbench.distributed import processes
from nasbench.flat import FlatSGD, places

if TYPE_CHECKING:
    from nasbench.data import Batch
    from nasbench.running import Run
    from nasbench.space import Arch

T = TypeVar("T")
#: Batches from which on scoring is recorded: it takes four passes and some waiting to record one.
WORTH_RECORDING = 5
#: Passes recorded for a net, each of which keeps its activations; others run as without.
MOST_RECORDINGS = 16


class Static:
    """What is recorded of a supernet, for each shape of images and each kind of subnets."""

    def __init__(self, net: Any) -> None:
        self.net, self.given = net, list(net.parameters())
        self.trains = [p.requires_grad for p in self.given]
        self.trained = {name: p for name, p in net.named_parameters() if p.requires_grad}
        self.recordings: dict[Any, Any] = {}

    def recording(self, key: Any, make: Callable[[], T]) -> T | None:
        """What is recorded under this key, made if it is not; None if there are too many."""
        if key not in self.recordings and len(self.recordings) < MOST_RECORDINGS:
            self.recordings[key] = make()
        return self.recordings.get(key)

    def as_recorded(self) -> bool:
        """Whether the same parameters are trained as when it was made."""
        return self.trains == [p.requires_grad for p in self.given]

    def used(self, archs: list[Arch]) -> bytes:
        """Which parameters [P] an output of these subnets depends on."""
        return bytes(map(self.net.used(archs).__contains__, self.trained))

    def call(self, images: Tensor, archs: list[Arch], plan: tuple[Hashable, Tensor]) -> Tensor:
        """Logits [n,B,K] of subnets by their plan."""
        kind, numbers = plan[0], to_device(plan[1], images.device)
        key = (images.shape, images.stride(), images.dtype, kind)
        recording = self.recording(key, lambda: Recording(self.net, images, numbers, kind))
        if recording is None:
            plain: Tensor = self.net(images, archs)
            return plain
        used = self.used(archs)
        weights = list(compress(self.trained.values(), used))
        result: Tensor = Replay.apply(Pass(recording, images, numbers, weights), used, *weights)
        return result


class Twin:
    """A copy of a net with the same weights, all of whose gradients come as one tensor."""

    def __init__(self, net: Any) -> None:
        # Weights of their own in the same memory: what torch remembers of the others, such as the stream that they
        # were last used on, must not enter a recording.
        self.net = copy.deepcopy(net)
        for mine, theirs in zip(self.net.parameters(), net.parameters(), strict=True):
            mine.data = theirs.data
        self.trained = [p for p in self.net.parameters() if p.requires_grad]
        #: Where each gradient lies in what `gradients` gives.
        self.places, size = places(self.trained)
        self.whole = self.trained[0].new_zeros(size)

    def gradients(self, outputs: Tensor, slope: Tensor) -> Tensor:
        """All gradients in one tensor [N], zero where there are none."""
        with torch.autocast(outputs.device.type, enabled=False):  # as backward passes run
            found = torch.autograd.grad(outputs, self.trained, slope, allow_unused=True)
        parts, gradients = [], []
        for parameter, gradient, (_, _, start) in zip(self.trained, found, self.places, strict=True):
            if gradient is not None:
                order = sorted(range(parameter.dim()), key=parameter.stride, reverse=True)  # as it lies in memory
                gradients.append(gradient.permute(order).reshape(-1))
                parts.append(self.whole[start : start + parameter.numel()])
        torch._foreach_copy_(parts, gradients)
        return self.whole


class Recording(Twin):
    """A static pass and its gradients as CUDA graphs, which replay on whatever is copied into their inputs."""

    def __init__(self, net: Any, images: Tensor, numbers: Tensor, kind: Hashable) -> None:
        super().__init__(net)
        self.images, self.numbers = images.clone(), numbers.clone()
        with torch.no_grad():
            self.slope = torch.ones_like(self.net.static(self.images, self.numbers, kind))
        self.held: object = None
        """The pass that was replayed last and has its gradients still to come."""

        def forward() -> Tensor:
            self.logits: Tensor = self.net.static(self.images, self.numbers, kind)
            return self.logits.detach()

        def backward() -> Tensor:
            return self.gradients(self.logits, self.slope)

        warm_up(lambda: (forward(), backward()))
        del self.logits  # and with it what torch remembers of the stream it was computed on
        self.forward_graph = Graph(forward)
        self.backward_graph = Graph(backward, pool=self.forward_graph.pool)


class Descent(Twin):
    """A static pass, its losses and the gradients of their weighted sum as one CUDA graph."""

    def __init__(self, run: Run, batch: Batch, archs: list[Arch], plan: tuple[Hashable, Tensor]) -> None:
        super().__init__(run.net)
        self.batch = replace(batch, images=batch.images.clone(), labels=batch.labels.clone())
        self.numbers = to_device(plan[1], run.device).clone()
        self.weights = self.whole.new_ones(len(archs))

        def work() -> Tensor:
            logits = run.predict(lambda images: self.net.static(images, self.numbers, plan[0]), self.batch.images)
            losses: Tensor = run.hook.compute_loss(run=run, logits=logits, batch=self.batch, archs=archs)
            self.gradients(losses, self.weights)
            return losses.detach()

        warm_up(work)
        self.graph = Graph(work)

    def __call__(self, batch: Batch, numbers: Tensor, weights: Tensor) -> Tensor:
        """Losses [n], until the next call."""
        self.batch.images.copy_(batch.images)
        self.batch.labels.copy_(batch.labels)
        self.numbers.copy_(to_device(numbers, self.numbers.device))
        self.weights.copy_(to_device(weights, self.weights.device))
        return self.graph()


class Pass:
    """A recording's pass on some images with the weights of now, whose gradients may come late and twice."""

    def __init__(self, recording: Recording, images: Tensor, numbers: Tensor, weights: list[Tensor]) -> None:
        self.recording, self.images, self.numbers, self.weights = recording, images, numbers, weights
        self.versions = [w._version for w in weights]

    def replay(self) -> Tensor:
        """Logits [n,B,K], until the next replay."""
        self.recording.images.copy_(self.images)
        self.recording.numbers.copy_(self.numbers)
        self.recording.held = self
        return self.recording.forward_graph()

    def logits(self) -> Tensor:
        """Logits [n,B,K], to keep."""
        return self.replay().clone()

    def gradient(self, slope: Tensor) -> Tensor:
        """All gradients [N] for the logits' [n,B,K], until the next replay."""
        if [w._version for w in self.weights] != self.versions:
            raise RuntimeError("The weights have changed since the pass whose gradients are asked for.")
        if self.recording.held is not self:  # another pass came between, or these gradients are asked for again
            self.replay()
        self.recording.held = None  # the gradients overwrite what they are computed from
        self.recording.slope.copy_(slope)
        return self.recording.backward_graph()


def warm_up(function: Callable[[], Any]) -> None:
    """Call it a few times on a stream of its own, as CUDA asks before it is recorded."""
    stream = stream_for("warm-up")
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(stream)


@lru_cache
def stream_for(purpose: str) -> Any:
    """A stream for each purpose: on every new one torch would set memory aside for matrix products."""
    return torch.cuda.Stream()


class Graph:
    """What a function does, recorded: a call replays its kernels and overwrites the last call's result.

    Graphs of unlike lives are recorded on streams of their own, since the end of one takes away the memory for matrix
    products that the others of its stream use.
    """

    def __init__(self, function: Callable[[], Tensor], *, pool: Any = None, purpose: str = "training") -> None:
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, pool=pool, stream=stream_for(purpose)):
            self.result = function()

    @property
    def pool(self) -> Any:
        """Its memory, for graphs that never run at the same time."""
        return self.graph.pool()

    def __call__(self) -> Tensor:
        self.graph.replay()
        return self.result


class Replay(torch.autograd.Function):
    """A pass among torch's operations. What it gives are copies, so that the next replay changes none."""

    @staticmethod
    def forward(ctx: Any, one: Pass, used: bytes, *weights: Tensor) -> Tensor:
        ctx.one, ctx.used = one, used
        return one.logits()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Any:
        gradient = ctx.one.gradient(slope).clone()
        return None, None, *(gradient.as_strided(*place) for place in compress(ctx.one.recording.places, ctx.used))


def recorded(run: Run) -> bool:
    """Whether the run asks for recordings and its net, which a plugin may have built, has static passes."""
    return run.recipe.engine.static == "recorded" and hasattr(run.net, "static_plan")


def planned(run: Run, archs: Any) -> tuple[Static, Any] | None:
    """What is recorded of the run's supernet, and the plan of these subnets; None where they are to run as without:
    mixtures, subnets without a plan, or a net of which something was frozen or thawed since."""
    if not recorded(run) or not torch.is_grad_enabled() or not isinstance(archs[0], tuple):
        return None
    if run.static is None or run.static.net is not run.net:
        run.static = Static(run.net)
    plan = run.static.net.static_plan(archs) if run.static.as_recorded() else None
    return None if plan is None else (run.static, plan)


def prepare(run: Run, archs: Any) -> Callable[[Tensor], Tensor] | None:
    """The static pass of these subnets, images [B,C,H,W] -> logits [n,B,K]; None where they are to run as without."""
    found = planned(run, archs)
    return None if found is None else lambda images: found[0].call(images, archs, found[1])


def descend(run: Run, batch: Batch, archs: Any, weights: list[float]) -> Tensor | None:
    """Losses [n] by the default `compute_loss`, of whose weighted sum the optimizer has been given the gradients, all
    recorded as one; None where that cannot be."""
    found, optimizer = planned(run, archs), run.optimizer
    if found is None or batch.class_mask is not None:
        return None
    if not isinstance(optimizer, FlatSGD) or optimizer.net is not run.net:
        return None
    static, plan = found
    key = ("descent", batch.images.shape, batch.images.stride(), batch.images.dtype, plan[0])
    descent = static.recording(key, lambda: Descent(run, batch, archs, plan))
    if descent is None:
        return None
    losses = descent(batch, plan[1], torch.tensor(weights, dtype=descent.weights.dtype))
    optimizer.add(descent.whole, static.used(archs))
    return losses


def replayed(run: Run, forward: Callable[[Tensor], Tensor], batches: list[Batch]) -> Callable[[Tensor], Tensor]:
    """A function of images without gradients, recorded for images of the first batch's shape, if the recipe says so
    and there are enough batches for it; what it returns is overwritten by its next call."""
    if not recorded(run) or len(batches) < WORTH_RECORDING:
        return forward
    images = batches[0].images.clone()
    warm_up(lambda: forward(images))
    graph = Graph(lambda: forward(images), purpose="scoring")

    def replay(given: Tensor) -> Tensor:
        if given.shape != images.shape:
            return forward(given)
        images.copy_(given)
        return graph()

    return replay


def refuse(run: Run) -> str | None:
    """One sentence if the run asks for a static pass that its space or its device does not have."""
    if run.recipe.engine.static != "recorded":
        return None
    if not run.space.static:
        return (
            f"engine.static = recorded needs a supernet with a static pass, and {run.recipe.space}'s has none; use off."
        )
    if run.device.type != "cuda":
        return f"engine.static = recorded makes CUDA graphs, and the run is on {run.device.type}; use off."
    if processes() > 1:
        return f"engine.static = recorded is for one process, and there are {processes()}; use off."
    return None
