"""Checkpoints: what goes in comes out, damage is recognised, nothing half-written stays."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nasbench import BadInput
from nasbench.stages import Store, pack, python_stream, stream, torch_stream, unpack

DTYPES = [
    torch.float64,
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
]
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    shape = draw(st.lists(st.integers(0, 3), max_size=4))
    values = torch.randn(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    return (values * 10).to(draw(st.sampled_from(DTYPES)))


keys = st.integers() | st.text() | st.booleans() | st.tuples(st.integers(), st.text())
states = st.recursive(
    plain | tensors(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(keys, inner, max_size=4) | st.tuples()
    ),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    """Equal in value, type, order and, for tensors, in every bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return type(b) is dict and same(list(a), list(b)) and same(list(a.values()), list(b.values()))
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@given(states)
def test_unpack_undoes_pack(state: Any) -> None:
    assert same(unpack(pack(state)), state)


def test_special_floats_survive() -> None:
    special = [float("inf"), float("-inf"), float("nan"), -0.0, 5e-324]
    back = unpack(pack(special))
    assert list(map(repr, back)) == list(map(repr, special))
    assert torch.equal(unpack(pack(torch.tensor(special))).isnan(), torch.tensor(special).isnan())


def test_tensors_that_share_memory_come_back_apart() -> None:
    whole = torch.arange(6.0).view(2, 3)
    back = unpack(pack({"whole": whole, "part": whole[:, 1], "turned": whole.t()}))
    assert torch.equal(back["part"], whole[:, 1])
    assert torch.equal(back["turned"], whole.t())
    back["whole"].zero_()
    assert back["part"].tolist() == [1, 4]


def test_a_packed_state_does_not_change_later() -> None:
    tensor = torch.zeros(2)
    content = pack(tensor)
    tensor += 1
    assert unpack(content).tolist() == [0, 0]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_memory_format_survives(layout: torch.memory_format) -> None:
    tensor = torch.randn(2, 3, 4, 5).to(memory_format=layout)
    back = unpack(pack(tensor))
    assert back.stride() == tensor.stride()
    assert torch.equal(back, tensor)


def test_sizes_come_back_as_tuples() -> None:
    assert same(unpack(pack(torch.zeros(2, 3).shape)), (2, 3))


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", lambda: 0, 1j])
def test_what_no_file_can_hold_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="a checkpoint cannot hold"):
        pack({"value": [value]})


# ---------------------------------------------------------------------- streams


def test_streams_depend_on_all_of_their_key_and_nothing_else() -> None:
    keys = [(seed, stage, purpose, step) for seed in (0, 1) for stage in "ab" for purpose in "cd" for step in (0, 1)]
    assert len({stream(*key) for key in keys}) == len(keys)
    torch.manual_seed(1)
    first = [python_stream(0, "a").random(), torch.rand(1, generator=torch_stream(0, "a")).item()]
    torch.manual_seed(2)
    assert first == [python_stream(0, "a").random(), torch.rand(1, generator=torch_stream(0, "a")).item()]


def test_streams_are_the_same_on_every_machine() -> None:
    assert stream(0, "train", "archs", 7) == 9066927040416770578
    assert python_stream(0, "train", "archs", 7).randrange(1000) == 220
    assert torch.randint(1000, (1,), generator=torch_stream(0, "train", "archs", 7)).item() == 559


# ---------------------------------------------------------------------- the store


def filled(folder: Path, steps: int = 4) -> Store:
    store = Store(folder)
    for step in range(1, steps + 1):
        store.write_step(step, {"step": step, "weights": torch.full((50,), float(step))})
    return store


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def zero_the_header(path: Path) -> None:
    path.write_bytes(bytes(8) + path.read_bytes()[8:])


def claim_another_step(path: Path) -> None:
    path.rename(path.with_name(f"step-000000999{path.name[-29:]}"))


def lose_the_hash(path: Path) -> None:
    path.rename(path.with_name(path.name[:-28] + ".safetensors"))


DAMAGES = [cut_short, empty, flip_a_bit, append, zero_the_header, claim_another_step, lose_the_hash]


def test_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    store = filled(tmp_path)
    assert [path.name[:14] for path in sorted(tmp_path.iterdir())] == ["step-000000003", "step-000000004"]
    latest = store.latest()
    assert latest is not None
    assert latest["step"] == 4


def test_the_end_of_a_stage_replaces_its_checkpoints(tmp_path: Path) -> None:
    store = filled(tmp_path)
    assert store.done() is None
    store.write("done", {"result": 7})
    assert [path.name[:5] for path in tmp_path.iterdir()] == ["done-"]
    assert store.done() == {"result": 7}
    assert store.latest() is None


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    store = filled(tmp_path)
    damage(max(tmp_path.iterdir()))
    latest = store.latest()
    assert latest is not None
    assert latest["step"] == 3
    assert latest["weights"].tolist() == [3.0] * 50
    assert len(list(tmp_path.iterdir())) == 1  # the damaged one is gone


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_end_does_not_count(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    store = filled(tmp_path)
    store.write("done", {"result": 7})
    damage(next(tmp_path.iterdir()))
    assert store.done() is None


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert Store(tmp_path / "nothing").latest() is None
    filled(tmp_path, steps=2)
    for path in tmp_path.iterdir():
        empty(path)
    assert Store(tmp_path).latest() is None


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(tmp_path, steps=2)
    before = sorted(tmp_path.iterdir())

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BadInput, match="No space left on device"):
        store.write_step(3, {"step": 3})
    assert sorted(tmp_path.iterdir()) == before
