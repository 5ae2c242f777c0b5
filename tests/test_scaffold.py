"""`nasbench new`: what it writes works at once, is clean, and is written whole or not at all."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nasbench import BadInput, scaffold
from nasbench.testing import SUITES, checks
from tests.command import nasbench
from tests.conftest import Install

KINDS = list(scaffold.KINDS)


def entry(package: Path) -> tuple[str, str, str]:
    """The group, the name and the class that a package registers, as its pyproject.toml says."""
    lines = (package / "pyproject.toml").read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("[project.entry-points."))
    name, _, value = lines[at + 1].partition(" = ")
    return lines[at].split('"')[1], name, value.strip('"')


@pytest.mark.parametrize("kind", KINDS)
def test_it_passes_every_check_at_once(
    kind: str, tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nasbench.evaluators.tau_interval", lambda *_: None)
    monkeypatch.setattr("os.fsync", lambda _: None)
    name = f"my-{kind}-2"
    written = scaffold.new(kind, name, tmp_path / "package")
    assert sorted(written) == sorted(p for p in (tmp_path / "package").rglob("*") if p.is_file())
    group, registered, value = entry(tmp_path / "package")
    assert (group, registered) == (f"nasbench.{kind}s", name)
    install("acme", **{f"{kind}s": {name: value}})
    monkeypatch.syspath_prepend(str(tmp_path / "package"))
    importlib.invalidate_caches()
    for check in checks(kind, name):
        check()
    tests = importlib.import_module(f"test_my_{kind}_2")
    (mark,) = tests.test_conformance.pytestmark
    assert [str(check) for check in mark.args[1]] == [str(check) for check in checks(kind, name)]


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_formatted_linted_and_plain(kind: str, tmp_path: Path) -> None:
    scaffold.new(kind, "my-own", tmp_path / "package")
    for command in ("format --check", "check --select E,F,W,I,B,UP,SIM,RUF"):
        ruff = [sys.executable, "-m", "ruff", *command.split(), "--isolated", "--no-cache", "--line-length", "120", "."]
        done = subprocess.run(ruff, cwd=tmp_path / "package", capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
    for path in (p for p in (tmp_path / "package").rglob("*") if p.is_file()):
        text = path.read_text()
        assert "$" not in text, path
        assert text.endswith("\n")
    readme = (tmp_path / "package/README.md").read_text()
    for path in scaffold.KINDS[kind]:
        assert f"`{path.format(module='my_own', name='my-own')}`" in readme
    workflow = yaml.safe_load((tmp_path / "package/.github/workflows/test.yml").read_text())
    assert [step["run"] for step in workflow["jobs"]["test"]["steps"] if "run" in step][-1] == "pytest"


def test_what_it_says_is_what_to_do(tmp_path: Path) -> None:
    done = nasbench("new", "method", "my-sampler", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "wrote my-sampler/my_sampler/__init__.py\n" in done.out
    assert done.out.endswith("next: cd my-sampler; pip install -e .; nasbench check my-sampler\n")


def test_every_kind_that_can_be_checked_can_be_made() -> None:
    assert {*KINDS} == {*SUITES}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("new metod mine", "Unknown kind of plugin 'metod'; did you mean 'method'?"),
        ("new method MySampler", "'MySampler' is no plugin name, which has small letters, digits and single hyphens; "
         "did you mean 'my-sampler'?"),
        ("new method my_sampler", "did you mean 'my-sampler'?"),
        ("new method 2nd--try-", "did you mean 'nd-try'?"),
        ("new method 42", "for example my-method."),
        ("new method ../mine", "did you mean 'mine'?"),
        ("new method fairnas", "There is a method 'fairnas' already, of nasbench "),
        ("new modifier fairnas", "There is a method 'fairnas' already, of nasbench "),
        ("new space tiny", "choose another name, such as my-tiny."),
        ("new method torch", "The package would be named torch, which Python knows already; try my-torch."),
        ("new evaluator lambda", "The package would be named lambda, which Python knows already"),
        ("new method mine --out there", "there is there already, and nothing is written over"),
        ("new method mine --out file/mine", "Cannot make file/mine (File exists); choose another place with --out."),
    ],
)  # fmt: skip
def test_bad_input_is_refused_and_nothing_written(args: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("kept")
    done = nasbench(*args.split(), cwd=tmp_path)
    assert (done.code, done.out) == (2, ""), done
    assert done.err.startswith("nasbench: ")
    assert message in done.err
    assert done.err.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "there"]
    assert not list((tmp_path / "there").iterdir())


def test_a_disk_that_is_full_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, written = scaffold.write_atomic, list[Path]()

    def until_full(path: Path, content: str) -> None:
        if len(written) == 3:
            raise BadInput(f"Cannot write {path}.")
        written.append(path)
        write(path, content)

    monkeypatch.setattr(scaffold, "write_atomic", until_full)
    with pytest.raises(BadInput, match="Cannot write"):
        scaffold.new("method", "mine", tmp_path / "mine")
    assert len(written) == 3
    assert not list(tmp_path.iterdir())
