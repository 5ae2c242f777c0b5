"""What every test may use: a home of its own, the real data where it is at hand, runs on tiny, fake plugins."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import settings

from nasbench.recipe import parse_set, resolve

# The networks are small and a worker runs on each core: more threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("nasbench", deadline=None, database=None, derandomize=True, max_examples=50)
settings.load_profile("nasbench")

Record: TypeAlias = "dict[str, Any]"
RunTiny: TypeAlias = "Callable[..., Record]"
Install: TypeAlias = "Callable[..., Path]"


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home for data and tables, so that no test sees what the user has added."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("NASBENCH_HOME", str(folder))
    return folder


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """As above, after a test whose run took every core; torch stays unimported where it was not needed yet."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data: the NAS-Bench-201 table and CIFAR-10."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the real data in {folder}")
    return folder


@pytest.fixture
def run_tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunTiny:
    """`run_tiny("spos+ms", "train.epochs=3", seed=1)` executes with the preset test and returns the record.

    Without what is slow and tested elsewhere: the bootstrap intervals, and waiting for the disk.
    """
    from nasbench.harness import execute

    monkeypatch.setattr("nasbench.evaluators.tau_interval", lambda *_: None)
    monkeypatch.setattr("os.fsync", lambda _: None)

    def run(
        method: str,
        *sets: str,
        space: str = "tiny",
        target: str | None = None,
        seed: int = 0,
        runs: str = "runs",
        **more: Any,
    ) -> Record:
        recipe = resolve(method, space, target=target, preset="test", seed=seed, sets=parse_set(list(sets)))
        return execute(recipe, tmp_path / runs, **more)[0]

    return run


@pytest.fixture
def install(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Install:
    """`install("acme", methods={"mine": "module:Class"})` is as if a distribution had been installed."""

    def install_(distribution: str, **groups: dict[str, str]) -> Path:
        site = tmp_path_factory.mktemp(distribution)
        info = site / f"{distribution}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        lines = []
        for group, entries in groups.items():
            lines += [f"[nasbench.{group}]", *(f"{name} = {value}" for name, value in entries.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        monkeypatch.syspath_prepend(str(site))
        return site

    return install_
