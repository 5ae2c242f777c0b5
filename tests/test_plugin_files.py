"""`--plugin FILE.py`: plugins that are no package yet, recorded by their file's digest."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from nasbench_tiny.tiny import Tiny

from nasbench import BadInput, plugin_files
from nasbench.plugins import discover, load, origin
from nasbench.recipe import resolve
from tests.command import nasbench
from tests.conftest import Install

METHOD = '''"""Two methods and a modifier."""

from typing import ClassVar

from nasbench import Arch, Method, Modifier, Run, hookimpl


class Base(Method):
    """Says its name."""

    name: ClassVar[str] = "plain-base"

    @hookimpl
    def sample_archs(self, run: Run) -> list[Arch]:
        return [run.space.sample(run.rng("archs"))]


class FairSampler(Method):
    """Every option of every decision once a step."""

    @hookimpl
    def sample_archs(self, run: Run) -> list[Arch]:
        rng = run.rng("archs")
        return list(zip(*(rng.sample(options, len(options)) for options in run.space.options)))


class Slower(Modifier):
    """Multiplies every rate."""

    factor: float = 0.5
    """What rates are multiplied by."""

    @hookimpl(wrapper=True)
    def learning_rates(self):
        rates = yield
        return [self.factor * rate for rate in rates]


class _Helper(Method):
    """Not for others."""
'''
EVALUATOR = '''from nasbench import Evaluator, Metric, hookimpl

class Seven(Evaluator):
    """Reports 7."""

    @hookimpl
    def evaluate(self, run, choices):
        return [Metric(name="seven", value=7, definition="the number 7")]
'''
SPACE = """from nasbench_tiny.tiny import Tiny

class Small(Tiny):
    '''Tiny by another name.'''

    name = "small"
"""
SHARING = '''from nasbench import Choice, Method, hookimpl

class Sharing(Method):
    """Chooses what a shared stage says."""

    @hookimpl
    def search(self, run):
        return [Choice((run.stage("say", lambda: {option}, shared={{}}), 0, 0))]
'''


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file stays registered after its test."""
    monkeypatch.setenv(plugin_files.VARIABLE, "")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(METHOD)
    return path


def run(*args: str, cwd: Path) -> dict[str, Any]:
    """The record of `nasbench run ARGS` on tiny."""
    result = nasbench("run", "-s", "tiny", "--preset", "test", "--set", "train.epochs=1", *args, cwd=cwd)
    assert result.code == 0, result
    (path,) = re.findall(r"runs/\S+/record\.json", result.out)
    record: dict[str, Any] = json.loads((cwd / path).read_text())
    return record


def test_its_plugins_are_registered_by_declared_or_hyphenated_name(mine: Path) -> None:
    plugin_files.add(mine)
    plugin_files.add(mine)
    assert [len(plugin_files.files()), os.environ[plugin_files.VARIABLE]] == [1, str(mine)]
    assert {"plain-base", "fair-sampler"} <= discover("method").keys()
    assert load("modifier", "slower")().factor == 0.5
    assert origin(discover("modifier")["slower"]) == "mine.py"
    assert not {"helper", "_helper", "-helper"} & discover("method").keys()


def test_a_second_file_of_one_name_is_refused(mine: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "mine.py"
    other.parent.mkdir()
    other.write_text(EVALUATOR)
    plugin_files.add(mine)
    with pytest.raises(BadInput, match=rf"{mine} and {other} share a name, by which records know them; rename one"):
        plugin_files.add(other)
    assert [file.path for file in plugin_files.files()] == [mine]


def test_a_run_records_the_digest_of_the_file_that_it_uses(mine: Path, tmp_path: Path) -> None:
    digest = hashlib.blake2b(mine.read_bytes(), digest_size=8).hexdigest()
    record = run("--plugin", "mine.py", "-m", "spos+slower", cwd=tmp_path)
    assert record["recipe"]["plugin_files"] == {"mine.py": digest}
    assert record["recipe"]["options"]["slower"] == {"factor": 0.5}
    mine.write_text(METHOD + "# another comment, another run\n")
    assert run("--plugin", "mine.py", "-m", "spos+slower", cwd=tmp_path)["id"] != record["id"]


def test_what_another_form_of_the_file_shared_is_not_taken(tmp_path: Path) -> None:
    for option in (1, 2):
        (tmp_path / "sharing.py").write_text(SHARING.format(option=option))
        record = run("--plugin", "sharing.py", "-m", "sharing", cwd=tmp_path)
        assert record["results"][0]["arch"] == Tiny().format((option, 0, 0))


def test_a_file_that_a_run_does_not_use_leaves_no_trace(mine: Path, tmp_path: Path) -> None:
    record = run("--plugin", "mine.py", "-m", "spos", cwd=tmp_path)
    assert "plugin_files" not in record["recipe"]
    assert run("-m", "spos", cwd=tmp_path) == record  # the same run, found finished


def test_an_evaluator_has_a_part_in_every_run(tmp_path: Path) -> None:
    (tmp_path / "seven.py").write_text(EVALUATOR)
    record = run("--plugin", "seven.py", "-m", "spos", cwd=tmp_path)
    assert list(record["recipe"]["plugin_files"]) == ["seven.py"]
    assert [m["value"] for m in record["results"][0]["metrics"] if m["name"] == "seven"] == [7]


def test_an_edited_package_is_another_run(tmp_path: Path, install: Install) -> None:
    site = install("acme", modifiers={"slower": "acme_nas.slow:Slower"})
    (site / "acme_nas").mkdir()
    (site / "acme_nas" / "__init__.py").write_text("")
    source = site / "acme_nas" / "slow.py"
    source.write_text(METHOD)
    first = run("-m", "spos+slower", cwd=tmp_path)
    assert list(first["recipe"]["plugin_files"]) == ["acme_nas"]
    assert run("-m", "spos+slower", cwd=tmp_path) == first
    (site / "acme_nas" / "beside.py").write_text("# what the modifier may import\n")
    second = run("-m", "spos+slower", cwd=tmp_path)
    assert second["id"] != first["id"]
    (tmp_path / "first.json").write_text(json.dumps(first))
    refused = nasbench("verify", "first.json", cwd=tmp_path)
    digests = [one["recipe"]["plugin_files"]["acme_nas"] for one in (first, second)]
    assert refused.code == 2
    assert "made with another acme_nas: its digest is {}, that here {}".format(*digests) in refused.err
    shutil.rmtree(site)
    assert "needs the package acme_nas" in nasbench("verify", "first.json", cwd=tmp_path).err


def test_the_processes_of_a_sweep_know_it(mine: Path, tmp_path: Path) -> None:
    sweep = "methods: [fair-sampler]\nspaces: [tiny]\npresets: [test]\nset: {train.epochs: 1}\n"
    (tmp_path / "sweep.yaml").write_text(sweep)
    done = nasbench("sweep", "sweep.yaml", "--workers", "1", "--plugin", "mine.py", cwd=tmp_path)
    assert done.code == 0, done
    assert len(list(tmp_path.glob("runs/fair-sampler-*/record.json"))) == 1


def test_a_record_is_verified_only_with_the_same_file(mine: Path, tmp_path: Path) -> None:
    record = run("--plugin", "mine.py", "-m", "fair-sampler", cwd=tmp_path)
    without = nasbench("verify", record["id"], cwd=tmp_path)
    assert (without.code, without.out) == (2, "")
    assert "needs the plugin file mine.py" in without.err
    assert "name it with --plugin mine.py" in without.err
    assert nasbench("verify", record["id"], "--plugin", "mine.py", cwd=tmp_path).code == 0
    mine.write_text(METHOD + "\n")
    other = nasbench("verify", record["id"], "--plugin", "mine.py", cwd=tmp_path)
    assert other.code == 2
    assert "was made with another mine.py" in other.err


def test_records_of_a_plugin_that_is_gone_still_make_a_leaderboard(mine: Path, tmp_path: Path) -> None:
    run("--plugin", "mine.py", "-m", "fair-sampler+slower[factor=0.25]", cwd=tmp_path)
    assert "| fair-sampler+slower[factor=0.25] |" in nasbench("leaderboard", cwd=tmp_path).out


def test_the_space_of_a_file_is_exported_and_drawn(tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text(SPACE)
    words = (
        "run",
        "-s",
        "small",
        "-m",
        "random-search",
        "--preset",
        "test",
        "--dataset",
        "digits",
        "--plugin",
        "small.py",
    )
    assert nasbench(*words, cwd=tmp_path).code == 0
    (record,) = tmp_path.glob("runs/*/record.json")
    for verb in (["export", str(record), "--out", "out"], ["plot", "networks"]):
        without = nasbench(*verb, cwd=tmp_path)
        assert (without.code, "Unknown space 'small'" in without.err) == (2, True)
        done = nasbench(*verb, "--plugin", "small.py", cwd=tmp_path)
        assert done.code == 0, done


@pytest.mark.parametrize("verb", ["leaderboard", "compare", "report"])
def test_what_is_made_of_records_takes_it_too(mine: Path, tmp_path: Path, verb: str) -> None:
    """A row's label leaves out what the file's presets say."""
    assert "--plugin FILE" in nasbench(verb, "--help", cwd=tmp_path).out


def test_without_a_file_a_recipe_says_nothing_of_files() -> None:
    assert "plugin_files" not in resolve("spos", "tiny", preset="test").model_dump(mode="json")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, r"mine\.py cannot be read \(No such file"),
        ("", r"mine\.py defines no plugin; expected a class that is a nasbench\.Method"),
        ("def", r"mine\.py cannot be used \(SyntaxError"),
        ("import no_such_module", r"mine\.py cannot be used \(ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise ValueError('two\\nlines')", r"mine\.py cannot be used \(ValueError: two lines\); mend it\."),
        (METHOD + "class Other(Base):\n    pass\n", "the method 'plain-base' twice, Base and Other"),
        (
            METHOD.replace("plain-base", "spos"),
            "The method 'spos' is registered twice, as nasbench_oneshot.* by nasbench .* and as .* by mine.py",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(tmp_path: Path, source: str | None, message: str) -> None:
    if source is not None:
        (tmp_path / "mine.py").write_text(source)
    result = nasbench("run", "-m", "spos", "-s", "tiny", "--plugin", "mine.py", cwd=tmp_path)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("nasbench: ")
    assert result.err.count("\n") == 1
    assert re.search(message, result.err)
    assert not (tmp_path / "runs").exists()


def test_a_broken_file_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0")
    before = {*sys.modules}
    with pytest.raises(BadInput, match="ZeroDivisionError"):
        plugin_files.add(tmp_path / "broken.py")
    assert os.environ[plugin_files.VARIABLE] == ""
    assert {*sys.modules} == before


@pytest.mark.parametrize(
    ("content", "line"), [("test: {train: {epochs: 1}", "[12]"), ("quick:\n  a: 1\n b: 2", 3), ("- test", 1)]
)
def test_presets_that_cannot_be_read_are_named(mine: Path, tmp_path: Path, content: str, line: int | str) -> None:
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "slower.yaml").write_text(content)
    plugin_files.add(mine)
    with pytest.raises(BadInput, match=rf"slower\.yaml of slower do not map presets to settings \(line {line}\)"):
        resolve("spos+slower", "tiny", preset="test")
    assert resolve("fair-sampler", "tiny", preset="test").train.epochs == 2
