"""A record's recipe run again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from nasbench import BadInput, records
from nasbench.recipe import Recipe
from nasbench.results import verify as verifying
from tests.command import nasbench

RUN = ["run", "-m", "spos", "-s", "tiny", "--preset", "test", "--set=train.epochs=1", "--set=score.subset=random:5"]


def test_a_true_record_is_confirmed_and_a_false_one_is_not(tmp_path: Path) -> None:
    assert nasbench(*RUN, cwd=tmp_path).code == 0
    (path,) = tmp_path.rglob("record.json")
    record = records.read(path)
    good = nasbench("verify", record["id"], cwd=tmp_path)
    assert (good.code, good.out.splitlines()[-1], good.err) == (0, "the same", "")
    metric = record["results"][0]["metrics"][0]
    true, metric["value"] = metric["value"], 0.987
    del record["recipe"]["train"]["label_smoothing"]  # as before there was this
    record["measured"]["torch"] = "1.0"
    (tmp_path / "claimed.json").write_text(json.dumps(record))
    bad = nasbench("verify", "claimed.json", cwd=tmp_path)
    assert re.search(r"Other rounding is to be expected: .*, torch 1\.0 before, .* now\.", bad.err)
    assert bad.code == 1
    assert bad.out.splitlines()[-2:] == [
        f"results[0].metrics[{metric['name']}].value: 0.987 before, {true} now",
        "1 differences",
    ]


def test_what_an_earlier_verification_left_is_no_answer(tmp_path: Path) -> None:
    assert nasbench(*RUN, cwd=tmp_path).code == 0
    (path,) = tmp_path.rglob("record.json")
    assert nasbench("verify", str(path), cwd=tmp_path).code == 0
    (earlier,) = (tmp_path / "verified").rglob("record.json")
    earlier.write_text(earlier.read_text().replace('"kendall_tau"', '"stale"'))
    again = nasbench("verify", str(path), cwd=tmp_path)
    assert (again.code, again.out.splitlines()[-1]) == (0, "the same")
    itself = nasbench("verify", str(path), "--runs", "runs", cwd=tmp_path)
    assert itself.code == 2
    assert "would take the place of" in itself.err
    assert path.exists()


def test_the_record_of_a_gpu_is_run_again_on_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert nasbench(*RUN, cwd=tmp_path).code == 0
    (path,) = tmp_path.rglob("record.json")
    record = records.read(path)
    record["measured"] |= {"bit_exact": False, "device": "NVIDIA X"}
    record["recipe"]["engine"]["static"] = "recorded"  # which a CPU does without
    (tmp_path / "gpu.json").write_text(json.dumps(record))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    without = nasbench("verify", "gpu.json", cwd=tmp_path)
    assert (without.code, without.out) == (2, "")
    assert "was made on NVIDIA X, and there is no CUDA device here; --device cpu runs it" in without.err
    assert not (tmp_path / "verified").exists()
    assert nasbench("verify", "gpu.json", "--device", "cpu", cwd=tmp_path).out.endswith("the same\n")
    wrong = nasbench("verify", "gpu.json", "--device", "cuda:x", cwd=tmp_path)
    assert (wrong.code, "Unknown device 'cuda:x'" in wrong.err) == (2, True)
    # Where there is a GPU, that is what runs it.

    def stop(recipe: Recipe, _: Path) -> None:
        raise BadInput(f"on {recipe.device}")

    monkeypatch.setattr(verifying, "gpus", lambda: 1)
    monkeypatch.setattr(verifying, "prepare", stop)
    for source, device in ((tmp_path / "gpu.json", "cuda"), (path, "cpu")):
        with pytest.raises(BadInput, match=f"^on {device}$"):
            verifying.verify(source, tmp_path / "verified")


def test_what_is_no_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    result = nasbench("verify", "x.json", cwd=tmp_path)
    assert result.code == 2
    assert "no nasbench record" in result.err
