"""Sums of rows by tables that lie on the device: what moves activations between subnets in a recorded pass."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from nasbench_cells.operations import average_pool, inverse_count_like, window_sum


def gather(
    rows: Sequence[Tensor],
    tables: Tensor,
    values: Sequence[Tensor] = (),
    *,
    pooling: Literal["average", "spread"] = "average",
    relu: bool = False,
    gate: Tensor | None = None,
    by: Callable[..., Tensor] | None = None,
) -> Tensor:
    """A sum over at most three terms of rows that tables choose, [B,H,W,R,C].

    Term j takes one row of `rows[j]` [B,H,W,M_j,C], by `tables[j, 0]` int64 [R]; where there are `values`, also one row
    of `values[j]` [B,H,W,R,C], as it is by `tables[j, 1]`, and as what 3x3 average pooling makes of it by
    `tables[j, 2]` ("spread": what the pooling's gradient makes of it). -1 stands for zeros.
    `relu` rectifies the sum; `gate` [B,H,W,R,C] lets the rows of `rows` through where it is positive.
    `by` is `by_torch` or `by_triton`; None takes Triton's kernel where it can be used.
    """
    if by is None:
        first = rows[0]
        largest = max(tables.shape[2], *(each.shape[3] for each in rows)) * first[..., 0, :].numel()
        fits = largest < 2**31  # the kernel counts in int32
        by = by_triton if first.is_cuda and fits and triton_works(first.device, first.dtype) else by_torch
    return by(rows, tables, values, pooling, relu, gate)


def by_torch(
    rows: Sequence[Tensor], tables: Tensor, values: Sequence[Tensor], pooling: str, relu: bool, gate: Tensor | None
) -> Tensor:
    """`gather` by torch's operations, each of which passes over all numbers."""
    total, *others = (_chosen(each, table[0]) for each, table in zip(rows, tables, strict=True))
    for other in others:
        total = total + other
    if gate is not None:
        total = total.masked_fill(gate <= 0, 0.0)
    for value, table in zip(values, tables, strict=bool(values)):
        images = as_images(value)
        images = average_pool(images) if pooling == "average" else window_sum(images * inverse_count_like(images))
        total = total + _chosen(value, table[1]) + _chosen(as_rows(images, value.shape[4]), table[2])
    return F.relu(total) if relu else total


def _chosen(rows: Tensor, table: Tensor) -> Tensor:
    return F.pad(rows, (0, 0, 0, 1)).index_select(3, table % (rows.shape[3] + 1))  # -1 is the row of zeros


def as_images(x: Tensor) -> Tensor:
    """[B,H,W,R,C] as images [B,R*C,H,W] in channels_last."""
    return x.flatten(3).permute(0, 3, 1, 2)


def as_rows(x: Tensor, channels: int) -> Tensor:
    """Images [B,R*C,H,W] as [B,H,W,R,C]."""
    return x.permute(0, 2, 3, 1).unflatten(3, (-1, channels))


def by_triton(
    rows: Sequence[Tensor], tables: Tensor, values: Sequence[Tensor], pooling: str, relu: bool, gate: Tensor | None
) -> Tensor:
    """`gather` by one kernel, in one pass."""
    from nasbench_cells.gather_kernel import kernel

    first, (terms, lines, count) = rows[0], tables.shape
    assert lines == (3 if values else 1)
    *sizes, channels = *first.shape[:3], first.shape[4]
    result = first.new_empty(*sizes, count, channels)
    a, b = ([*(each.contiguous() for each in given), *[first] * 3][:3] for given in (rows, values))
    padded = 1 << (channels - 1).bit_length()
    block = max(1, 1024 // padded)  # eight numbers a thread: one access of bfloat16, and no register too many
    total = result.numel() // channels
    kernel[(-(-total // block),)](
        result, first if gate is None else gate.contiguous(), *a, *b, tables.contiguous(),
        *(each.shape[3] for each in a), count, total, *sizes[1:], terms, channels, padded, block, len(values) > 0,
        pooling == "spread", gate is not None, relu, first.dtype == torch.float64,
    )  # fmt: skip
    return result


@cache
def triton_works(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether Triton builds the kernel here, for which it needs a C compiler, and in all forms in which a cell calls it
    the kernel does what torch does."""
    numbers = torch.randn(7, 2, 4, 5, 3, 16, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    tolerance = 1e-2 if dtype.itemsize == 2 else 1e-5
    try:
        found = [gather(*given, **how, by=by_triton).double() for given, how in _forms(numbers)]
        exact = [gather(*given, **how, by=by_torch) for given, how in _forms(numbers.double())]
        same = all(torch.allclose(*both, rtol=tolerance, atol=tolerance) for both in zip(found, exact, strict=True))
        why = "" if same else "its result is not torch's"
    except Exception as error:  # whatever a compiler, a driver or an older Triton may say
        why = f"{type(error).__name__}: {error}".splitlines()[0]
    if why:
        warnings.warn(f"Triton's kernel cannot be used ({why}): recorded steps run without it, slower.", stacklevel=2)
    return not why


def _forms(numbers: Tensor) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Arguments of each form in which a cell calls `gather`, from numbers [7,B,H,W,3,C]."""
    rows, values, gate = [numbers[0], numbers[1, ..., :2, :], numbers[2]], [*numbers[3:6]], numbers[6].relu()
    tables = torch.tensor(
        [
            [[2, 0, -1], [0, -1, 1], [1, -1, -1]],
            [[1, -1, 0], [-1, 2, 0], [0, 1, 2]],
            [[-1, 2, 1], [0, 0, -1], [-1, 0, 1]],
        ]
    ).to(numbers.device)
    yield (rows[:1], tables[:1, :1]), {"relu": True}
    for k in (1, 2, 3):
        yield (rows[:k], tables[:k, :1]), {}
        yield (rows[:k], tables[:k], values[:k]), {}
        yield (rows[:k], tables[:k], values[:k]), {"pooling": "spread", "gate": gate}
