"""The chosen network without nasbench: a file that runs alone, torch.export and ONNX, each compared."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from nasbench_tiny.tiny import Tiny
from safetensors.torch import load_file, save_file

from nasbench import BadInput, records
from nasbench.networks import load_network
from nasbench.plugins import build, load
from nasbench.results.export import Chosen, choice_of, chosen, export, plain
from nasbench.results.leaderboard import publish
from tests.boards import made, result, written
from tests.command import nasbench
from tests.conftest import RunTiny

#: Small members of the spaces.
SPACES: dict[str, dict[str, Any]] = {
    "tiny": {},
    "nb201": {"channels": 4, "cells": 1},
    "darts": {"final_channels": 4, "final_cells": 3},
    "mobilenetv3": {"width": 0.25},
    "resnet18": {"width": 8},
    "vgg16": {"width": 8, "hidden": 16},
}
ALONE = """
import sys, torch
from safetensors.torch import load_file, save_file
sys.path.insert(0, sys.argv[1])
import network
assert not any(name.startswith("nasbench") for name in sys.modules)
with torch.no_grad():
    save_file({"logits": network.load()(load_file(sys.argv[2])["images"])}, sys.argv[3])
"""


def of_space(name: str) -> Chosen:
    """A network whose normalisation has seen something."""
    space = build(load("space", name), name, {"classes": 7, "image": (3, 32, 32), **SPACES[name]})
    torch.manual_seed(0)
    network = space.build(space.sample(random.Random(1)))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return Chosen(network.eval(), (3, 32, 32), f"A network of {name}.", True)


def write_plain(one: Chosen, folder: Path) -> None:
    source, state = plain(one.network, one.about, one.image)
    (folder / "network.py").write_text(source)
    save_file(state, folder / "network.safetensors")


def run_alone(folder: Path, images: torch.Tensor) -> torch.Tensor:
    """What the file answers in a fresh interpreter that knows no package of ours."""
    save_file({"images": images}, folder / "images")
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [sys.executable, "-c", ALONE, str(folder), str(folder / "images"), str(folder / "logits")]
    subprocess.run(command, cwd=folder, env={**env, "PYTHONPATH": ""}, check=True, timeout=120)
    return load_file(folder / "logits")["logits"]


@pytest.mark.parametrize("name", SPACES)
def test_the_plain_file_runs_alone_and_computes_the_same(name: str, tmp_path: Path) -> None:
    one = of_space(name)
    write_plain(one, tmp_path)
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = one.network(images)
    assert torch.allclose(run_alone(tmp_path, images), expected, rtol=1e-6, atol=1e-6)
    source = (tmp_path / "network.py").read_text()
    assert "nasbench" not in source
    imports = [line for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert imports == ["from pathlib import Path", "import torch", "from torch import nn"]


def test_layers_keep_what_their_text_form_leaves_out() -> None:
    pool = torch.nn.AvgPool2d(3, 1, 1, count_include_pad=False)
    assert "count_include_pad" not in repr(pool)
    source, _ = plain(torch.nn.Sequential(pool), "", (3, 8, 8))
    assert "nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)" in source


def test_every_form_is_compared(tmp_path: Path) -> None:
    written = export(of_space("nb201"), tmp_path)
    assert [one.path.name for one in written] == ["network.py", "network.pt2"]
    assert all(one.equal and one.difference < 1e-6 < one.largest for one in written)
    again = torch.export.load(tmp_path / "network.pt2").module()
    images = torch.randn(5, 3, 32, 32)  # another batch size than that of export
    with torch.no_grad():
        assert torch.allclose(again(images), of_space("nb201").network(images), atol=1e-6)


def test_onnx_computes_the_same(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    pytest.importorskip("onnxscript", reason="needs the extra export")
    (found,) = (one for one in export(of_space("tiny"), tmp_path, onnx=True) if one.path.suffix == ".onnx")
    assert found.difference < 1e-5 < found.largest


def test_without_its_library_onnx_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BadInput, match=r"ONNX needs onnxruntime; install it with `pip install 'nasbench\[export\]'`"):
        export(of_space("tiny"), tmp_path, onnx=True)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------- out of runs


def test_a_trained_network_is_exported_with_its_weights(run_tiny: RunTiny, tmp_path: Path) -> None:
    record = run_tiny("spos+retrain")
    (path,) = records.find(tmp_path / "runs")
    (index,) = (i for i, each in enumerate(record["results"]) if "network" in each)
    one = chosen(path, index)
    assert one.trained
    file = path.parent / record["results"][index]["network"]
    kept = load_file(file)
    assert all(torch.equal(value, kept[name]) for name, value in one.network.state_dict().items())
    file.unlink()
    with pytest.raises(BadInput, match="is gone; name the run's folder"):
        chosen(path, index)


def test_an_architecture_alone_is_exported_with_an_initialisation_and_says_so(
    run_tiny: RunTiny, tmp_path: Path
) -> None:
    record = run_tiny("spos")
    shown = nasbench("export", record["id"], "--runs", str(tmp_path / "runs"), cwd=tmp_path)
    assert (shown.code, shown.err) == (0, "")
    assert "trained no network of it: the weights are an initialisation." in shown.out
    (folder,) = tmp_path.glob("runs/*/exported/0")
    names = ["network.pt2", "network.py", "network.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert "an initialisation" in (folder / "network.py").read_text().partition('"""\n')[0]
    assert torch.equal(
        next(chosen(folder.parents[1] / "record.json", 0).network.parameters()),
        next(chosen(folder.parents[1] / "record.json", 0).network.parameters()),
    )


def test_which_choice_is_meant(tmp_path: Path) -> None:
    several = made() | {"results": [result({"budget": "keep=0.3"}), result({"budget": "keep=0.5"})]}
    with pytest.raises(BadInput, match=r"2 networks; name one with --choice \(0: keep=0.3 search, 1: keep=0.5 search"):
        choice_of(several, None)
    assert choice_of(several, 1) == 1
    written(tmp_path / "runs", several)
    wrong = nasbench("export", "run0", "--choice", "2", cwd=tmp_path)
    assert (wrong.code, wrong.out) == (2, "")
    assert wrong.err == "nasbench: --choice 2 does not fit: the run has the choices 0 to 1.\n"
    assert "nasbench export" in nasbench("export", "--help", cwd=tmp_path).out.partition("Examples:")[2]


def test_a_record_of_a_leaderboard_is_found_by_its_id(tmp_path: Path) -> None:
    publish(written(tmp_path / "runs", made("fairnas"), made("spos")), tmp_path / "out")
    (one, other) = sorted((tmp_path / "out" / "records").iterdir())
    assert records.locate(tmp_path / "out", one.stem.rpartition("-")[2]) == one
    assert records.locate(tmp_path / "out", "spos") == other
    with pytest.raises(BadInput, match=r"Unknown run 'sops'.*fairnas-tiny-digits-test-s0"):
        records.locate(tmp_path / "out", "sops")


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    (tmp_path / "0.safetensors").write_bytes(b"half a file")
    with pytest.raises(BadInput, match=r"0\.safetensors is damaged .*--force"):
        load_network(Tiny(), (0, 1, 2), tmp_path / "0.safetensors")
