"""A group of cells for several subnets, by torch and by Triton's kernels."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from nasbench_cells import fused

DTYPES = (torch.float64, torch.float32, torch.bfloat16)


def test_the_kernels_do_the_same_in_tritons_interpreter() -> None:
    """Without a GPU: what they compute, though not how fast."""
    pytest.importorskip("triton", "3.3")
    program = """
import torch
import triton.language as tl
from nasbench_cells import fused
from nasbench_cells.cell_kernels import add_parts

fused.NUMBERS, fused.CHUNK = 1024, 12
for channels in (40, 3):  # two blocks of the 20 pixels and a tap at a time; one block and four taps
    assert fused.differences(torch.device("cpu"), torch.float64, channels, (1, 4, 5)) == ""
x = torch.randn(635, 3, dtype=torch.float64) + 100  # 40 blocks of up to 16 pixels, and their sums 16 at a time
blocks = x.split(16)
parts, sums = torch.zeros(6, 1, len(blocks), 2, 3, dtype=torch.float64), torch.zeros(6, 1, 2, 3, dtype=torch.float64)
parts[5, 0] = torch.stack([torch.stack([b.sum(0), (b - b.mean(0)).square().sum(0)]) for b in blocks])
how = {"CHANNELS": 3, "PADDED": 16, "BLOCK": 16, "SUMS": tl.float64}
add_parts[(1, 1)](parts, torch.ones(6, 1, dtype=torch.int32), sums, 1, 2, len(x), len(blocks), 1, **how)
assert torch.allclose(sums[5, 0], torch.stack([x.mean(0), x.var(0, correction=0)]))
x, codes = torch.zeros(2, 1, 2, 2, 3), torch.tensor([[9, -2]] * 6, dtype=torch.int32)
x[0, 0, 0, 0, 0] = x[1, 0, 0, 0, 1] = torch.nan  # as torch's operations, which lose none
for cells in (fused.cells_by_torch, fused.Cells.apply):
    made = cells(x, torch.ones(1, 6, 3, 9, 3), torch.ones(1, 6, 3, 1, 3), codes).isnan()
    assert made[0].all() and made[1, ..., 1].all()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def compiled(name: str, channels: int) -> Any:
    """A kernel for an H100 and bfloat16, which needs no GPU."""
    pytest.importorskip("triton", "3.3")
    import triton.language as tl
    from nasbench_cells import cell_kernels
    from triton import compiler
    from triton.backends.compiler import GPUTarget

    kernel = getattr(cell_kernels, name)
    block = 64 if name == "weight_gradient" else 4096 // channels
    fixed = {"CHANNELS": channels, "PADDED": channels, "BLOCK": block, "SUMS": tl.float32}
    if name == "weight_gradient":
        fixed["TAPS"] = 64 // channels
    types = {
        **dict.fromkeys(fixed, "constexpr"),
        "codes": "*i32",
        "parts": "*fp32",
        "sums": "*fp32",
        "moments": "*fp32",
    }
    types |= dict.fromkeys(("values", "weights", "results", "out", "slopes", "after"), "*bf16")
    signature = {p.name: types.get(p.name, "i32") for p in kernel.params}
    aligned = [i for i, kind in enumerate(signature.values()) if kind.startswith("*")]  # as torch's memory is
    attrs = {(i,): [["tt.divisibility", 16]] for i in aligned}
    source = compiler.ASTSource(fn=kernel, signature=signature, constexprs=fixed, attrs=attrs)
    return compiler.compile(source, target=GPUTarget("cuda", 90, 32))


@pytest.mark.parametrize("channels", [16, 64])
@pytest.mark.parametrize(
    "name", ["convolve", "add_parts", "node_values", "norm_sums", "norm_gradient", "input_gradient", "weight_gradient"]
)
def test_a_kernel_compiles_for_a_gpu_and_moves_eight_numbers_at_a_time(name: str, channels: int) -> None:
    code = compiled(name, channels).asm["ptx"]
    assert "ld.global.v4.b32" in code or "cp.async.cg.shared.global" in code  # of 32 bits each
    assert "global.b16" not in code
    if name in ("convolve", "input_gradient", "weight_gradient"):  # by matrix units
        assert "mma" in code


def test_where_triton_cannot_build_the_kernels_torch_does_the_work_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu = torch.device("cuda")
    for said in ("results are off by 3.0%, torch's by 0.1%", RuntimeError("no C compiler\nat all")):

        def differences(*given: Any, said: Any = said) -> str:
            if isinstance(said, Exception):
                raise said
            return str(said)

        monkeypatch.setattr(fused, "differences", differences)
        fused.triton_works.cache_clear()
        with pytest.warns(UserWarning, match=r"Triton's kernels cannot be used \((results|RuntimeError: no).+\): "):
            assert not fused.triton_works(gpu, torch.bfloat16, 16)
    fused.triton_works.cache_clear()


@pytest.mark.gpu
@pytest.mark.parametrize("channels", [16, 32, 64, 5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_triton_works_on_a_gpu(dtype: torch.dtype, channels: int) -> None:
    assert fused.differences(torch.device("cuda"), dtype, channels) == ""
    assert fused.triton_works(torch.device("cuda"), dtype, channels)
