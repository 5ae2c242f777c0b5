"""Sums of rows by tables on the device."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from nasbench_cells.gather import as_images, as_rows, gather, triton_works
from torch import Tensor
from torch.utils._pytree import tree_map


def rows_of(count: int, seed: int, dtype: torch.dtype = torch.float64, side: int = 3, channels: int = 2) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(2, side, side + 1, count, channels, generator=draw, dtype=torch.float64).to(dtype)


def plain(rows: Tensor, table: list[int]) -> Tensor:
    """Row by row, -1 for zeros."""
    return torch.stack([torch.zeros_like(rows[..., 0, :]) if i < 0 else rows[..., i, :] for i in table], 3)


def pooled(rows: Tensor, kind: str) -> Tensor:
    """By torch's own pooling, or its gradient for a slope of these rows."""
    images = as_images(rows).contiguous()
    at = torch.zeros_like(images).requires_grad_()
    average = F.avg_pool2d(images if kind == "average" else at, 3, 1, 1, count_include_pad=False)
    found = average if kind == "average" else torch.autograd.grad(average, at, images)[0]
    return as_rows(found, rows.shape[4])


@settings(max_examples=60)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(1, 5), st.data())
def test_rows_are_chosen_and_added_up(sizes: list[int], count: int, data: st.DataObject) -> None:
    k, kind = len(sizes), data.draw(st.sampled_from(["average", "spread"]))
    rows, values = [rows_of(m, i) for i, m in enumerate(sizes)], [rows_of(count, 10 + i) for i in range(k)]

    def table(largest: int) -> list[int]:
        return data.draw(st.lists(st.integers(-1, largest), min_size=count, max_size=count))

    tables = [[table(m - 1), table(count - 1), table(count - 1)] for m in sizes]
    gate = rows_of(count, 20).relu()
    first = sum(plain(each, table[0]) for each, table in zip(rows, tables, strict=True))
    second = sum(
        plain(each, table[1]) + plain(pooled(each, kind), table[2]) for each, table in zip(values, tables, strict=True)
    )
    every, only = torch.tensor(tables), torch.tensor([each[:1] for each in tables])
    assert torch.allclose(gather(rows, only), first)
    assert torch.allclose(gather(rows, only, relu=True), first.clamp_min(0))
    assert torch.allclose(gather(rows, every, values, pooling=kind), first + second)
    assert torch.allclose(gather(rows, every, values, pooling=kind, gate=gate), first * (gate > 0) + second)


#: Sizes of the rows, rows of the result, channels, side.
SHAPES = [([4], 1, 4, 5), ([6, 5, 4], 5, 3, 4), ([5, 2], 5, 16, 3), ([3], 1, 1, 1), ([2, 2, 2], 3, 64, 2)]


def calls(shape: Any, dtype: torch.dtype) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """What a cell asks for, in this shape: arguments of `gather`."""
    sizes, count, channels, side = shape
    draw = torch.Generator().manual_seed(0)
    tables = torch.stack(
        [
            torch.stack([torch.randint(-1, end, (count,), generator=draw) for end in (size, count, count)])
            for size in sizes
        ]
    )
    rows = [rows_of(size, i, dtype, side, channels) for i, size in enumerate(sizes)]
    values = [rows_of(count, 10 + i, dtype, side, channels) for i in range(len(sizes))]
    only, gate = tables[:, :1].contiguous(), rows_of(count, 20, dtype, side, channels).relu()
    return [
        ((rows, only), {}),
        ((rows[:1], only[:1]), {"relu": True}),
        ((rows, tables, values), {}),
        ((rows, tables, values), {"pooling": "spread", "gate": gate}),
    ]


#: In bfloat16 a sum is rounded once instead of after each term.
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2}


def doubled(given: Any) -> Any:
    """Its numbers in float64."""
    return tree_map(
        lambda each: each.double() if isinstance(each, Tensor) and each.is_floating_point() else each, given
    )


def test_the_kernel_does_the_same_in_tritons_interpreter() -> None:
    """Without a GPU: what it computes, though not how fast."""
    pytest.importorskip("triton")
    program = """
from functools import partial
import torch
from nasbench_cells import gather, nb201_static
from tests.nasbench_cells.test_gather import SHAPES, TOLERANCES, calls, doubled
from tests.nasbench_cells.test_nb201_static import assert_one_by_one, fair

assert gather.triton_works(torch.device("cpu"), torch.bfloat16)
by_torch, by_triton = (partial(gather.gather, by=by) for by in (gather.by_torch, gather.by_triton))

for dtype, tolerance in TOLERANCES.items():
    for shape in SHAPES[1:4] if dtype == torch.float64 else SHAPES[1:2]:
        for arguments, how in calls(shape, dtype):
            found, exact = by_triton(*arguments, **how), by_torch(*doubled(arguments), **doubled(how))
            assert torch.allclose(found.double(), exact, rtol=tolerance, atol=tolerance)
nan, all_rows = torch.full((1, 1, 1, 2, 16), torch.nan), torch.tensor([[[0, 1]]])
shut = torch.zeros_like(nan)
for by in (by_torch, by_triton):  # as torch's ReLU and its gradient
    assert by([nan], all_rows, relu=True).isnan().all() and by([nan], all_rows, gate=nan).isnan().all()
    assert not by([nan], all_rows, gate=shut).any()
nb201_static.gather = by_triton
for archs in (fair(1, shared=2), fair(2)[:1]):  # whole supernets, forward and backward
    assert_one_by_one(archs, torch.channels_last)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def compiled(channels: int, terms: int, subnets: int, **flags: bool) -> Any:
    """The kernel for an H100 and bfloat16, which needs no GPU. Triton takes numbers that are 1 as known."""
    pytest.importorskip("triton", "3.3")
    from nasbench_cells.gather_kernel import kernel
    from triton import compiler
    from triton.backends.compiler import GPUTarget

    fixed: dict[str, Any] = {"TERMS": terms, "CHANNELS": channels, "PADDED": channels, "BLOCK": 1024 // channels}
    fixed |= {"VALUES": False, "SPREAD": False, "GATED": False, "RELU": False, "EXACT": False, **flags}
    names = [p.name for p in kernel.params]
    tensors, sizes = names[: names.index("tables")], names[names.index("tables") + 1 : -len(fixed)]
    signature = {**dict.fromkeys(tensors, "*bf16"), "tables": "*i64", **dict.fromkeys(sizes, "i32")}
    fixed |= dict.fromkeys(("m0", "m1", "m2", "count"), 1) if subnets == 1 else {}
    signature |= dict.fromkeys(fixed, "constexpr")
    aligned = {(i,): [["tt.divisibility", 16]] for i in range(len(tensors) + 1)}  # as torch's memory is
    source = compiler.ASTSource(fn=kernel, signature=signature, constexprs=fixed, attrs=aligned)
    return compiler.compile(source, target=GPUTarget("cuda", 90, 32))


@pytest.mark.parametrize("subnets", [1, 5])
@pytest.mark.parametrize("channels", [16, 64])
def test_the_kernel_compiles_for_a_gpu_and_moves_eight_numbers_at_a_time(channels: int, subnets: int) -> None:
    for flags in ({"RELU": True}, {"VALUES": True}, {"VALUES": True, "SPREAD": True, "GATED": True}):
        code = compiled(channels, 3, subnets, **flags).asm["ptx"]
        assert "ld.global.v4.b32" in code  # of 32 bits each
        assert "st.global.v4.b32" in code
        assert "global.b16" not in code


def test_where_triton_cannot_build_the_kernel_torch_does_the_work_and_it_is_said() -> None:
    with pytest.warns(UserWarning, match=r"Triton's kernel cannot be used \(.+\): recorded steps run without it"):
        assert not triton_works(torch.device("cpu"), torch.bfloat16)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_triton_works_on_a_gpu(dtype: torch.dtype) -> None:
    assert triton_works(torch.device("cuda"), dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_kernel_is_what_torch_does(shape: Any, dtype: torch.dtype) -> None:
    for arguments, how in calls(shape, dtype):
        given, options = tree_map(lambda each: each.cuda() if isinstance(each, Tensor) else each, (arguments, how))
        found, exact = gather(*given, **options).cpu(), gather(*doubled(arguments), **doubled(how))
        assert torch.allclose(found.double(), exact, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype])
