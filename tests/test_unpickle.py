"""Pickles of others: data comes out as it went in, and nothing runs."""

from __future__ import annotations

import bz2
import contextlib
import datetime
import io
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasbench import BadInput
from nasbench.unpickle import load_plain

PATH = Path("some.pickle")
PROTOCOLS = range(2, 5)


def load(content: bytes) -> Any:
    return load_plain(io.BytesIO(content), PATH)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(min_size=1),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(), inner)
        | st.dictionaries(st.integers(), inner).map(OrderedDict)
        | st.sets(st.integers())
    ),
    max_leaves=20,
)


@given(plain, st.sampled_from(PROTOCOLS))
def test_plain_containers_come_back(value: Any, protocol: int) -> None:
    back = load(pickle.dumps(value, protocol))
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["u1", "i8", "<f4", ">f8", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_numbers_come_back(protocol: int, dtype: str, order: Any) -> None:
    array = np.asarray(np.arange(6).reshape(2, 3).astype(dtype), order=order)
    back = load(pickle.dumps({"data": array}, protocol))["data"]
    assert np.array_equal(back, array)
    assert back.dtype == array.dtype.newbyteorder("=")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("value", [np.float64(1 / 3), np.float32(1 / 3), np.int64(-7), np.uint8(255)])
def test_numbers_of_numpy_come_back_as_pythons(value: Any, protocol: int) -> None:
    back = load(pickle.dumps(value, protocol))
    assert type(back) in (int, float)
    assert back == value.item()


def test_names_of_either_numpy_are_read() -> None:
    content = pickle.dumps([np.float64(2.5), np.arange(3)], 2)
    new, old = (
        content.replace(b"numpy._core", to).replace(b"numpy.core", to) for to in (b"numpy._core", b"numpy.core")
    )
    assert new != old
    for one in (new, old):
        scalar, array = load(one)
        assert (scalar, array.tolist()) == (2.5, [0, 1, 2])


class Runs:
    """Unpickled freely, it would call what it is made with."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value",
    [
        Runs(os.mkdir, "evil"),
        Runs(eval, "1"),
        Runs(getattr, "", "join"),
        Runs(np.load, "x"),
        Runs(print),
        datetime.date(2020, 1, 1),
        Path("x"),
        np.array(["a", None], object),
        np.array(["ab"]),
        np.zeros(2, [("a", "i4")]),
        np.datetime64("2020-01-01"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_is_no_data_is_refused_and_not_run(
    value: Any, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=r"some\.pickle asks for .* nothing of it was run\."):
        load(pickle.dumps([value], protocol))
    assert not list(tmp_path.iterdir())


def test_what_is_admitted_cannot_be_turned_against_the_reader() -> None:
    """An array type whose state says that its numbers are pointers stays one of numbers."""
    state = b"(I3\nS'|'\nNNNI-1\nI-1\nI63\ntb"
    eight = b"c_codecs\nencode\n(S'AAAAAAAA'\nS'latin1'\ntR"
    scalar = b"cnumpy._core.multiarray\nscalar\n(cnumpy\ndtype\n(S'%s'\ntR" + state + eight + b"tR."
    assert load(scalar % b"f8") == np.frombuffer(b"AAAAAAAA", "f8")[0]
    with pytest.raises(BadInput, match="the array type 'O8', which is no number"):
        load(scalar % b"O8")
    with pytest.raises(BadInput, match="the encoding 'rot13'"):
        load(eight.replace(b"latin1", b"rot13") + b".")


@given(st.binary(max_size=60))
def test_junk_is_read_as_data_or_damaged(content: bytes) -> None:
    """And as nothing else: no other error comes out."""
    with contextlib.suppress(BadInput):
        load(b"\x80\x04" + content)


@pytest.mark.parametrize("keep", [0, 1, 10, -1])
def test_a_truncated_file_is_damaged(keep: int) -> None:
    with pytest.raises(BadInput, match=r"some\.pickle is damaged"):
        load(pickle.dumps({"a": [1.5] * 9})[:keep])


def test_a_truncated_compressed_file_is_damaged() -> None:
    content = io.BytesIO(bz2.compress(pickle.dumps({"a": 1}))[:-15])
    with bz2.open(content) as file, pytest.raises(BadInput, match=r"some\.pickle is damaged"):
        load_plain(file, PATH)
