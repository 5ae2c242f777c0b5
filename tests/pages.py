"""Code blocks of a page, executed in their order as a reader would, in an environment of their own.

- With `title="FILE"`, a block is the content of that file.
- `python` is a script, `console` commands behind `$` with what they print; `...` stands for anything.
- `text` and `yaml` without a title are not executed: what a file holds, a tree of folders.
"""

from __future__ import annotations

import doctest
import os
import re
import site
import subprocess
import venv
from pathlib import Path
from typing import NamedTuple

SHOWN = {"text", "yaml"}
_BLOCK = re.compile(r'^```(\w*)(?: title="([^"\n]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One code block."""

    line: int
    language: str
    title: str
    """The file it is the content of, or an empty text."""
    text: str


def blocks(page: Path) -> list[Block]:
    """The code blocks of a Markdown file."""
    text = page.read_text()
    return [Block(text.count("\n", 0, m.start()) + 1, m[1], m[2] or "", m[3]) for m in _BLOCK.finditer(text)]


def environment(folder: Path) -> dict[str, str]:
    """A virtual environment that sees what this one has, and into which pip installs with no network."""
    venv.create(folder, symlinks=True)
    (purelib,) = folder.glob("lib/python*/site-packages")
    here = [path for path in site.getsitepackages() if Path(path).is_dir()]
    (purelib / "these.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in here))
    for name in ("nasbench", "pip", "pytest"):
        always = '[ "$1" = install ] && shift && set -- install --no-index --no-deps --no-build-isolation "$@"\n'
        script = folder / "bin" / name
        script.write_text(f'#!/bin/sh\n{always if name == "pip" else ""}exec "{folder}/bin/python" -m {name} "$@"\n')
        script.chmod(0o755)
    return {
        **{k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTEST_ADDOPTS")},
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTHONDONTWRITEBYTECODE": "1",  # a file that is written twice within a second must not stay what it was
    }


def follow(page: Path, folder: Path, env: dict[str, str]) -> None:
    """Do what a page says, word for word, beginning in a folder."""
    for block in blocks(page):
        where = f"{page.name}, line {block.line}"
        if block.title:
            (folder / block.title).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.title).write_text(block.text)
        elif block.language == "python":
            _run(where, [str(Path(env["PATH"].partition(":")[0], "python")), "-c", block.text], folder, env)
        elif block.language == "console":
            folder = _console(where, block.text, folder, env)
        else:
            assert block.language in SHOWN, f"{where}: {block.language or 'no language'}"


def _console(where: str, text: str, folder: Path, env: dict[str, str]) -> Path:
    """Run the commands of a block; returns the folder where they end."""
    assert text.startswith("$ "), where
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, wanted = part.partition("\n")
        if command.startswith("cd "):
            folder = folder / command.removeprefix("cd ")
            continue
        got = _run(f"{where}: {command}", ["sh", "-c", command], folder, env)
        # An ellipsis at the end also stands for nothing.
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        assert doctest.OutputChecker().check_output(wanted, got, flags), f"{where}: {command}\n{got}\nis not\n{wanted}"
    return folder


def _run(where: str, command: list[str], folder: Path, env: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{where}\n{done.stdout}{done.stderr}"
    return done.stdout
