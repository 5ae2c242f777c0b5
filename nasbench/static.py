"""`engine.static`: the subnets of an iteration as one pass that never changes, which can be recorded and replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from nasbench.running import Run
    from nasbench.space import Arch


def order_of(archs: list[Arch]) -> tuple[tuple[tuple[int, ...], ...], torch.Tensor] | None:
    """For subnets that differ on every decision, or agree on it: the options of each decision, sorted, and which of
    them each subnet takes (int64 [decisions, n]). None for others."""
    columns = list(zip(*archs, strict=True))
    ops = tuple(tuple(sorted(set(column))) for column in columns)
    if any(len(options) not in (1, len(archs)) for options in ops):
        return None
    places = [[options.index(o) for o in column] for options, column in zip(ops, columns, strict=True)]
    return ops, torch.tensor(places)


class Static:
    """A supernet's `static(images, order, ops)`, as it is or compiled.

    Compiled on CUDA it is replayed as CUDA graphs, one for each `ops`, with the images and the order as inputs. On
    a CPU only the tracing is done: the operations then run one by one, as they do without.
    """

    def __init__(self, net: Any, mode: str, device: torch.device) -> None:
        self.net, self.call = net, net.static
        if mode == "compiled":
            how: dict[str, Any] = {"mode": "reduce-overhead"} if device.type == "cuda" else {"backend": "aot_eager"}
            self.call = torch.compile(net.static, fullgraph=True, dynamic=False, **how)


def prepare(run: Run, archs: Any) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """The static pass of these subnets, images [B,C,H,W] -> logits [n,B,K]; None where they are to run as without."""
    mode = run.recipe.engine.static
    if mode == "off" or not torch.is_grad_enabled() or len(archs) < 2 or not isinstance(archs[0], tuple):
        return None
    known = order_of(archs)
    if known is None:
        return None
    if run.static is None or run.static.net is not run.net:
        run.static = Static(run.net, mode, run.device)
    static, (ops, order) = run.static, known
    return lambda images: static.call(images, order.to(images.device), ops)


def forget_unused(run: Run, archs: Any) -> None:
    """After a static pass, take back the gradients, all zero, of what no subnet's output depends on: like everything
    outside the sampled subnets it is not to be updated."""
    if run.static is None or run.recipe.train.update_scope == "all":
        return
    used = run.static.net.used(archs)
    for name, parameter in run.static.net.named_parameters():
        if name not in used:
            parameter.grad = None


def refuse(run: Run) -> str | None:
    """One sentence if the run asks for a static pass that its space does not have."""
    mode, space = run.recipe.engine.static, run.recipe.space
    if mode != "off" and not run.space.static:
        return f"engine.static = {mode} needs a supernet with a static pass, and {space}'s has none; use off."
    return None
