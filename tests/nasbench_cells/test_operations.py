"""The operations of a cell against torch's own, forward and backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from nasbench_cells.operations import average_pool, batch_norm, is_narrow, padded_average, relu, relu_conv_norm
from torch import Tensor

layouts = st.sampled_from([torch.contiguous_format, torch.channels_last])
shapes = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 9), st.integers(1, 9))


def noise(shape: tuple[int, ...], layout: Any = torch.contiguous_format, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).contiguous(
        memory_format=layout
    )


def torch_pool(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


@settings(max_examples=40)
@given(shapes, layouts, layouts)
def test_average_pooling_is_torchs_forward_and_backward(shape: tuple[int, ...], layout: Any, other: Any) -> None:
    """In either layout, also when the gradient comes in another one; the input is left alone."""
    ours, theirs = (noise(shape, layout).requires_grad_() for _ in range(2))
    before = ours.detach().clone()
    gradient = noise(shape, other, seed=1)
    a, b = average_pool(ours), torch_pool(theirs)
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    a.backward(gradient)
    b.backward(gradient)
    assert ours.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-10)
    assert ours.detach().equal(before)
    if shape[1] > 1 and min(shape[2:]) > 1:
        assert a.is_contiguous(memory_format=layout)


def test_average_pooling_has_the_gradient_of_what_it_computes() -> None:
    assert torch.autograd.gradcheck(average_pool, noise((2, 3, 4, 5)).requires_grad_())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_average_pooling_in_bfloat16_is_off_by_its_rounding(layout: Any) -> None:
    """A sum and a factor are rounded, each by at most 2**-8."""
    x = noise((4, 16, 8, 8), layout).bfloat16()
    exact = torch_pool(x.double())
    scale = torch_pool(x.double().abs())
    assert ((average_pool(x).double() - exact).abs() <= 3 * 2.0**-8 * scale).all()


@settings(max_examples=20)
@given(st.sampled_from([1, 3]), st.sampled_from([1, 2]), layouts)
def test_a_bias_before_the_batch_norm_would_have_no_effect(kernel: int, stride: int, layout: Any) -> None:
    x, weight, bias = noise((5, 3, 6, 4), layout), noise((2, 3, kernel, kernel), seed=1), noise((2,), seed=2)
    z = F.conv2d(x.clamp(min=0), weight, bias, stride, kernel // 2)
    variance, mean = torch.var_mean(z, (0, 2, 3), correction=0, keepdim=True)
    plain = (z - mean) / (variance + 1e-5).sqrt()
    torch.testing.assert_close(relu_conv_norm(x, weight, stride), plain, rtol=1e-10, atol=1e-10)


@settings(max_examples=30)
@given(st.integers(1, 5), st.integers(1, 20), st.sampled_from([8, 16, 20]), st.sampled_from([16, 32]), layouts)
def test_batch_norm_is_torchs_with_and_without_gradients(n: int, c: int, height: int, width: int, layout: Any) -> None:
    """Without them a narrow image is normalised several pixels at a time."""
    x = (3 * noise((n, c, height, width)) + 7).contiguous(memory_format=layout)
    plain = F.batch_norm(x, None, None, training=True)
    assert batch_norm(x).equal(plain)
    with torch.no_grad():
        found = batch_norm(x)
    torch.testing.assert_close(found, plain, rtol=1e-10, atol=1e-10)
    if c > 1:
        assert is_narrow(x) == (c <= 16 and height * width >= 256 and layout == torch.channels_last)
        assert found.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("channels", [8, 16, 32])
def test_batch_norm_in_bfloat16_is_off_by_its_rounding(channels: int) -> None:
    x = (3 * noise((16, channels, 16, 16), torch.channels_last) + 7).bfloat16()
    exact = F.batch_norm(x.double(), None, None, training=True)
    with torch.no_grad():
        error = (batch_norm(x).double() - exact).abs()
    # torch keeps the mean (7) and the deviation (3) in bfloat16 where channels are many.
    assert error.max() <= 2.0**-8 * (exact.abs().max() + 7 / 3)


def test_relu_of_bits_is_relu() -> None:
    """Every bfloat16 but those that are no number."""
    x = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.bfloat16)
    x = x[~x.isnan()]
    with torch.no_grad():
        assert relu(x).equal(F.relu(x))
    assert len(x) == 2**16 - 2 * 127


@pytest.mark.gpu
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pooling_on_a_gpu_has_the_gradient_of_a_cpu(layout: Any, stride: int) -> None:
    """torch's own does not in channels_last where there is padding."""
    pools = [padded_average(stride), average_pool] if stride == 1 else [padded_average(stride)]
    for pool in pools:
        here, there = noise((2, 4, 8, 8), layout).requires_grad_(), noise((2, 4, 8, 8), layout).cuda().requires_grad_()
        a, b = pool(here), pool(there)
        gradient = noise(tuple(a.shape), layout, seed=1)
        a.backward(gradient)
        b.backward(gradient.cuda())
        assert here.grad is not None
        assert there.grad is not None
        torch.testing.assert_close(there.grad.cpu(), here.grad, rtol=1e-10, atol=1e-10)
