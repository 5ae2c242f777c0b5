"""`engine.static`: the subnets of a step as one pass that never changes, which a GPU records once and replays.

A supernet offers it as `static(images [B,C,H,W], numbers int64 [L], kind) -> logits [n,B,K]`: the same kernels in the
same order for all subnets of a kind, with nothing that the host has to wait for. `static_plan(archs)` gives the kind,
anything hashable, and the numbers that tell its members apart, an input like the images; or None for subnets that have
no such pass. `used(archs)` names the parameters that an output depends on. What is recorded is a copy of the net with
the same weights: averages that it keeps, or hooks, do not reach the net itself.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nasbench.data import to_device
from nasbench.distributed import processes

if TYPE_CHECKING:
    from nasbench.data import Batch
    from nasbench.running import Run
    from nasbench.space import Arch


#: Batches from which on scoring is recorded: it takes four passes and some waiting to record one.
WORTH_RECORDING = 5
#: Passes recorded for a net, each of which keeps its activations; others run as without.
MOST_RECORDINGS = 16


class Static:
    """A supernet's static passes, recorded for each shape of images and each kind of subnets."""

    def __init__(self, net: Any) -> None:
        self.net = net
        self.parameters = {name: p for name, p in net.named_parameters() if p.requires_grad}
        self.recordings: dict[Any, Recording] = {}

    def call(self, images: Tensor, archs: list[Arch], plan: tuple[Hashable, Tensor]) -> Tensor:
        """Logits [n,B,K] of subnets by their plan."""
        kind, numbers = plan[0], to_device(plan[1], images.device)
        key = (images.shape, images.stride(), kind)
        if key not in self.recordings:
            if len(self.recordings) == MOST_RECORDINGS:
                plain: Tensor = self.net(images, archs)
                return plain
            self.recordings[key] = Recording(self.net, images, numbers, kind)
        recording, used = self.recordings[key], self.net.used(archs)
        names = [name for name in recording.places if name in used]
        result: Tensor = Replay.apply(recording, images, numbers, names, *(self.parameters[name] for name in names))
        return result


class Recording:
    """A static pass and its gradients as CUDA graphs, which replay on whatever is copied into their inputs."""

    def __init__(self, net: Any, images: Tensor, numbers: Tensor, kind: Hashable) -> None:
        self.images, self.numbers = images.clone(), numbers.clone()
        # Weights of their own in the same memory: what torch remembers of the others, such as the stream that they
        # were last used on, must not enter a recording.
        self.net = copy.deepcopy(net)
        for mine, theirs in zip(self.net.parameters(), net.parameters(), strict=True):
            mine.data = theirs.data
        self.parameters = {name: p for name, p in self.net.named_parameters() if p.requires_grad}
        with torch.no_grad():
            self.slope = torch.ones_like(self.net.static(self.images, self.numbers, kind))
        #: Where each gradient lies in what `gradients` gives: shape, strides, offset.
        self.places: dict[str, tuple[Any, Any, int]] = {}
        self.held: object = None
        """Whose pass was replayed last and has its gradients still to come."""

        def forward() -> Tensor:
            self.logits: Tensor = self.net.static(self.images, self.numbers, kind)
            return self.logits.detach()

        warm_up(lambda: (forward(), self.gradients()))
        del self.logits  # and with it what torch remembers of the stream it was computed on
        self.forward_graph = Graph(forward)
        self.backward_graph = Graph(self.gradients, pool=self.forward_graph.pool)

    def gradients(self) -> Tensor:
        """All gradients of the last pass in one tensor [N], so that one copy takes them."""
        with torch.autocast(self.images.device.type, enabled=False):  # as backward passes run
            found = torch.autograd.grad(self.logits, list(self.parameters.values()), self.slope, allow_unused=True)
        parts, size = [], 0
        for (name, parameter), gradient in zip(self.parameters.items(), found, strict=True):
            if gradient is not None:
                self.places[name] = (parameter.shape, parameter.stride(), size)
                order = sorted(range(parameter.dim()), key=parameter.stride, reverse=True)  # as it lies in memory
                parts.append(gradient.permute(order).reshape(-1))
                size += parameter.numel()
        return torch.cat(parts)


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
    """A recording among torch's operations. What it gives are copies, so that the next replay changes none."""

    @staticmethod
    def forward(
        ctx: Any, recording: Recording, images: Tensor, numbers: Tensor, names: list[str], *weights: Tensor
    ) -> Tensor:
        ctx.recording, ctx.images, ctx.numbers, ctx.names = recording, images, numbers, names
        ctx.weights, ctx.versions = weights, [w._version for w in weights]
        return Replay.run(ctx).clone()

    @staticmethod
    def run(ctx: Any) -> Tensor:
        """Replay the forward pass on the inputs of this one."""
        recording: Recording = ctx.recording
        recording.images.copy_(ctx.images)
        recording.numbers.copy_(ctx.numbers)
        recording.held = ctx
        return recording.forward_graph()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Any:
        recording: Recording = ctx.recording
        if [w._version for w in ctx.weights] != ctx.versions:
            raise RuntimeError("The weights have changed since the pass whose gradients are asked for.")
        if recording.held is not ctx:  # another pass came between, or these gradients are asked for again
            Replay.run(ctx)
        recording.held = None  # the gradients overwrite what they are computed from
        recording.slope.copy_(slope)
        flat = recording.backward_graph().clone()
        return None, None, None, None, *(flat.as_strided(*recording.places[name]) for name in ctx.names)


def recorded(run: Run) -> bool:
    """Whether the run asks for recordings and its net, which a plugin may have built, has static passes."""
    return run.recipe.engine.static == "recorded" and hasattr(run.net, "static_plan")


def prepare(run: Run, archs: Any) -> Callable[[Tensor], Tensor] | None:
    """The static pass of these subnets, images [B,C,H,W] -> logits [n,B,K]; None where they are to run as without."""
    if not recorded(run) or not torch.is_grad_enabled() or not isinstance(archs[0], tuple):
        return None
    if run.static is None or run.static.net is not run.net:
        run.static = Static(run.net)
    static, plan = run.static, run.net.static_plan(archs)
    return None if plan is None else lambda images: static.call(images, archs, plan)


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
