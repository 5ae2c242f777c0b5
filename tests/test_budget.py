"""Budgets: what can be read, and that text and value agree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasbench import BadInput
from nasbench.budget import Budget


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("keep=0.4", "keep", 0.4),
        (" keep = 1 ", "keep", 1.0),
        ("madds=300M", "madds", 3e8),
        ("madds=.5G", "madds", 5e8),
        ("params=2500K", "params", 2.5e6),
        ("params=12345", "params", 12345.0),
    ],
)
def test_what_is_read(text: str, name: str, value: float) -> None:
    assert Budget.parse(text.replace(" ", "")) == (name, value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kepp=0.4", "did you mean 'keep'"),
        ("latency=3", "known: keep, madds, params"),
        ("madds", "write it like madds=300M"),
        ("madds=300X", "write it like madds=300M"),
        ("madds=-3", "write it like madds=300M"),
        ("keep=40M", "write it like keep=0.4"),
        ("keep=1.5", "expected 0 < keep <= 1"),
        ("keep=0", "expected 0 < keep <= 1"),
        ("params=0", "expected more than 0"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Budget.parse(text)


@given(st.sampled_from(["madds", "params"]), st.integers(1, 10**12))
def test_the_text_gives_the_value_back(name: str, value: int) -> None:
    budget = Budget(name, float(value))
    assert Budget.parse(str(budget)) == budget


@given(st.integers(1, 1000))
def test_ratios_too(thousandths: int) -> None:
    budget = Budget("keep", thousandths / 1000)
    assert Budget.parse(str(budget)) == budget
