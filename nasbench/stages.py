"""Resumable loops and random streams. Kill a run at any moment; the same command gives the same result.

A finished stage is stored and replayed. A running one is checkpointed by time; the last two checkpoints are
kept. A file's name carries the hash of its content, so a damaged one is recognised and the one before is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import re
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from nasbench.distributed import rank
from nasbench.files import write_atomic


def stream(*key: object) -> int:
    """A 63-bit seed for a purpose, independent of every other purpose.

    >>> stream(0, "train", "archs", 7) == stream(0, "train", "archs", 7) != stream(0, "train", "archs", 8)
    True
    """
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def python_stream(*key: object) -> random.Random:
    """A Python generator for a purpose."""
    return random.Random(stream(*key))


def torch_stream(*key: object) -> torch.Generator:
    """A torch generator on the CPU for a purpose, so that every device draws the same numbers."""
    return torch.Generator().manual_seed(stream(*key))


# ---------------------------------------------------------------------- state <-> one safetensors file


def pack(state: Any) -> bytes:
    """Nested containers of tensors and plain values as safetensors bytes; nothing is pickled."""
    tensors: dict[str, torch.Tensor] = {}

    def strip(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            tensors[key := str(len(tensors))] = value.detach().cpu().contiguous().clone()
            by_channels = value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last)
            return {"channels_last" if by_channels else "tensor": key}
        if isinstance(value, dict):
            return {"dict": [[strip(k), strip(v)] for k, v in value.items()]}
        if isinstance(value, list | tuple):
            return {"tuple" if isinstance(value, tuple) else "list": [strip(v) for v in value]}
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}: use tensors and plain containers")

    text = json.dumps(strip(state))
    return save(tensors, {"state": text})


def unpack(content: bytes) -> Any:
    """What `pack` packed; named tuples come back as plain ones."""
    tensors = load(content)
    header = content[8 : 8 + int.from_bytes(content[:8], "little")]
    text = json.loads(header)["__metadata__"]["state"]

    def build(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        ((kind, inner),) = value.items()
        if kind == "tensor":
            return tensors[inner]
        if kind == "channels_last":  # an optimizer is slower when its state lies otherwise than its weights
            return tensors[inner].contiguous(memory_format=torch.channels_last)
        if kind == "dict":
            return {build(k): build(v) for k, v in inner}
        items = [build(v) for v in inner]
        return tuple(items) if kind == "tuple" else items

    return build(json.loads(text))


class Store:
    """The checkpoints and the final state of one stage, in one folder."""

    KEEP = 2
    NAME = re.compile(r"(step-\d{9}|done)-([0-9a-f]{16})\.safetensors")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last_write = time.monotonic()

    def write(self, kind: str, state: dict[str, Any]) -> None:
        """Store a state as `done` or `step-<n>`, then drop what is no longer needed."""
        self.last_write = time.monotonic()
        if rank() > 0:
            return
        content = pack(state)
        write_atomic(self.folder / f"{kind}-{self._digest(kind, content)}.safetensors", content)
        steps = sorted(self.folder.glob("step-*"))
        for old in steps if kind == "done" else steps[: -self.KEEP]:
            old.unlink(missing_ok=True)
        self.last_write = time.monotonic()

    def write_step(self, step: int, state: dict[str, Any]) -> None:
        """Store a checkpoint after so many steps."""
        self.write(f"step-{step:09d}", state)

    def clear(self) -> None:
        """Forget everything."""
        for path in self.folder.glob("*.safetensors") if rank() == 0 else ():
            path.unlink(missing_ok=True)

    def done(self) -> dict[str, Any] | None:
        """The final state, or None if the stage is not finished or the file is damaged."""
        return self._newest("done-*")

    def latest(self) -> dict[str, Any] | None:
        """The newest checkpoint that is whole."""
        return self._newest("step-*")

    def _newest(self, pattern: str) -> dict[str, Any] | None:
        for path in sorted(self.folder.glob(pattern), reverse=True):
            match = self.NAME.fullmatch(path.name)
            with contextlib.suppress(OSError):
                content = path.read_bytes()
                if match and self._digest(match[1], content) == match[2]:
                    return unpack(content)
                path.unlink(missing_ok=True)
        return None

    @staticmethod
    def _digest(kind: str, content: bytes) -> str:
        return hashlib.blake2b(kind.encode() + content, digest_size=8).hexdigest()
