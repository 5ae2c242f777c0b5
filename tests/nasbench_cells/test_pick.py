"""Rows of tensors by tables on the device."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nasbench_cells.pick import pick


@settings(max_examples=60)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(1, 3), st.integers(1, 5), st.data())
def test_rows_are_picked_and_added_up(sizes: list[int], terms: int, rows: int, data: st.DataObject) -> None:
    sources = [torch.arange(2 * 3 * 1 * m * 5.0).view(2, 3, 1, m, 5) + 1000 * i for i, m in enumerate(sizes)]
    numbers = st.lists(st.integers(0, sum(sizes)), min_size=rows, max_size=rows)
    table = data.draw(st.lists(numbers, min_size=terms, max_size=terms))
    every = [source[..., i, :] for source in sources for i in range(source.shape[3])] + [torch.zeros(2, 3, 1, 5)]
    expected = torch.stack([sum((every[line[r]] for line in table), torch.zeros(2, 3, 1, 5)) for r in range(rows)], 3)
    assert torch.equal(pick(sources, torch.tensor(table)), expected)


def test_the_kernel_does_the_same_in_tritons_interpreter() -> None:
    """Without a GPU: what it computes, though not how fast."""
    pytest.importorskip("triton")
    program = """
import torch
from nasbench_cells import pick

draw = torch.Generator().manual_seed(0)
for sizes, terms, rows, channels in (([4], 1, 6, 4), ([6, 5, 5], 1, 5, 3), ([5, 5], 2, 5, 8), ([3], 3, 1, 1)):
    sources = [torch.randn(2, 3, 1, m, channels, generator=draw) for m in sizes]
    table = torch.randint(0, sum(sizes) + 1, (terms, rows), generator=draw)
    assert torch.allclose(pick.pick(sources, table), pick._on_gpu(sources, table))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [16, 12, 1, 64])
def test_the_kernel_is_what_torch_does(dtype: torch.dtype, channels: int) -> None:
    """In bfloat16 a sum is rounded once instead of after each term."""
    generator = torch.Generator().manual_seed(channels)
    for sizes, terms, rows in (([4], 1, 6), ([6, 5, 5], 1, 5), ([5, 5, 5], 1, 6), ([5, 5], 2, 5), ([3], 3, 1)):
        sources = [torch.randn(2, 7, 5, m, channels, generator=generator).to(dtype) for m in sizes]
        table = torch.randint(0, sum(sizes) + 1, (terms, rows), generator=generator)
        found = pick([source.cuda() for source in sources], table.cuda()).cpu()
        exact = pick([source.double() for source in sources], table)
        assert torch.equal(found, exact.to(dtype)) if terms == 1 else torch.allclose(found.double(), exact, rtol=0.01)
