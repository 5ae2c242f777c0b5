"""Rows of tensors by tables that lie on the device: what moves activations between subnets in a recorded pass."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor


def pick(sources: Sequence[Tensor], table: Tensor) -> Tensor:
    """Sums of rows: [B,H,W,M,C] each and a table int64 [J,R] to [B,H,W,R,C], sum_j rows[table[j]].

    The rows of the (at most three) sources are numbered one source after the other; the number after the last stands
    for zeros.
    """
    first = sources[0]
    largest = max(table.shape[1], *(s.shape[3] for s in sources)) * first[..., 0, :].numel()
    if first.is_cuda and largest < 2**31 and find_spec("triton"):  # it counts in int32
        return _on_gpu(sources, table)
    rows = torch.cat([*sources, first.new_zeros(*first.shape[:3], 1, first.shape[4])], 3)
    result = rows.index_select(3, table[0])
    for numbers in table[1:]:
        result = result + rows.index_select(3, numbers)
    return result


def _on_gpu(sources: Sequence[Tensor], table: Tensor) -> Tensor:
    """One kernel that reads and writes each number once, where cat, index_select and sums pass over them several times
    (docs/performance.md)."""
    first, (terms, rows) = sources[0], table.shape
    *images, channels = *first.shape[:3], first.shape[4]
    result = first.new_empty(*images, rows, channels)
    given = [s.contiguous() for s in (*sources, first, first)[:3]]
    ends = [sum(s.shape[3] for s in sources[: i + 1]) for i in range(3)]
    kernel, language, triton = _kernel()
    width = triton.next_power_of_2(channels)
    block = max(1, 2048 // width)
    exact = language.float64 if first.dtype == torch.float64 else language.float32
    count = result.numel() // channels
    kernel[(-(-count // block),)](result, *given, table, *ends, rows, channels, count, terms, block, width, exact)
    return result


@lru_cache(maxsize=1)
def _kernel() -> Any:
    import triton
    import triton.language as tl

    @triton.jit
    def kernel(  # type: ignore[no-untyped-def]
        out, a, b, c, table, end_a, end_b, end_c, rows, channels, count,
        TERMS: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr, EXACT: tl.constexpr,
    ):  # fmt: skip
        at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)  # of the rows of all pixels
        row, pixel, channel = at % rows, at // rows, tl.arange(0, WIDTH)[None, :]
        valid = (at < count)[:, None] & (channel < channels)
        total = tl.zeros([BLOCK, WIDTH], dtype=EXACT)
        for term in tl.static_range(TERMS):
            i = tl.load(table + term * rows + row, mask=at < count, other=0).to(tl.int32)
            in_a = (pixel * end_a + i)[:, None] * channels + channel
            in_b = (pixel * (end_b - end_a) + i - end_a)[:, None] * channels + channel
            in_c = (pixel * (end_c - end_b) + i - end_b)[:, None] * channels + channel
            i = i[:, None]
            total += tl.load(a + in_a, mask=valid & (i < end_a), other=0.0).to(EXACT)
            total += tl.load(b + in_b, mask=valid & (i >= end_a) & (i < end_b), other=0.0).to(EXACT)
            total += tl.load(c + in_c, mask=valid & (i >= end_b) & (i < end_c), other=0.0).to(EXACT)
        tl.store(out + at[:, None] * channels + channel, total.to(out.dtype.element_ty), mask=valid)

    return kernel, tl, triton
