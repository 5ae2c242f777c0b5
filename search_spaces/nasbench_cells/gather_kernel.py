"""`gather` as one Triton kernel."""

import triton
import triton.language as tl


@triton.jit
def kernel(  # type: ignore[no-untyped-def]
    out, gate, a0, a1, a2, b0, b1, b2, tables, m0, m1, m2, count, total, height, width,
    TERMS: tl.constexpr, CHANNELS: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr, VALUES: tl.constexpr,
    SPREAD: tl.constexpr, GATED: tl.constexpr, RELU: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """A block of the rows of all pixels; CHANNELS known when compiled lets a thread load eight numbers at a time."""
    dtype: tl.constexpr = tl.float64 if EXACT else tl.float32
    lines: tl.constexpr = 3 if VALUES else 1
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid, row, pixel = at < total, at % count, at // count
    channel = tl.arange(0, PADDED)[None, :]
    here, inside = at[:, None] * CHANNELS + channel, channel < CHANNELS
    summed = tl.zeros([BLOCK, PADDED], dtype=dtype)
    for j in tl.static_range(TERMS):
        a = a0 if j == 0 else (a1 if j == 1 else a2)
        m = m0 if j == 0 else (m1 if j == 1 else m2)
        i = tl.load(tables + j * lines * count + row, mask=valid, other=-1).to(tl.int32)
        where = (pixel * m + i)[:, None] * CHANNELS + channel
        summed += tl.load(a + where, mask=(i >= 0)[:, None] & inside, other=0.0).to(dtype)
    if GATED:
        let = tl.load(gate + here, mask=valid[:, None] & inside, other=0.0).to(dtype)
        summed = tl.where(let <= 0, 0.0, summed)
    if VALUES:
        y, x = (pixel // width) % height, pixel % width
        for j in tl.static_range(TERMS):
            b = b0 if j == 0 else (b1 if j == 1 else b2)
            i = tl.load(tables + (3 * j + 1) * count + row, mask=valid, other=-1).to(tl.int32)
            where = (pixel * count + i)[:, None] * CHANNELS + channel
            summed += tl.load(b + where, mask=(i >= 0)[:, None] & inside, other=0.0).to(dtype)
            i = tl.load(tables + (3 * j + 2) * count + row, mask=valid, other=-1).to(tl.int32)
            pooled = tl.zeros([BLOCK, PADDED], dtype=dtype)
            for n in range(-1, 2):  # a loop, because all at once take more registers than there are
                for o in tl.static_range(-1, 2):
                    v, u = y + n, x + o
                    known = (i >= 0) & (v >= 0) & (v < height) & (u >= 0) & (u < width)
                    where = ((pixel + n * width + o) * count + i)[:, None] * CHANNELS + channel
                    value = tl.load(b + where, mask=known[:, None] & inside, other=0.0).to(dtype)
                    if SPREAD:
                        value = value / window(v, u, height, width).to(dtype)[:, None]
                    pooled += value
            if not SPREAD:
                pooled = pooled / window(y, x, height, width).to(dtype)[:, None]
            summed += pooled
    if RELU:
        summed = tl.where(summed < 0, 0.0, summed)  # tl.maximum would lose what is not a number
    tl.store(out + here, summed.to(out.dtype.element_ty), mask=valid[:, None] & inside)


@triton.jit
def window(y, x, height, width):  # type: ignore[no-untyped-def]
    """How many pixels of the 3x3 window at (y, x) lie inside the image."""
    down = 3 - (y == 0).to(tl.int32) - (y == height - 1).to(tl.int32)
    return down * (3 - (x == 0).to(tl.int32) - (x == width - 1).to(tl.int32))
