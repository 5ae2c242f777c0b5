"""What a training step holds in memory, counted: the same number on every machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Saved:
    """Bytes of the tensors that a forward pass keeps for the backward pass."""

    total: int = 0


@contextmanager
def saved_tensors(net: nn.Module) -> Iterator[Saved]:
    """Count, inside the block, what is saved for the backward pass, each storage once; the network's own is not."""
    known = {t.untyped_storage().data_ptr() for t in (*net.parameters(), *net.buffers())}
    found = Saved()

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            known.add(storage.data_ptr())
            found.total += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found


def held(net: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Bytes of parameters, buffers and optimizer state."""
    states: list[Any] = [value for state in optimizer.state.values() for value in state.values()]
    tensors = [*net.parameters(), *net.buffers(), *(value for value in states if isinstance(value, Tensor))]
    return sum(t.numel() * t.element_size() for t in tensors)
