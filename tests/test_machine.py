"""What the fixed rule makes of `auto`."""

from __future__ import annotations

import platform

import pytest
import torch

from nasbench import machine
from nasbench.recipe import resolve


@pytest.mark.parametrize(
    ("processor", "bfloat16", "expected"),
    [
        ("x86_64", True, ("bfloat16", "channels_last")),
        ("x86_64", False, ("float32", "channels_last")),
        ("AMD64", False, ("float32", "channels_last")),
        ("arm64", False, ("float32", "contiguous")),
    ],
)
def test_precision_and_memory_format_follow_the_processor(
    monkeypatch: pytest.MonkeyPatch, processor: str, bfloat16: bool, expected: tuple[str, str]
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: processor)
    monkeypatch.setattr(machine, "has_bfloat16", lambda device: bfloat16)
    recipe = resolve("spos", "nb201", dataset="digits", preset="cpu", device="cpu")
    engine = machine.resolve_engine(recipe).engine
    assert (engine.precision, engine.memory_format) == expected


def test_what_a_preset_says_stands() -> None:
    engine = machine.resolve_engine(resolve("spos", "nb201", preset="quick", device="cpu")).engine
    assert (engine.precision, engine.memory_format) == ("float32", "contiguous")


def test_float32_on_a_gpu_stays_contiguous(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(machine, "has_bfloat16", lambda device: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    recipe = resolve("spos", "nb201", dataset="digits", preset="cpu", device="cuda")
    engine = machine.resolve_engine(recipe).engine
    assert (engine.precision, engine.memory_format) == ("float32", "contiguous")
