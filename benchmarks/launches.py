"""What a recorded step asks of a GPU, counted without one: its kernels, and the bytes that they read and write.

    python benchmarks/launches.py

A step on a GPU is bound by the number of its kernels more than by arithmetic (docs/performance.md). Each operation of
torch counts as one, or as KERNELS says; views and memory as none.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import torch
from nasbench_cells import gather, nb201_static
from nasbench_cells.nb201 import NB201
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

#: Mean and variance, the scale, and what is done with them; sums and slopes; the gradients of images and of weights.
KERNELS = {"native_batch_norm": 3, "native_batch_norm_backward": 2, "convolution_backward": 2}
FREE = {"_unsafe_view", "alias", "detach", "empty", "new_empty", "scalar_tensor"}


class Count(TorchDispatchMode):
    """Counts operations, and the bytes of their tensors, while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter[str] = Counter()
        self.bytes = 0

    def add(self, name: str, *given: Any) -> None:
        self.kernels[name] += KERNELS.get(name, 1)
        tensors = {id(t): t for t in tree_leaves(given) if isinstance(t, torch.Tensor)}.values()
        self.bytes += sum(t.numel() * t.element_size() for t in tensors)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        if not function.is_view and name not in FREE:
            self.add(name, args, kwargs, result)
        return result


def main() -> None:
    space = NB201(channels=16, cells=5, classes=10, image=(3, 32, 32))
    net, rng = space.supernet().to(memory_format=torch.channels_last), random.Random(0)
    images = torch.randn(64, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    fair = list(zip(*(rng.sample(range(5), 5) for _ in range(6)), strict=True))
    for name, archs in (("spos", [space.sample(rng)]), ("fairnas", fair)):
        kind, numbers = net.static_plan(archs)
        with Count() as count:

            def one_kernel(*args: Any, count: Count = count, **how: Any) -> torch.Tensor:
                with _disable_current_modes():
                    result = gather.gather(*args, **how)
                count.add("gather", args, how, result)
                return result

            nb201_static.gather = one_kernel  # type: ignore[attr-defined]
            with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
                logits = net.static(images, numbers, kind)
            torch.autograd.grad(logits, list(net.parameters()), torch.ones_like(logits), allow_unused=True)
        kernels = ", ".join(f"{name} {number}" for name, number in count.kernels.most_common(8))
        print(f"{name:<8} {count.kernels.total():5d} kernels   {count.bytes / 1e9:5.1f} GB   {kernels}")


if __name__ == "__main__":
    main()
