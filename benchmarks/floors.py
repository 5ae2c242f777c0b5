"""How far the engine is from what this machine could do at all: the two floors of a training step.

    python benchmarks/floors.py

The operations' floor divides the multiply-adds of a mean subnet (forward once, backward twice) by the rate of a
large matrix product; the bytes' floor divides what must be read and written by the rate of a large copy. Each
operation is charged for its inputs and outputs once forward and twice backward, as if nothing stayed in a cache.

The third floor is that of torch's own kernels: those of an operation, forward and backward, called in a bare loop with
no autograd and no Python around them, beside what the operation adds to a step of the engine and of the reference.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable

import reference
import torch
import torch.nn.functional as F
from nasbench_cells.nb201 import CONV1, CONV3, NB201, POOL, SKIP
from nasbench_cells.nb201_networks import live_steps
from nasbench_cells.operations import relu_conv_norm

from nasbench import Arch
from nasbench.machine import keep_freed_memory

BATCH = 64
SCORED = 256


def seconds(call: Callable[[], object], least: float = 1.0) -> float:
    """Median time of a call."""
    call()
    times: list[float] = []
    while sum(times) < least:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def multiply_rate(dtype: torch.dtype, size: int = 2048) -> float:
    """Multiply-adds a second of a large matrix product."""
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    return size**3 / seconds(lambda: a @ b)


def copy_rate(count: int = 64 << 20) -> float:
    """Bytes a second, read and written, of a copy that fits no cache."""
    a, b = torch.zeros(count, dtype=torch.uint8), torch.zeros(count, dtype=torch.uint8)
    return 2 * count / seconds(lambda: b.copy_(a))


def activation_bytes(space: NB201, arch: Arch, width: int) -> int:
    """Bytes of activations that one image's forward pass reads and writes, `width` bytes a number."""
    channels, (_, height, side) = space.channels, space.image
    passes = {CONV1: 6, CONV3: 6, POOL: 2, SKIP: 0}  # ReLU, convolution, batch norm: each in and out
    cell = sum(passes[step.op] + 3 for step in live_steps(arch))  # and the sum: two in, one out
    numbers = 4 * channels * height * side  # the stem's convolution and batch norm
    for group in range(3):
        size = (channels << group) * (height >> group) * (side >> group)
        numbers += space.cells * cell * size + (16 * size if group else 0)
    return numbers * width


def step_seconds(space: NB201, archs: list[Arch], low: bool) -> float:
    """Mean time of a forward and backward pass of a batch, one subnet after the other."""
    net = space.supernet().to(memory_format=torch.channels_last)
    images = torch.randn(BATCH, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels, times = torch.arange(BATCH) % 10, []
    for arch in archs[:28]:
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=low, cache_enabled=False):
            logits = net(images, [arch])[0]
        F.cross_entropy(logits.float(), labels).backward()
        net.zero_grad()
        times.append(time.perf_counter() - start)
    return statistics.fmean(times[4:])


def kernel_seconds(channels: int, side: int, kernel: int, count: int = 15) -> float:
    """Time of the kernels of one ReLU-convolution-norm, the mean of a chain, forward and then backward."""
    aten, pad = torch.ops.aten, kernel // 2
    layout = {"dtype": torch.bfloat16, "memory_format": torch.channels_last}
    weight = torch.randn(channels, channels, kernel, kernel).to(**layout)
    images = torch.randn(BATCH, channels, side, side).to(**layout)

    def call() -> None:
        x, kept = images, []
        for _ in range(count):
            a = F.relu(x)
            b = F.conv2d(a, weight, None, 1, pad)
            x, mean, scale = aten.native_batch_norm(b, None, None, None, None, True, 0.1, 1e-5)
            kept.append((a, b, mean, scale))
        g = x
        for a, b, mean, scale in reversed(kept):
            none = [True, False, False]
            g = aten.native_batch_norm_backward(g, b, None, None, None, mean, scale, True, 1e-5, none)[0]
            sizes = ([1, 1], [pad, pad], [1, 1], False, [0, 0], 1, [True, True, False])
            g = aten.convolution_backward(g, a, weight, None, *sizes)[0]
            g = aten.threshold_backward(g, a, 0)

    return seconds(call, 2.0) / count


def reference_seconds(arch: Arch) -> float:
    """The plain reference's forward and backward pass."""
    net, images, labels = reference.Supernet(16, 5), torch.randn(BATCH, 3, 32, 32), torch.arange(BATCH) % 10
    return seconds(lambda: F.cross_entropy(net(images, arch), labels).backward(), 2.0)


def kernels_floor(space: NB201) -> None:
    """What one operation on the last edge of each of the 15 cells adds to a step, beside its kernels alone."""
    empty, count = (0, 0, 0, SKIP, 0, 0), 3 * space.cells
    engine, plain = step_seconds(space, [empty] * 28, low=True), reference_seconds(empty)
    for op, name, kernel in ((CONV3, "3x3 convolution", 3), (CONV1, "1x1 convolution", 1), (POOL, "pooling", None)):
        arch = (0, 0, 0, op, 0, 0)
        ours, theirs = step_seconds(space, [arch] * 28, low=True) - engine, reference_seconds(arch) - plain
        stages = [(space.channels << i, space.image[1] >> i) for i in range(3)]
        line = (
            f"{name}: reference {1e3 * theirs / count:.2f} ms, engine {1e3 * ours / count:.2f} ms, {theirs / ours:.1f}"
        )
        if kernel:
            alone = statistics.fmean(kernel_seconds(c, side, kernel) for c, side in stages)
            line += f"; kernels alone {1e3 * alone:.2f} ms, {theirs / count / alone:.1f}"
        print(line)


def scoring_kernel_seconds(channels: int, side: int, kernel: int, dtype: torch.dtype, count: int = 15) -> float:
    """Time of the kernels of one ReLU-convolution-norm forward, the mean of a chain, as the engine scores."""
    weight, images = (
        torch.randn(shape).to(dtype, memory_format=torch.channels_last)
        for shape in ((channels, channels, kernel, kernel), (SCORED, channels, side, side))
    )

    def call() -> None:
        x = images
        for _ in range(count):
            x = relu_conv_norm(x, weight)

    with torch.inference_mode():
        return seconds(call, 2.0) / count


def scoring_seconds(forward: Callable[[Arch], object], arch: Arch) -> float:
    """Time of a pass without gradients."""
    with torch.inference_mode():
        return seconds(lambda: forward(arch), 3.0)


def scoring_floor(space: NB201, archs: list[Arch]) -> None:
    """The same for a pass of SCORED images without gradients: its operations, and the mean of a few subnets, of which
    pooling and sums are taken to cost nothing."""
    empty, count = (0, 0, 0, SKIP, 0, 0), 3 * space.cells
    plain, images = reference.Supernet(space.channels, space.cells), torch.randn(SCORED, 3, 32, 32)
    net = space.supernet().to(memory_format=torch.channels_last)
    ours = images.contiguous(memory_format=torch.channels_last)
    outside = scoring_seconds(lambda arch: plain(images, arch), empty)
    rest = scoring_seconds(lambda arch: net(ours, [arch]), empty)
    alone: dict[int, float] = {}
    for op, name, kernel in ((CONV3, "3x3 convolution", 3), (CONV1, "1x1 convolution", 1)):
        each = (scoring_seconds(lambda arch: plain(images, arch), (0, 0, 0, op, 0, 0)) - outside) / count
        stages = [(space.channels << i, space.image[1] >> i) for i in range(3)]
        times = {
            dtype: statistics.fmean(scoring_kernel_seconds(c, side, kernel, dtype) for c, side in stages)
            for dtype in (torch.float32, torch.bfloat16)
        }
        alone[op] = min(times.values())
        print(
            f"scoring, {name}: reference {1e3 * each:.2f} ms; "
            + ", ".join(f"kernels alone in {d} {1e3 * t:.2f} ms, {each / t:.1f}" for d, t in times.items())
        )
    theirs = statistics.fmean(scoring_seconds(lambda arch: plain(images, arch), arch) for arch in archs)
    least = rest + count * statistics.fmean(sum(alone.get(s.op, 0.0) for s in live_steps(a)) for a in archs)
    print(
        f"scoring, mean of {len(archs)} subnets: reference {1e3 * theirs:.0f} ms, the convolutions that matter and "
        f"everything outside the edges ({1e3 * rest:.0f} ms) {1e3 * least:.0f} ms, {theirs / least:.1f} at most"
    )


def main() -> None:
    keep_freed_memory()
    space, rng = NB201(), random.Random(0)
    archs = [space.sample(rng) for _ in range(64)]
    madds = statistics.fmean(space.cost(arch)["madds"] for arch in archs)
    print(f"mean subnet at C={space.channels}, N={space.cells}: {madds / 1e6:.1f} M multiply-adds an image")
    bandwidth = copy_rate()
    print(f"copy: {bandwidth / 1e9:.1f} GB/s")
    for dtype, width in ((torch.float32, 4), (torch.bfloat16, 2)):
        rate = multiply_rate(dtype)
        traffic = statistics.fmean(activation_bytes(space, arch, width) for arch in archs)
        operations, moved = 3 * madds * BATCH / rate, 3 * traffic * BATCH / bandwidth
        measured = step_seconds(space, archs, low=width == 2)
        print(
            f"{dtype}: matrix product {rate / 1e9:.0f} G multiply-adds/s; a step of {BATCH}: operations' floor "
            f"{1e3 * operations:.0f} ms, bytes' floor {1e3 * moved:.0f} ms, measured {1e3 * measured:.0f} ms"
        )
    kernels_floor(space)
    scoring_floor(space, archs[:8])


if __name__ == "__main__":
    main()
