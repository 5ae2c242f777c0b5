"""The command line as a stranger meets it: help, lists, runs, queries, leaderboards."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import shlex
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from nasbench import show
from nasbench.recipe import PRESETS, read_config, resolve
from tests.command import Result, nasbench

COMMANDS = [
    "",
    "run",
    "list",
    "config",
    "query",
    "leaderboard",
    "compare",
    "plot",
    "report",
    "sweep",
    "specialize",
    "verify",
    "check",
    "new",
    "data",
    "data list",
    "data add",
]
RUN = "run -m spos+ms -s tiny --preset test"
CONV3 = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def ok(command: str, cwd: Path) -> str:
    """What a command that must succeed prints."""
    result: Result = nasbench(*shlex.split(command), cwd=cwd)
    assert (result.code, result.err) == (0, ""), result
    return result.out


def record_of(folder: Path) -> dict[str, Any]:
    (path,) = folder.rglob("record.json")
    record: dict[str, Any] = json.loads(path.read_text())
    return record


# ---------------------------------------------------------------------- help and lists


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str, tmp_path: Path) -> None:
    text = ok(f"{command} --help", tmp_path)
    assert text.startswith(f"Usage: nasbench {command}".rstrip())
    assert "..." not in text.replace("[ARGS]...", "")  # no sentence is cut
    assert f"  nasbench {command}".rstrip() in text.partition("Examples:")[2] or command == "data"


def test_without_a_command_there_is_help(tmp_path: Path) -> None:
    assert ok("", tmp_path) == ok("--help", tmp_path)


def test_the_version_is_that_of_the_distribution(tmp_path: Path) -> None:
    assert ok("--version", tmp_path) == f"nasbench {version('nasbench')}\n"


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "--version",
        "run --help",
        "list",
        "list --json",
        "data list",
        "query -s tiny 3",
        "query -s nb201 3",
        "run -m spos+calrr -s tiny",
    ],
)
def test_torch_is_not_imported_to_answer(command: str, tmp_path: Path) -> None:
    code = (
        "import sys\ntry:\n    from nasbench.cli import main; main()\nfinally:\n    assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, *shlex.split(command)], cwd=tmp_path, capture_output=True)
    assert done.returncode in (0, 2), done.stderr


@pytest.mark.parametrize("start", [["-m", "nasbench"], ["-c", "from nasbench.cli import main; main()"]])
def test_every_way_to_start_it_is_the_same(start: list[str], tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, *start, "list", "metods"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "nasbench: Unknown listing 'metods'; did you mean 'methods'?\n"


def test_list(tmp_path: Path) -> None:
    everything = json.loads(ok("list --json", tmp_path))
    assert {"spos", "fairnas", "random-search"} <= everything["methods"].keys()
    assert {"calr", "ms"} <= everything["modifiers"].keys()
    assert {"nb201", "tiny"} <= everything["spaces"].keys()
    assert everything["presets"].keys() == PRESETS.keys()
    del everything["spaces_of"]  # stands below each method
    descriptions = everything.pop("descriptions")
    assert [names.keys() for names in descriptions.values()] == [everything[kind].keys() for kind in descriptions]
    assert all(text.endswith(".") for names in descriptions.values() for text in names.values())
    lines = ok("list", tmp_path).splitlines()
    for kind, names in everything.items():
        assert kind in lines
        assert all(any(line.startswith(f"  {name} ") for line in lines) for name in names)
    assert json.loads(ok("list presets --json", tmp_path)) == {"presets": PRESETS}


def test_lists_show_what_was_added(tmp_path: Path, home: Path) -> None:
    (home / "datasets").mkdir()
    (home / "datasets" / "pets.v2.safetensors").touch()
    assert "pets.v2" in json.loads(ok("list --json", tmp_path))["datasets"]
    found = json.loads(ok("data list --json", tmp_path))
    assert found["home"] == str(home)
    assert found["datasets"][-1] == "pets.v2"
    assert "pets.v2" in ok("data list", tmp_path)


def test_a_dataset_is_at_hand_once_its_file_is_there(tmp_path: Path, home: Path) -> None:
    found = json.loads(ok("data list --json", tmp_path))
    assert found["datasets"] == ["cifar10", "cifar100", "digits", "imagenet16-120"]
    assert [*found["missing"]] == ["cifar10", "cifar100", "imagenet16-120"]
    lines = ok("data list", tmp_path).splitlines()
    assert "datasets  digits" in lines
    assert "          cifar10 is not at hand: downloaded by torchvision at first use" in lines
    assert any("`nasbench data add imagenet16-120 FOLDER`" in line for line in lines)
    for file in ("downloads/cifar-10-binary.tar.gz", "datasets/imagenet16-120.safetensors"):
        (home / file).parent.mkdir()
        (home / file).touch()
    assert [*json.loads(ok("data list --json", tmp_path))["missing"]] == ["cifar100"]
    assert "datasets  cifar10, digits, imagenet16-120\n" in ok("data list", tmp_path)


# ---------------------------------------------------------------------- config


@pytest.mark.parametrize(
    "arguments",
    [
        "-m spos -s tiny",
        "-m fairnas+calr[gamma_prime=3,g=linear]+ms[edge=last] -s tiny --preset test --set tiny.width=8",
        "-m spos -s nb201 --preset paper --set 'score.subset=\"a file: of numbers\"' --set train.clip=null",
        "-m random-search -s nb201 --preset cpu --dataset digits --target cifar100 --set train.weight_decay=1e-6",
    ],
)
def test_config_reads_back_as_the_same_recipe(arguments: str, tmp_path: Path) -> None:
    """Also the paper's setting, and without downloading its dataset."""
    text = ok(f"config {arguments}", tmp_path)
    (tmp_path / "my.yaml").write_text(text)
    config = read_config(tmp_path / "my.yaml")
    _, method, _, space, *_ = shlex.split(arguments)
    recipe = resolve(method, space, config=config)
    assert ok(f"config {arguments}", tmp_path) == text
    assert recipe.preset == config["preset"]
    assert yaml.safe_load(text) == {
        **recipe.model_dump(mode="json", include={"dataset", "target", "preset", "seed", *config.keys()}),
        **{name: options for name, options in recipe.options.items() if options},
        "select": {"within": []},
    }


def test_a_run_from_a_config_is_the_same_run(tmp_path: Path) -> None:
    text = ok("config -m spos+ms[edge=last] -s tiny --preset test", tmp_path)
    (tmp_path / "my.yaml").write_text(text.replace("seed: 0", "seed: 7"))
    plan = ok("run -m spos+ms[edge=last] -s tiny --preset test --seed 7 --dry-run", tmp_path)
    assert ok("run --config my.yaml --dry-run", tmp_path) == plan
    assert ok("run -m spos+ms[edge=last] -s tiny --config my.yaml --dry-run", tmp_path) == plan
    assert "seed 7" in plan


def test_config_explains_every_setting(tmp_path: Path) -> None:
    lines = ok("config -m spos+calr -s tiny", tmp_path).splitlines()
    for above, line in itertools.pairwise(lines):
        if line.startswith("  ") and not line.startswith("  #"):
            assert above.startswith("  # "), f"{line.strip()} stands without a word"


def test_flags_win_over_set_over_config_over_preset(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("train: {epochs: 5, lr: 0.5}\ndataset: cifar10\nseed: 3\n")
    command = "run -m spos -s tiny --preset test --dry-run --config my.yaml --set train.epochs=7"
    plan = ok(f"{command} --dataset digits --seed 4", tmp_path)
    assert "7 epochs" in plan
    assert "data digits" in plan
    assert "seed 4" in plan


# ---------------------------------------------------------------------- run


def test_run_prints_what_the_record_holds(tmp_path: Path) -> None:
    out = ok(RUN, tmp_path)
    record = record_of(tmp_path / "runs")
    metrics = {m["name"]: m for m in record["results"][0]["metrics"]}
    tau = metrics["kendall_tau"]
    assert f"Kendall's tau         {tau['value']:.3f} [{tau['low']:.3f}, {tau['high']:.3f}]" in out
    assert f"by parameter count  {metrics['params_tau']['value']:.3f}" in out
    assert f"pick                  {record['results'][0]['arch']}\n" in out
    assert f"{metrics['top1']['value']:.2f} %" in out
    assert f"{metrics['params']['value']:,.0f}" in out
    baseline = metrics["params_tau"]["value"]
    assert ("ranks these architectures better" in out) == (baseline > tau["high"])
    assert ("may rank them as well" in out) == (tau["value"] <= baseline <= tau["high"])
    (path,) = tmp_path.rglob("record.json")
    assert f"record                {path.relative_to(tmp_path)}\n" in out


def test_output_is_never_cut_or_wrapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    deep = Path("a-folder-with-a-long-name", "and-another-one-below-it", "runs")
    out = ok(f"run -m spos+calr[gamma_prime=3] -s tiny --preset test --runs {deep}", tmp_path)
    (path,) = tmp_path.rglob("record.json")
    assert str(path.relative_to(tmp_path)) in out
    assert "spos+calr[gamma_prime=3.0] on tiny" in out
    assert "…" not in out


def test_a_finished_run_is_skipped_and_force_starts_over(tmp_path: Path) -> None:
    first = ok(RUN, tmp_path)
    record = record_of(tmp_path)
    again = ok(RUN, tmp_path)
    assert "finished before" in again
    assert "finished before" not in first
    assert record_of(tmp_path) == record
    assert "(finished)" in ok(f"{RUN} --dry-run", tmp_path)
    forced = ok(f"{RUN} --force", tmp_path)
    assert "finished before" not in forced
    assert {**record_of(tmp_path), "measured": 0} == {**record, "measured": 0}


def test_dry_run_writes_nothing(tmp_path: Path, home: Path) -> None:
    out = ok(f"{RUN} --dry-run --seeds 2", tmp_path)
    assert "seed 0: 8 training steps of 50 images" in out
    assert "seed 1: " in out
    assert "27 architectures to rank" in out
    assert not list(tmp_path.iterdir())
    assert not list(home.iterdir())


@pytest.mark.parametrize(("space", "has"), [("nb201", True), ("tiny", False)])
def test_the_paper_s_setting_is_offered_where_the_space_has_one(tmp_path: Path, space: str, has: bool) -> None:
    out = ok(f"run -m random-search -s {space} --dry-run", tmp_path)
    assert ("--preset paper" in out) == has
    assert "All settings: nasbench config." in out


def test_a_plan_downloads_nothing(tmp_path: Path, home: Path) -> None:
    planned = nasbench(*shlex.split("run -m spos -s nb201 --preset paper --dry-run"), cwd=tmp_path)
    assert (planned.code, planned.out) == (2, "")
    assert "A plan needs the images of cifar10, which are not at hand: downloaded by torchvision" in planned.err
    assert not list(home.iterdir())


def test_a_plan_without_training_says_nothing_of_it(tmp_path: Path) -> None:
    assert "training steps" not in ok("run -m random-search -s tiny --preset test --dry-run", tmp_path)


def test_seeds(tmp_path: Path) -> None:
    out = ok("run -m random-search -s tiny --preset test --set random-search.queries=3 --seeds 3", tmp_path)
    records = [json.loads(path.read_text()) for path in tmp_path.rglob("record.json")]
    assert sorted(r["recipe"]["seed"] for r in records) == [0, 1, 2]
    assert len({r["id"] for r in records}) == 3
    assert "top1 over 3 seeds" in out


def test_means_over_seeds_say_what_they_are_of(capsys: pytest.CaptureFixture[str]) -> None:
    def record(*top1: float) -> dict[str, Any]:
        budgets = ("madds=3M", "madds=9M")[: len(top1)]
        return {
            "results": [
                {"scenario": {"budget": b}, "phase": "search", "metrics": [{"name": "top1", "value": value}]}
                for b, value in zip(budgets, top1, strict=True)
            ]
        }

    show.over_seeds([record(1.0), record(2.0), record(3.0)])
    assert capsys.readouterr().out == "top1 over 3 seeds: 2.00, 95 % interval [0.00, 4.48]\n"
    show.over_seeds([record(1.0, 5.0), record(2.0, 6.0), record(3.0, 7.0)])
    assert capsys.readouterr().out.splitlines() == [
        "top1 over 3 seeds (madds=3M search): 2.00, 95 % interval [0.00, 4.48]",
        "top1 over 3 seeds (madds=9M search): 6.00, 95 % interval [3.52, 8.48]",
    ]


def test_interrupted(tmp_path: Path) -> None:
    """Control-C ends with 130 and a word on how to go on."""
    words = [sys.executable, "-m", "nasbench", *shlex.split(RUN), "--set", "train.epochs=40"]
    words += ["--set", "engine.checkpoint_seconds=0"]
    process = subprocess.Popen(
        words,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job, which this may be, ignores the interrupt, and so would the child.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not list(tmp_path.rglob("step-*")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    goes_on = "the same command goes on from the last checkpoint (one every half minute)"
    assert err == f"nasbench: interrupted; {goes_on}.\n"
    assert not list(tmp_path.rglob("record.json"))
    assert re.search(r"^train: going on after \d+ of 160 steps$", ok(shlex.join(words[3:]), tmp_path), re.MULTILINE)


# ---------------------------------------------------------------------- query


def test_query_tiny(tmp_path: Path) -> None:
    answer = json.loads(ok("query -s tiny 'layer0=linear layer1=skip layer2=bottleneck' --json", tmp_path))
    assert answer["space"] == "tiny"
    assert answer["arch"] == "layer0=linear layer1=skip layer2=bottleneck"
    assert answer["index"] == 11
    assert {"params", "madds", "conv_weights"} <= answer.keys()
    assert {row["split"] for row in answer["ground_truth"]} == {"valid", "test"}
    assert json.loads(ok("query -s tiny 11 --json", tmp_path)) == answer
    text = ok("query -s tiny 11", tmp_path)
    assert all(f"{row['value']:.4f}" in text for row in answer["ground_truth"])


def test_query_of_a_width(tmp_path: Path) -> None:
    wide, narrow = (json.loads(ok(f"query -s tiny 13 --json --set tiny.width={w}", tmp_path)) for w in (32, 16))
    assert wide["params"] > narrow["params"]
    assert wide["ground_truth"] == narrow["ground_truth"]  # of the networks that were trained


def test_query_narrows_down_to_one_number(tmp_path: Path) -> None:
    rows = json.loads(ok("query -s tiny 0 --json", tmp_path))["ground_truth"]
    assert len(rows) == 12  # two splits, five seeds and their mean
    one = ok("query -s tiny 0 --dataset digits --split test --epochs 10 --seed mean --json", tmp_path)
    (row,) = json.loads(one)["ground_truth"]
    seeds = [r["value"] for r in rows if r["split"] == "test" and r["seed"] != "mean"]
    assert row["value"] == pytest.approx(sum(seeds) / 5, abs=1e-4)


def test_query_the_benchmark(tmp_path: Path, shared_data: Path) -> None:
    without = json.loads(ok(f"query -s nb201 '{CONV3}' --json", tmp_path))
    assert (without["index"], without["params"]) == (11718, 1_531_546)
    assert "cifar10" not in {row["dataset"] for row in without["ground_truth"]}

    said = ok(f"data add nb201 {shared_data}/nb201_truth.csv", tmp_path)
    assert said.startswith("15,625 architectures")

    answer = json.loads(ok("query -s nb201 11718 --json", tmp_path))
    assert answer["arch"] == CONV3
    known = {(r["dataset"], r["split"]): r for r in answer["ground_truth"]}
    with (shared_data / "nb201_truth.csv").open() as file:
        (row,) = [row for row in csv.DictReader(file) if row["arch"] == CONV3]
    for dataset in ("cifar10", "cifar100", "imagenet16-120"):
        for split in ("valid", "test"):
            found = known[dataset, split]
            assert found["value"] == pytest.approx(float(row[f"{dataset.replace('-', '_')}_{split}"]), abs=1e-4)
            assert (found["table"], found["epochs"], found["seed"], found["unit"]) == ("nb201", 200, "mean", "%")
    assert known["cifar10", "test"]["params"] == 1_531_546
    assert known["cifar100", "test"]["params"] == 1_531_546 + 90 * 65
    text = ok("query -s nb201 11718 --dataset cifar100 --split test --epochs 200 --seed mean", tmp_path)
    assert f"{known['cifar100', 'test']['value']:.4f}" in text
    assert f"{known['cifar10', 'test']['value']:.4f}" not in text


# ---------------------------------------------------------------------- leaderboard


def test_leaderboard(tmp_path: Path) -> None:
    ok(f"{RUN} --seeds 2", tmp_path)
    text = ok("leaderboard", tmp_path)
    assert text.startswith("# tiny, ranked against digits")
    table = list(csv.DictReader(io.StringIO(ok("leaderboard --format csv", tmp_path))))
    assert [(row["method"], row["n"]) for row in table] == [("spos+ms", "2")]
    assert "\\toprule" in ok("leaderboard --format latex", tmp_path)

    wrote = ok("leaderboard --out boards", tmp_path)
    (board,) = (tmp_path / "boards").glob("*.md")
    assert wrote == f"wrote {board.relative_to(tmp_path)}\n"
    assert len(list((tmp_path / "boards" / "records").iterdir())) == 2
    ok("leaderboard --check --out boards", tmp_path)

    board.write_text(board.read_text().replace("spos+ms", "the best method"))
    stale = nasbench("leaderboard", "--check", "--out", "boards", cwd=tmp_path)
    assert stale.code == 1
    assert stale.out == ""
    remedy = stale.err.partition("run `nasbench ")[2].partition("`")[0]
    ok(remedy, tmp_path)
    ok("leaderboard --check --out boards", tmp_path)
