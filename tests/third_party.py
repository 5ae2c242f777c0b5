"""Distributions of somebody else, built and installed by pip with no network."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest


def pip_install(*sources: Path, site: Path) -> Path:
    """Build and install distributions into a folder; their sources stay as they are."""
    for needed in ("pip", "setuptools"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"needs {needed} in this environment")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-index", "--no-deps", "--no-build-isolation"]
    with tempfile.TemporaryDirectory() as folder:  # a build leaves its files beside the sources
        copies = [shutil.copytree(source, Path(folder, source.name)) for source in sources]
        done = subprocess.run([*pip, *offline, "--target", site, *copies], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return site


def python(site: Path, *args: str, cwd: Path) -> str:
    """What `python -m ARGS` prints where the distributions are installed."""
    env = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run([sys.executable, "-m", *args], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
