"""Sums of rows by tables that lie on the device: what moves activations between subnets in a recorded pass."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from nasbench_cells.operations import average_pool, inverse_count_like, window_sum


def gather(
    rows: Sequence[Tensor],
    tables: Tensor,
    means: Sequence[Tensor] = (),
    *,
    kind: Literal["average", "spread"] = "average",
    relu: bool = False,
    gate: Tensor | None = None,
) -> Tensor:
    """A sum over k terms of rows that tables choose, [B,H,W,R,C].

    Term j takes one row of `rows[j]` [B,H,W,M_j,C], by `tables[j, 0]` int64 [R]; and, where there are `means`, also one
    row of `means[j]` [B,H,W,R,C], as it is by `tables[j, 1]`, and as what 3x3 average pooling makes of it by
    `tables[j, 2]` (kind "spread": what the pooling's gradient makes of it). -1 stands for zeros. At most three terms.
    `relu` rectifies the sum; `gate` [B,H,W,R,C] lets the rows of `rows` through where it is positive.
    """
    first = rows[0]
    largest = max(tables.shape[2], *(each.shape[3] for each in rows)) * first[..., 0, :].numel()
    if first.is_cuda and largest < 2**31 and find_spec("triton"):  # it counts in int32
        return _on_gpu(rows, tables, means, kind, relu, gate)
    total = sum((_chosen(each, table[0]) for each, table in zip(rows, tables, strict=True)), first.new_zeros(()))
    if gate is not None:
        total = total * (gate > 0)
    for each, table in zip(means, tables, strict=bool(means)):
        total = total + _chosen(each, table[1]) + _chosen(_pooled(each, kind), table[2])
    return F.relu(total) if relu else total


def _chosen(rows: Tensor, table: Tensor) -> Tensor:
    return F.pad(rows, (0, 0, 0, 1)).index_select(3, table % (rows.shape[3] + 1))  # -1 is the row of zeros


def _pooled(rows: Tensor, kind: str) -> Tensor:
    images = as_images(rows)
    images = average_pool(images) if kind == "average" else window_sum(images * inverse_count_like(images))
    return as_rows(images, rows.shape[4])


def as_images(x: Tensor) -> Tensor:
    """[B,H,W,R,C] as images [B,R*C,H,W] in channels_last."""
    return x.flatten(3).permute(0, 3, 1, 2)


def as_rows(x: Tensor, channels: int) -> Tensor:
    """Images [B,R*C,H,W] as [B,H,W,R,C]."""
    return x.permute(0, 2, 3, 1).unflatten(3, (-1, channels))


def _on_gpu(
    rows: Sequence[Tensor], tables: Tensor, means: Sequence[Tensor], kind: str, relu: bool, gate: Tensor | None
) -> Tensor:
    """One kernel that reads and writes each number once, where torch's operations pass over them several times."""
    from nasbench_cells.gather_kernel import kernel

    first, (terms, _, count) = rows[0], tables.shape
    *images, channels = *first.shape[:3], first.shape[4]
    result = first.new_empty(*images, count, channels)
    a, b = ([*(each.contiguous() for each in given), *[first] * 3][:3] for given in (rows, means))
    width = 1 << (channels - 1).bit_length()
    block = max(1, 1024 // width)
    of_all = result.numel() // channels
    kernel[(-(-of_all // block),)](
        result, first if gate is None else gate.contiguous(), *a, *b, tables, *(each.shape[3] for each in a), count,
        of_all, *images[1:], terms, channels, width, block, len(means) > 0, kind == "spread", gate is not None, relu,
        first.dtype == torch.float64,
    )  # fmt: skip
    return result
