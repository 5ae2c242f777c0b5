"""A group of cells for n subnets as one operation of torch, by torch's own or by the kernels of `cell_kernels`.

The subnets lie one after the other, [n,B,H,W,C]. `codes` int32 [6,n], on the device, says what each edge of each
subnet is. By torch every convolution is computed, and multiplied by zero where a subnet does not have it; a kernel
looks first, and does no more than it must. For its gradients all that is computed is kept.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from nasbench_cells.nb201 import CONV1, CONV3, NONE, POOL, SKIP
from nasbench_cells.operations import average_pool

#: What stands for an operation: how many taps a convolution has, none for nothing, less for what has no weights.
CODES = {NONE: 0, CONV1: 1, CONV3: 9, SKIP: -1, POOL: -2}
#: How many numbers a program works on.
NUMBERS = 4096
#: Pixels of which one program adds up its part of a kernel's gradient.
CHUNK = 1024


def cells(x: Tensor, threes: Tensor, ones: Tensor, codes: Tensor) -> Tensor:
    """Cells one after the other, [n,B,H,W,C] to the same; their kernels [cells,6,C out,9,C in] and [cells,6,C,1,C]."""
    by_triton = 7 * len(threes) * x.numel() < 2**31 and triton_works(x.device, x.dtype, x.shape[-1])  # int32 in there
    return Cells.apply(x, threes, ones, codes) if by_triton else cells_by_torch(x, threes, ones, codes)


def norm(x: Tensor) -> Tensor:
    """Batch norm of each subnet by itself, [n,B,H,W,C] to the same, without scale or shift."""
    by_triton = x.numel() < 2**31 and triton_works(x.device, x.dtype, x.shape[-1])
    return Norm.apply(x.contiguous()) if by_triton else norm_by_torch(x)


# ---------------------------------------------------------------------- by torch


def cells_by_torch(x: Tensor, threes: Tensor, ones: Tensor, codes: Tensor) -> Tensor:
    """`cells` by torch's operations."""
    for of_threes, of_ones in zip(threes, ones, strict=True):
        edges = list(zip(of_threes, of_ones, codes.view(6, -1, 1, 1, 1, 1), strict=True))
        values = [x]
        for node in (1, 2, 3):
            mine = edges[node * (node - 1) // 2 :]
            values.append(torch.stack([edge_by_torch(*each) for each in zip(values, mine, strict=False)]).sum(0))
        x = values[3]
    return x


def edge_by_torch(x: Tensor, of: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """All that an edge can be, times whether it is."""
    three, one, code = of
    kernel = torch.where(code[..., 0] == CODES[CONV3], three, F.pad(one, (0, 0, 4, 4))).to(x.dtype)  # [n,C,9,C]
    kernel = kernel.flatten(0, 1).transpose(1, 2).unflatten(2, (3, 3))
    made = F.conv2d(side_by_side(F.relu(x)), kernel, padding=1, groups=len(x))
    averages = one_by_one(average_pool(side_by_side(x)), len(x))
    convolved = norm_by_torch(one_by_one(made, len(x)))
    return convolved * (code > 0) + x * (code == CODES[SKIP]) + averages * (code == CODES[POOL])


def norm_by_torch(x: Tensor) -> Tensor:
    """`norm` by torch's operations."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    variance, mean = torch.var_mean(wide, (1, 2, 3), correction=0, keepdim=True)
    return ((wide - mean) * (variance + 1e-5).rsqrt()).to(x.dtype)


def side_by_side(x: Tensor) -> Tensor:
    """[n,B,H,W,C] as images [B,n*C,H,W]."""
    return x.permute(1, 0, 4, 2, 3).flatten(1, 2)


def one_by_one(images: Tensor, n: int) -> Tensor:
    """Images [B,n*C,H,W] as [n,B,H,W,C]."""
    return images.unflatten(1, (n, -1)).permute(1, 0, 3, 4, 2)


# ---------------------------------------------------------------------- by Triton


@cache
def triton_works(device: torch.device, dtype: torch.dtype, channels: int) -> bool:
    """Whether Triton builds the kernels here, for which it needs a C compiler, and they do what torch does."""
    if device.type != "cuda":
        return False
    try:
        why = differences(device, dtype, channels)
    except Exception as error:  # whatever a compiler, a driver or an older Triton may say
        why = f"{type(error).__name__}: {error}".splitlines()[0]
    if why:
        warnings.warn(
            f"Triton's kernels cannot be used ({why}): recorded steps run without, slower and in more memory; "
            "engine.static=off records nothing.",
            stacklevel=2,
        )
    return not why


def differences(device: torch.device, dtype: torch.dtype, channels: int, image: Sequence[int] = (8, 17, 18)) -> str:
    """In words, whether what the kernels do is twice as far from the same in float64 as what torch does in this dtype;
    nothing if all is well. `image` is [B,H,W]."""
    draw = torch.Generator().manual_seed(0)
    values, kernels = (3, *image, channels), (2, 6, channels)
    shapes = (values, (*kernels, 9, channels), (*kernels, 1, channels), values)
    numbers = [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes]
    numbers[0] += 10  # so that batch norm has means to take away
    codes = torch.tensor([[9, 1, -1], [-2, 9, 0], [1, -1, 9], [-1, 0, 1], [9, -2, 9], [0, 1, -2]], dtype=torch.int32)
    by_torch: Any = (cells_by_torch, norm_by_torch)
    by_triton: Any = (Cells.apply, Norm.apply)
    found = []
    for kind, (each_cell, each_norm) in ((torch.float64, by_torch), (dtype, by_torch), (dtype, by_triton)):
        x, threes, ones, slope = (each.to(device, kind) for each in numbers)
        given = [each.requires_grad_() for each in (x, threes, ones)]
        with torch.enable_grad():
            made = each_norm(each_cell(*given, codes.to(device)))
        found.append([each.detach().double() for each in (made, *torch.autograd.grad(made, given, slope))])
    for exact, theirs, mine in zip(*found, strict=True):
        far, at_most = ((each - exact).norm() / exact.norm() for each in (mine, theirs))
        if not far <= 2 * at_most + 1e-10:  # so that NaN is none of them
            return f"results are off by {far:.1%}, torch's by {at_most:.1%}"
    return ""


class Launch:
    """Launches kernels for values [n,B,H,W,C] and their `codes`; keeps what the blocks of pixels sum up."""

    def __init__(self, x: Tensor, codes: Tensor) -> None:
        import triton.language as tl

        from nasbench_cells import cell_kernels

        self.kernels: Any = cell_kernels
        self.codes, (self.n, *_, channels) = codes, x.shape
        self.total, self.sides = x[0, ..., 0].numel(), x.shape[2:4]
        self.padded = max(16, 1 << (channels - 1).bit_length())  # a matrix product takes no fewer
        self.block = NUMBERS // self.padded
        self.blocks = -(-self.total // self.block)
        exact = x.dtype == torch.float64
        self.fixed = {"CHANNELS": channels, "PADDED": self.padded, "SUMS": tl.float64 if exact else tl.float32}
        self.parts = new_sums(x, len(codes), self.n, self.blocks, 2, channels)

    def __call__(self, kernel: str, count: int, *given: Any) -> None:
        """A kernel for every block of pixels of so many edges or subnets."""
        getattr(self.kernels, kernel)[(self.blocks, count)](*given, BLOCK=self.block, **self.fixed)

    def add_parts(self, count: int, sums: Tensor, node: int, forward: int) -> None:
        """What the blocks of so many edges have summed."""
        size = (self.n, node, self.total, self.blocks, forward)
        self.kernels.add_parts[(1, count)](self.parts, self.codes, sums, *size, BLOCK=self.block, **self.fixed)

    def weight_gradient(self, values: Tensor, after: Tensor, weights: Tensor, cells: int) -> Tensor:
        """The gradient of the weights."""
        chunks, taps = -(-self.total // CHUNK), max(1, 64 // self.padded)
        parts, groups = new_sums(weights, chunks, len(weights)), -(-9 // taps) + 1
        size = (self.n, self.total, *self.sides, cells, CHUNK)
        self.kernels.weight_gradient[(chunks, 6 * groups, cells)](
            values, after, self.codes, parts, *size, BLOCK=64, TAPS=taps, **self.fixed
        )
        return parts.sum(0)


def new_sums(like: Tensor, *shape: int) -> Tensor:
    """An empty tensor of the precision at which numbers are added up."""
    return like.new_empty(shape, dtype=torch.promote_types(like.dtype, torch.float32))


class Cells(torch.autograd.Function):
    """Cells one after the other, [n,B,H,W,C] to the same, with kernels [cells,6,C,9,C] and [cells,6,C,1,C] and `codes`
    int32 [6,n]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, threes: Tensor, ones: Tensor, codes: Tensor) -> Tensor:
        launch, cells, n = Launch(x, codes), len(threes), len(x)
        weights = torch.cat([threes.flatten(), ones.flatten()]).to(x.dtype)
        values, results = x.new_empty(3 * cells + 1, *x.shape), x.new_empty(cells, 6, *x.shape)
        sums, size = new_sums(x, cells, 6, n, 2, x.shape[-1]), (launch.total, *launch.sides)
        values[0] = x
        for cell in range(cells):
            for node in range(3):
                edges, of = (3 - node) * n, values[3 * cell :]
                where = (codes, results[cell], launch.parts, n, node, *size, cell, cells)
                launch("convolve", edges, of[node], weights, *where)
                launch.add_parts(edges, sums[cell], node, 1)
                launch("node_values", n, of, results[cell], sums[cell], codes, of[node + 1], n, node + 1, *size)
        ctx.launch, ctx.cells, ctx.places = launch, cells, (threes.shape, ones.shape)
        ctx.save_for_backward(values, results, sums, weights)
        return values[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Any:
        launch, cells = ctx.launch, ctx.cells
        values, results, sums, weights = ctx.saved_tensors
        n, codes, size = launch.n, launch.codes, (launch.total, *launch.sides)
        slopes, after, moments = torch.empty_like(values), torch.empty_like(results), torch.empty_like(sums[0])
        slopes[-1] = slope
        for cell in reversed(range(cells)):
            for node in (2, 1, 0):
                edges, at, (y, own) = (3 - node) * n, 3 * cell + node, (results[cell], sums[cell])
                came = slopes[at + 1 :]
                launch("norm_sums", edges, came, y, own, codes, launch.parts, n, node, launch.total, 0)
                launch.add_parts(edges, moments, node, 0)
                launch("norm_gradient", edges, came, y, own, moments, codes, after[cell], n, node, launch.total)
                launch(
                    "input_gradient",
                    n,
                    came,
                    after[cell],
                    values[at],
                    weights,
                    codes,
                    slopes[at],
                    n,
                    node,
                    *size,
                    cell,
                    cells,
                )
        found = launch.weight_gradient(values, after, weights, cells).split([shape.numel() for shape in ctx.places])
        return slopes[0], *(part.view(shape) for part, shape in zip(found, ctx.places, strict=True)), None


class Norm(torch.autograd.Function):
    """Batch norm of each subnet by itself, [n,B,H,W,C] to the same: that of a cell's first edge."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        n = len(x)
        launch = Launch(x, torch.ones(1, n, dtype=torch.int32, device=x.device))
        sums, out = new_sums(x, n, 2, x.shape[-1]), torch.empty_like(x)
        launch("norm_sums", n, x, x, sums, launch.codes, launch.parts, n, 0, launch.total, 1)
        launch.add_parts(n, sums, 0, 1)
        launch("node_values", n, x, x, sums, launch.codes, out, n, 1, launch.total, *launch.sides)
        ctx.launch = launch
        ctx.save_for_backward(x, sums)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        launch, (x, sums), slope = ctx.launch, ctx.saved_tensors, slope.contiguous()
        n, moments, out = launch.n, torch.empty_like(sums), torch.empty_like(x)
        launch("norm_sums", n, slope, x, sums, launch.codes, launch.parts, n, 0, launch.total, 0)
        launch.add_parts(n, moments, 0, 0)
        launch("norm_gradient", n, slope, x, sums, moments, launch.codes, out, n, 0, launch.total)
        return out
