"""Writing files so that a reader sees the old content or the new one, never half of it."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from nasbench.errors import BadInput


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file by renaming a finished neighbour. Raises BadInput, leaving nothing, if that cannot be done."""
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


def dump_json(value: Any) -> str:
    """Readable JSON that refuses NaN and infinity."""
    return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
