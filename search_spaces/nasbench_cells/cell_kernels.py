"""The kernels of a group of cells for n subnets, forward and backward, in Triton.

Values of nodes lie in memory as [nodes,n,P,C], P being pixels; the last node of a cell is the first of the next one.
What convolutions made of them, and gradients of that, as [6,n,P,C]; the edge from node s to node t has the number
t (t - 1) / 2 + s. Weights are 3x3 kernels of all edges of all cells, [C out,9,C in], then 1x1 ones. `codes` int32 [6,n]
is what `fused` says: how many taps the convolution of a subnet's edge has, or SKIP, POOL or 0. A program looks there
first and works on a block of pixels of a subnet, or of a subnet's edge, so the same kernels serve all subnets.
"""

from __future__ import annotations

import triton
import triton.language as tl

SKIP, POOL = tl.constexpr(-1), tl.constexpr(-2)
#: Numbers of which none is worth a kernel of its own.
LOOSE = ("n", "node", "cell", "cells", "count", "chunk", "forward", "height", "width")


@triton.jit
def edge(n, node):  # type: ignore[no-untyped-def]
    """For a program of a subnet's edge that leaves the node: which of the node's edges, its number, and the subnet."""
    j = tl.program_id(1) // n
    return j, (node + 1 + j) * (node + j) // 2 + node, tl.program_id(1) % n


@triton.jit
def tile(total, CHANNELS: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """For a program of a block of pixels: these [P], the channels [C] and which of them there are, where all that lies
    from a subnet's first number on [P,C], and whether it is there."""
    p, channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, PADDED)
    inside, here = channel < CHANNELS, p[:, None] * CHANNELS + channel[None, :]
    return p, channel, inside, here, (p < total)[:, None] & inside[None, :]


@triton.jit
def kernel(weights, e, size, cell, cells, CHANNELS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Where the kernel [C,size,C] of an edge begins: 3x3 ones of all cells lie before 1x1 ones."""
    area: tl.constexpr = CHANNELS * CHANNELS
    return weights + (size == 1).to(tl.int32) * cells * 54 * area + (cell * 6 + e) * size * area


@triton.jit
def shifted(x, p, down, right, channel, inside, height, width, total, CHANNELS: tl.constexpr):  # type: ignore[no-untyped-def]
    """What lies so far, for all channels or for each, from pixels p in their image of x [P,C]; zeros outside."""
    v, u = (p // width % height)[:, None] + down, (p % width)[:, None] + right
    known = (v >= 0) & (v < height) & (u >= 0) & (u < width)
    where = (p[:, None] + down * width + right) * CHANNELS + channel[None, :]
    return tl.load(x + where, mask=known & (p < total)[:, None] & inside[None, :], other=0.0)


@triton.jit
def rectified(x):  # type: ignore[no-untyped-def]
    """ReLU."""
    return tl.where(x < 0, 0.0, x)  # tl.maximum would lose what is not a number


@triton.jit(do_not_specialize=LOOSE)
def convolve(  # type: ignore[no-untyped-def]
    values, weights, codes, results, parts, n, node, total, height, width, cell, cells,
    CHANNELS: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr, SUMS: tl.constexpr,
):  # fmt: skip
    """Convolutions of the node's rectified values [n,P,C], and each block's sums of them and of their squared distances
    from the block's mean."""
    _, e, r = edge(n, node)
    size = tl.load(codes + e * n + r)
    if size <= 0:
        return
    p, channel, inside, here, valid = tile(total, CHANNELS, PADDED, BLOCK)
    first, slot = (9 - size) // 2, e * n + r
    x, own = values + r * total * CHANNELS, kernel(weights, e, size, cell, cells, CHANNELS)
    into = own + channel[None, :] * size * CHANNELS + channel[:, None]  # [C in, C out]
    summed = tl.zeros([BLOCK, PADDED], dtype=SUMS)
    for tap in range(first, first + size):
        taken = rectified(shifted(x, p, tap // 3 - 1, tap % 3 - 1, channel, inside, height, width, total, CHANNELS))
        taps = tl.load(into + (tap - first) * CHANNELS, mask=inside[:, None] & inside[None, :], other=0.0)
        summed = tl.dot(taken.to(taps.dtype), taps, summed, out_dtype=SUMS)
    tl.store(results + slot * total * CHANNELS + here, summed.to(results.dtype.element_ty), mask=valid)
    part = parts + (slot * tl.num_programs(0) + tl.program_id(0)) * 2 * CHANNELS + channel
    tl.store(part, tl.sum(summed, 0), mask=inside)
    tl.store(part + CHANNELS, spread(summed, valid, held(tl.program_id(0), total, BLOCK)), mask=inside)


@triton.jit
def held(block, total, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """How many pixels there are in a block."""
    return tl.minimum(total - block * BLOCK, BLOCK)


@triton.jit
def spread(x, valid, count):  # type: ignore[no-untyped-def]
    """The sum of squared distances from the mean, [C], of `count` valid rows of x, the others being zero."""
    off = tl.where(valid, x - (tl.sum(x, 0) / count)[None, :], 0.0)
    return tl.sum(off * off, 0)


@triton.jit(do_not_specialize=LOOSE)
def add_parts(  # type: ignore[no-untyped-def]
    parts, codes, sums, n, node, total, count, forward,
    CHANNELS: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr, SUMS: tl.constexpr,
):  # fmt: skip
    """For each edge that leaves the node, of its blocks' two sums [count,2,C] the means over all pixels, [2,C]; with
    `forward` the mean and the variance, of the blocks' sums and squared distances from their own means."""
    _, e, r = edge(n, node)
    if tl.load(codes + e * n + r) <= 0:
        return
    channel = tl.arange(0, PADDED)
    inside, own = channel < CHANNELS, parts + (e * n + r) * count * 2 * CHANNELS + channel[None, :]
    first, second = tl.zeros([BLOCK, PADDED], dtype=SUMS), tl.zeros([BLOCK, PADDED], dtype=SUMS)
    for begin in range(0, count, BLOCK):
        row = begin + tl.arange(0, BLOCK)[:, None]
        at, valid = own + row * 2 * CHANNELS, (row < count) & inside[None, :]
        first += tl.load(at, mask=valid, other=0.0)
        second += tl.load(at + CHANNELS, mask=valid, other=0.0)
    mean = tl.sum(first, 0) / total
    if forward:  # not by the mean of squares, of which a large mean leaves nothing
        for begin in range(0, count, BLOCK):
            row = begin + tl.arange(0, BLOCK)[:, None]
            at, valid = own + row * 2 * CHANNELS, (row < count) & inside[None, :]
            pixels = tl.where(row < count, held(row, total, BLOCK), 1)
            off = tl.load(at, mask=valid, other=0.0) / pixels - mean[None, :]
            second += tl.where(valid, off * off * pixels, 0.0)
    at = sums + (e * n + r) * 2 * CHANNELS + channel
    tl.store(at, mean, mask=inside)
    tl.store(at + CHANNELS, tl.sum(second, 0) / total, mask=inside)


@triton.jit
def mean_and_scale(sums, slot, channel, inside, CHANNELS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Of batch norm, [1,C], with torch's own epsilon."""
    own = sums + slot * 2 * CHANNELS + channel
    mean, variance = tl.load(own, mask=inside, other=0.0), tl.load(own + CHANNELS, mask=inside, other=0.0)
    return mean[None, :], (1 / tl.sqrt(variance + 1e-5))[None, :]


@triton.jit
def window(p, height, width):  # type: ignore[no-untyped-def]
    """How many pixels of the 3x3 window at p lie inside the image, [P,1]."""
    v, u = (p // width) % height, p % width
    down = 3 - (v == 0).to(tl.int32) - (v == height - 1).to(tl.int32)
    return (down * (3 - (u == 0).to(tl.int32) - (u == width - 1).to(tl.int32)))[:, None]


@triton.jit(do_not_specialize=LOOSE)
def node_values(  # type: ignore[no-untyped-def]
    values, results, sums, codes, out, n, node, total, height, width,
    CHANNELS: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr, SUMS: tl.constexpr,
):  # fmt: skip
    """A node's values [n,P,C]: normalised convolutions, the values [node,n,P,C] of nodes before it, their averages."""
    p, channel, inside, here, valid = tile(total, CHANNELS, PADDED, BLOCK)
    r, area, summed = tl.program_id(1), total * CHANNELS, tl.zeros([BLOCK, PADDED], dtype=SUMS)
    for s in range(node):
        slot = (node * (node - 1) // 2 + s) * n + r
        code = tl.load(codes + slot)
        x = values + (s * n + r) * area
        if code > 0:
            mean, scale = mean_and_scale(sums, slot, channel, inside, CHANNELS)
            result = tl.load(results + slot * area + here, mask=valid, other=0.0).to(SUMS)
            summed += (result - mean) * scale
        elif code == SKIP:
            summed += tl.load(x + here, mask=valid, other=0.0).to(SUMS)
        elif code == POOL:
            pooled = tl.zeros([BLOCK, PADDED], dtype=SUMS)
            for down in range(-1, 2):  # a loop, because all at once take more registers than there are
                for right in tl.static_range(-1, 2):
                    pooled += shifted(x, p, down, right, channel, inside, height, width, total, CHANNELS).to(SUMS)
            summed += pooled / window(p, height, width).to(SUMS)
    tl.store(out + r * area + here, summed.to(out.dtype.element_ty), mask=valid)


@triton.jit(do_not_specialize=LOOSE)
def norm_sums(  # type: ignore[no-untyped-def]
    slopes, results, sums, codes, parts, n, node, total, forward,
    CHANNELS: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr, SUMS: tl.constexpr,
):  # fmt: skip
    """Each block's sums, for the edges that leave the node: of the slopes [3-node,n,P,C] of where they go, and of the
    slopes times the normalised results; with `forward` those that `convolve` makes of its results."""
    j, e, r = edge(n, node)
    slot, area = e * n + r, total * CHANNELS
    if tl.load(codes + slot) <= 0:
        return
    _, channel, inside, here, valid = tile(total, CHANNELS, PADDED, BLOCK)
    result = tl.load(results + slot * area + here, mask=valid, other=0.0).to(SUMS)
    if forward:
        first, second = tl.sum(result, 0), spread(result, valid, held(tl.program_id(0), total, BLOCK))
    else:
        slope = tl.load(slopes + (j * n + r) * area + here, mask=valid, other=0.0).to(SUMS)
        mean, scale = mean_and_scale(sums, slot, channel, inside, CHANNELS)
        first, second = tl.sum(slope, 0), tl.sum(slope * (result - mean) * scale, 0)
    part = parts + (slot * tl.num_programs(0) + tl.program_id(0)) * 2 * CHANNELS + channel
    tl.store(part, first, mask=inside)
    tl.store(part + CHANNELS, second, mask=inside)


@triton.jit(do_not_specialize=LOOSE)
def norm_gradient(  # type: ignore[no-untyped-def]
    slopes, results, sums, moments, codes, out, n, node, total,
    CHANNELS: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr, SUMS: tl.constexpr,
):  # fmt: skip
    """The gradient of batch norm's input, for the edges that leave the node."""
    j, e, r = edge(n, node)
    slot, area = e * n + r, total * CHANNELS
    if tl.load(codes + slot) <= 0:
        return
    _, channel, inside, here, valid = tile(total, CHANNELS, PADDED, BLOCK)
    mean, scale = mean_and_scale(sums, slot, channel, inside, CHANNELS)
    result = (tl.load(results + slot * area + here, mask=valid, other=0.0).to(SUMS) - mean) * scale
    slope = tl.load(slopes + (j * n + r) * area + here, mask=valid, other=0.0).to(SUMS)
    own = moments + slot * 2 * CHANNELS + channel
    first = tl.load(own, mask=inside, other=0.0)[None, :]
    second = tl.load(own + CHANNELS, mask=inside, other=0.0)[None, :]
    slope = (slope - first - result * second) * scale
    tl.store(out + slot * area + here, slope.to(out.dtype.element_ty), mask=valid)


@triton.jit(do_not_specialize=LOOSE)
def input_gradient(  # type: ignore[no-untyped-def]
    slopes, after, values, weights, codes, out, n, node, total, height, width, cell, cells,
    CHANNELS: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr, SUMS: tl.constexpr,
):  # fmt: skip
    """The slopes of the node's values: of the slopes [3-node,n,P,C] of where its edges go, and of those after its
    convolutions, [6,n,P,C]."""
    p, channel, inside, here, valid = tile(total, CHANNELS, PADDED, BLOCK)
    r, area, summed = tl.program_id(1), total * CHANNELS, tl.zeros([BLOCK, PADDED], dtype=SUMS)
    for t in range(node + 1, 4):
        e = t * (t - 1) // 2 + node
        size = tl.load(codes + e * n + r)
        if size > 0:
            first, own = (9 - size) // 2, kernel(weights, e, size, cell, cells, CHANNELS)
            into = own + channel[:, None] * size * CHANNELS + channel[None, :]  # [C out, C in]
            y = after + (e * n + r) * area
            for tap in range(first, first + size):
                came = shifted(y, p, 1 - tap // 3, 1 - tap % 3, channel, inside, height, width, total, CHANNELS)
                taps = tl.load(into + (tap - first) * CHANNELS, mask=inside[:, None] & inside[None, :], other=0.0)
                summed = tl.dot(came, taps, summed, out_dtype=SUMS)
    let = tl.load(values + r * area + here, mask=valid, other=0.0)
    summed = tl.where(let <= 0, 0.0, summed)
    for t in range(node + 1, 4):
        code = tl.load(codes + (t * (t - 1) // 2 + node) * n + r)
        y = slopes + ((t - node - 1) * n + r) * area
        if code == SKIP:
            summed += tl.load(y + here, mask=valid, other=0.0).to(SUMS)
        elif code == POOL:
            for down in range(-1, 2):
                for right in tl.static_range(-1, 2):
                    came = shifted(y, p, down, right, channel, inside, height, width, total, CHANNELS).to(SUMS)
                    summed += came / window(p + down * width + right, height, width).to(SUMS)
    tl.store(out + r * area + here, summed.to(out.dtype.element_ty), mask=valid)


@triton.jit(do_not_specialize=LOOSE)
def weight_gradient(  # type: ignore[no-untyped-def]
    values, after, codes, parts, n, total, height, width, cells, chunk,
    CHANNELS: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr, TAPS: tl.constexpr, SUMS: tl.constexpr,
):  # fmt: skip
    """The gradient of a few taps of an edge's kernels in a chunk of the pixels of all subnets that use it."""
    groups: tl.constexpr = (9 + TAPS - 1) // TAPS + 1  # of taps; the last is the 1x1 kernel's only one
    e, group, cell = tl.program_id(1) // groups, tl.program_id(1) % groups, tl.program_id(2)
    one = group == groups - 1
    size = tl.where(one, 1, 9)
    t = 1 + (e > 0).to(tl.int32) + (e > 2).to(tl.int32)
    s, area = e - t * (t - 1) // 2, total * CHANNELS
    out, column = tl.arange(0, PADDED), tl.arange(0, TAPS * PADDED)
    tap, channel = tl.where(one, 0, group * TAPS) + column // PADDED, column % PADDED
    at = tl.where(one, 4, tap)[None, :]
    inside = (channel < CHANNELS) & (tap < size)
    summed = tl.zeros([PADDED, TAPS * PADDED], dtype=SUMS)
    begin = tl.program_id(0) * chunk
    end = tl.minimum(begin + chunk, total)
    for r in range(n):
        if tl.load(codes + e * n + r) == size:
            x = values + ((3 * cell + s) * n + r) * area
            y = after + ((6 * cell + e) * n + r) * area
            for first in range(begin, end, BLOCK):
                p = first + tl.arange(0, BLOCK)
                taken = rectified(
                    shifted(x, p, at // 3 - 1, at % 3 - 1, channel, inside, height, width, total, CHANNELS)
                )
                here, valid = p[:, None] * CHANNELS + out[None, :], (p < end)[:, None] & (out < CHANNELS)[None, :]
                slope = tl.load(y + here, mask=valid, other=0.0)
                summed = tl.dot(tl.trans(slope), taken.to(slope.dtype), summed, out_dtype=SUMS)
    own = kernel(parts + tl.program_id(0) * cells * 60 * CHANNELS * CHANNELS, e, size, cell, cells, CHANNELS)
    where = own + out[:, None] * size * CHANNELS + (tap * CHANNELS + channel)[None, :]
    tl.store(where, summed, mask=(out < CHANNELS)[:, None] & inside[None, :])
