"""Several processes train one supernet: `torchrun --nproc-per-node N -m nasbench run ...`.

All do the same, from the same random streams: they sample the same subnets, and each takes its share of every batch.
Before an update their gradients are averaged, so a step is that of one process that averages over the shares; batch
norm sees a share. Whatever composes with `update` composes with this. Only rank 0 writes.
"""

from __future__ import annotations

import atexit
import dataclasses
import os
import random
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import PrivateAttr

from nasbench import hookimpl
from nasbench.plugins import Plugin, hooks_of, reachable

if TYPE_CHECKING:
    import torch

    from nasbench.data import Batch
    from nasbench.running import Run
    from nasbench.space import Arch, SearchSpace


def launched() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def rank() -> int:
    """Index of this process among those of the run; 0 writes."""
    return int(os.environ["RANK"]) if launched() else 0


def local_rank() -> int:
    """Index of this process among those on this machine, and of its GPU."""
    return int(os.environ["LOCAL_RANK"]) if launched() else 0


def processes() -> int:
    """How many processes share each batch (the world size)."""
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def start(device: torch.device) -> None:
    """Choose the GPU, and meet the other processes, once: over NCCL on GPUs, else over gloo."""
    import torch
    import torch.distributed as dist

    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)  # streams, graphs and generators are the current device's
    if processes() > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(dist.destroy_process_group)


def together() -> None:
    """Wait until every process is here."""
    if processes() > 1:
        import torch.distributed as dist

        dist.barrier()


class Share(Plugin):
    """What several processes do differently from one; registered only where there are several."""

    priority: ClassVar[int] = (
        1000  # outermost: the batch is cut last, and everyone around `update` sees averaged gradients
    )
    _share: float | None = PrivateAttr(None)
    """The part of the step's batch that this process has; None where the step took the batch as it was."""

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        count, sizes = processes(), run.recipe.train.batch_size
        if "update" not in reachable(run.manager) or "train_step" not in reachable(run.manager):
            return f"{run.recipe.method} has no supernet loop that {count} processes could share; run it in one."
        for name, plugin in run.plugins.items():
            if "train_step" in hooks_of(run.manager, plugin):
                return f"{name} trains more than the supernet in a step, which {count} processes cannot share."
        last = len(run.data.train) % sizes or sizes
        if last < 2 * count:
            return (
                f"{count} processes need 2 images each of every batch, and the smallest of an epoch has {last}; "
                f"change train.batch_size = {sizes} or data.train_images."
            )
        if run.recipe.engine.sync_batch_norm:
            if run.device.type != "cuda":
                return "engine.sync_batch_norm needs CUDA, as torch's SyncBatchNorm does; leave it false on a CPU."
            if not normalises_by_modules(run.space):
                return (
                    f"engine.sync_batch_norm finds no batch norm of torch at work in the supernet of {run.space.name}."
                )
        return None

    @hookimpl(wrapper=True)
    def build_supernet(self, run: Run) -> Generator[None, torch.nn.Module, torch.nn.Module]:
        import torch

        net = yield
        return torch.nn.SyncBatchNorm.convert_sync_batchnorm(net) if run.recipe.engine.sync_batch_norm else net

    @hookimpl(wrapper=True)
    def prepare_batch(self, run: Run, batch: Batch) -> Generator[None, Batch, Batch]:
        whole = yield
        part = slice(*(len(whole.labels) * (rank() + i) // processes() for i in (0, 1)))
        mask = None if whole.class_mask is None else whole.class_mask[part]
        share = dataclasses.replace(whole, images=whole.images[part], labels=whole.labels[part], class_mask=mask)
        self._share = len(share.labels) / len(whole.labels)
        return share

    @hookimpl(wrapper=True)
    def update(self, run: Run, archs: list[Arch]) -> Generator[None, bool, bool]:
        weight = 1 / processes() if self._share is None else self._share
        average([p.grad for p in run.net.parameters() if p.grad is not None], weight)
        self._share = None
        return (yield)


def normalises_by_modules(space: SearchSpace) -> bool:
    """Whether all batch norm in the supernet is done by torch's modules, which can be made to see other processes'
    images; a supernet may as well call the function, with a module's weights or none."""
    import torch
    from torch.overrides import TorchFunctionMode

    calls = {"modules": 0, "all": 0}

    class Count(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            calls["all"] += func is torch.nn.functional.batch_norm
            return func(*args, **(kwargs or {}))

    def count(*_: Any) -> None:
        calls["modules"] += 1

    net = space.supernet()
    for module in net.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.register_forward_hook(count)
    with Count():
        net(torch.zeros(2, *space.image), [space.sample(random.Random(0))])
    return calls["modules"] == calls["all"] > 0


def average(gradients: list[torch.Tensor], weight: float) -> None:
    """Replace gradients, in place, by their sum over the processes, weighted by the share that each comes from."""
    import torch
    import torch.distributed as dist

    flat = torch.cat([g.flatten() for g in gradients]).mul_(weight)
    dist.all_reduce(flat)
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def same(net: Any) -> None:
    """Give every process rank 0's buffers: the statistics that batch norm keeps are each process's own."""
    if processes() > 1 and net is not None:
        import torch.distributed as dist

        for buffer in net.buffers():
            dist.broadcast(buffer, 0)
