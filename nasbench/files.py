"""Writing files so that a reader sees the old content or the new one, never half of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from nasbench.distributed import rank, together
from nasbench.errors import BadInput


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file by renaming a finished neighbour. Raises BadInput, leaving nothing, if that cannot be done.

    Of several processes that share a run, only the first writes.
    """
    if rank() > 0:
        return
    data = content.encode() if isinstance(content, str) else content
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # noqa: PTH101 - mkstemp makes files for the owner alone
        Path(temporary).replace(path)
    except OSError as error:
        raise BadInput(
            f"Cannot write {path} ({error.strerror or error}); choose a place with room and rights."
        ) from None
    finally:  # also when interrupted; a finished file is no longer there
        if temporary:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()


def pin(path: Path) -> str:
    """A file as a record names it, with a digest of its content: another content is another name."""
    try:
        return f"{path}@{hashlib.blake2b(path.read_bytes(), digest_size=4).hexdigest()}"
    except OSError as error:
        raise BadInput(f"The file {path} cannot be read ({error.strerror}).") from None


def pinned_file(name: str) -> Path | None:
    """The file that `pin` named so; None for another text. Raises BadInput if it is gone or has changed."""
    match = re.fullmatch(r"(.+)@[0-9a-f]{8}", name)
    if not match:
        return None
    path = Path(match[1])
    if not path.is_file():
        raise BadInput(f"The file {path} is not here; a record names it {name}.")
    if pin(path) != name:
        raise BadInput(f"The file {path} has changed: a record names it {name}, and now it is {pin(path)}.")
    return path


def make_folder(folder: Path, *files: str) -> Path:
    """Make a folder, and empty files in it, if need be. Raises BadInput if that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in files:
            (folder / name).touch()
    except OSError as error:
        raise BadInput(f"Cannot write into {folder} ({error.strerror}); choose another --runs.") from None
    return folder


def lock(folder: Path) -> FileLock:
    """The lock of a folder, which is made if need be. Raises BadInput if nothing can be written there."""
    return FileLock(make_folder(folder, ".lock") / ".lock")


def drop_half_written(folder: Path) -> None:
    """Remove what a killed process left of `write_atomic`; only under the folder's lock."""
    for path in folder.rglob(".*.*"):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def waited_for(folder: Path, whom: str) -> Iterator[None]:
    """Hold the lock of a folder, saying for whom one waits; the first of several processes holds it for all."""
    if rank() > 0:
        together()
        yield
        return
    held = lock(folder)
    try:
        held.acquire(timeout=0)
    except Timeout:
        warnings.warn(f"Waiting for {whom}.")
        held.acquire()
    try:
        drop_half_written(folder)
        together()
        yield
    finally:
        held.release()


def dump_json(value: Any) -> str:
    """Readable JSON that refuses NaN and infinity."""
    return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
