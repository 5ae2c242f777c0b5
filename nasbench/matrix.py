"""Which method runs on which space: asked of the plugins, and, for what we ship, kept in a file.

`python -m nasbench.matrix` writes the file anew; a test compares it with what the plugins answer.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from nasbench.errors import BadInput
from nasbench.files import dump_json, write_atomic
from nasbench.plugins import discover

FILE = Path(__file__).parent / "matrix.json"
#: For each method and space why it is refused, or an empty text.
Matrix = dict[str, dict[str, str]]


def shipped() -> Matrix:
    """The answers for the methods and spaces of this distribution, without importing a plugin."""
    found: Matrix = json.loads(FILE.read_text())
    return found


def ask(methods: list[str], spaces: list[str]) -> Matrix:
    """What the plugins answer, each pair prepared with the preset test; nothing is trained."""
    from nasbench.harness import prepare
    from nasbench.recipe import resolve

    def reason(method: str, space: str) -> str:
        try:
            prepare(resolve(method, space, preset="test"), Path(tempfile.gettempdir()))
        except BadInput as error:
            return str(error)
        return ""

    return {method: {space: reason(method, space) for space in spaces} for method in methods}


def ours() -> tuple[list[str], list[str]]:
    """The methods and the spaces of this distribution."""
    methods, spaces = (
        [name for name, entry in discover(kind).items() if entry.dist and entry.dist.name == "nasbench"]
        for kind in ("method", "space")
    )
    return methods, spaces


if __name__ == "__main__":
    write_atomic(FILE, dump_json(ask(*ours())))
