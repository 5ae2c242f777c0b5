"""Numbers printed in papers: the data, and reading it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from nasbench import BadInput
from nasbench.plugins import build_terms, format_label
from nasbench.results.leaderboard import REPORTED
from nasbench.results.reported import Entry, find, installed, read
from tests.conftest import Install

PAPERS = {name: read(folder) for name, folder in installed().items()}
LABELS = sorted({entry.label for paper in PAPERS.values() for entry in paper.entries if entry.label})
ENTRY = "method: SPOS, space: nb201, dataset: cifar10, metric: top1, mean: 93, source_table: Table A"
#: What this project calls them.
NAMES = {
    "nasbench201": "nb201",
    "mobilenet_proxyless": "mobilenet",
    "ofa_mobilenetv3": "mobilenetv3",
    "mobilenet": "mobilenet of 17 layers",
    "channel_pruning/resnet18": "resnet18",
    "channel_pruning/vgg16": "vgg16",
    "top1_acc": "top1",
    "searched_top1_acc": "top1",
    "avg_top1_acc": "average_top1",
    "top5_acc": "top5",
}
#: A space whose name says how it is configured.
SETTINGS = {
    "darts/small-config": {"config": "small"},
    "darts/large-config": {"config": "large"},
    "darts (~0.7M)": {"config": "0.7M"},
    "darts (8 cells)": {"config": "8 cells"},
    "dass original": {"config": "the original paper"},
    **{f"darts/search-space-{i} (8 cells, C=36)": {"variant": f"SS{i}"} for i in (1, 2, 3)},
}
ABOUT = {"granularity", "upper_bound", "significant_p05"}
RANGES = {"range_mflops", "ops_per_2_epochs", "filter_pct_per_2_epochs"}


@pytest.mark.parametrize("label", LABELS)
def test_every_label_can_be_built_and_is_canonical(label: str) -> None:
    assert format_label(build_terms(label, {})) == label


def test_the_copy_is_complete_and_unchanged(shared_data: Path) -> None:
    """Under the names of this project, number by number."""
    original = yaml.safe_load((shared_data.parent / "specs" / "reported.yaml").read_text())["records"]

    def plain(entry: dict[str, Any]) -> dict[str, Any]:
        entry = {k: v for k, v in entry.items() if v is not None}
        setting = {k: v for k, v in entry.get("setting", {}).items() if v is not None}
        for name in ("budget_level", "superclass"):
            setting |= {name: entry[name]} if name in entry else {}
        space = entry["space"].removesuffix(" (not stated)")
        return {
            **{k: entry.get(k) for k in ("method", "mean", "std", "params_m", "madds_m")},
            "unit": entry.get("unit", ""),
            "space": "darts" if space in SETTINGS else NAMES.get(space, space),
            "dataset": entry["dataset"].partition(" (")[0],
            "metric": NAMES.get(entry["metric"], entry["metric"]),
            "setting": {k: v for k, v in setting.items() if k not in RANGES} | SETTINGS.get(space, {}),
            "about": {k: v for k, v in (entry | setting).items() if k in ABOUT - {*setting} | RANGES},
            "source_table": re.sub("^(DANCE|MG-DARTS|EAS|DynSupernet) ", "", entry["source_table"]),
            "in_supplement": entry.get("in_supplement", True),
        }

    assert len(original) == 1011
    for name, paper in PAPERS.items():
        theirs = [plain(entry) for entry in original if entry["system"] == name.replace("-", "_")]
        assert [entry.model_dump(exclude={"label"}) for entry in paper.entries] == theirs
    assert sum(len(paper.entries) for paper in PAPERS.values()) == len(original)


@pytest.mark.parametrize(
    ("label", "dataset", "tau", "top1"),
    [
        ("spos", "cifar10", "0.751 ± 0.008 (Table F)", "93.12 ± 0.03 (Table A)"),
        ("spos+calr+ms", "cifar10", "0.814 ± 0.007 (Table E)", "93.50 ± 0.33 (Table A)"),
        ("fairnas+ms", "cifar10", "0.784 ± 0.007 (Table E)", None),
        ("fairnas+calr[g=linear]+ms", "cifar10", "0.813 ± 0.011 (Table E)", None),
        ("fsnas+calr[complexity=madds]+ms", "cifar10", "0.756 ± 0.010 (Table F)", None),
        ("spos+calr[gamma_prime=2.0]+ms", "cifar10", "0.787 ± 0.001 (Table K)", None),
        ("spos+ms+proportional", "cifar10", "0.784 ± 0.012 (Table G)", None),
        ("fsnas", "cifar100", "0.757 ± 0.013 (main-paper NB201 table)", "69.49 ± 0.08 (main-paper NB201 table)"),
        ("spos+calr", "cifar10", None, None),
    ],
)
def test_what_is_printed_for_a_label(label: str, dataset: str, tau: str | None, top1: str | None) -> None:
    found = [(find(PAPERS.values(), label, "nb201", dataset, name), digits) for _, name, digits in REPORTED]
    assert [one[1].text(digits) if one else None for one, digits in found] == [tau, top1, None]


@pytest.mark.parametrize(
    ("label", "top1", "density"),
    [
        ("darts-v1+retrain", "97.00 ± 0.14", "29.39"),
        ("pc-darts+retrain", "97.43", "27.06"),
        ("gdas+retrain", "97.07", "28.55"),
        ("dass", "95.49", "133.92"),
        ("mg-darts", "97.47", "44.30"),
    ],
)
def test_accuracy_density_is_printed_for_the_darts_space(label: str, top1: str, density: str) -> None:
    found = [(find(PAPERS.values(), label, "darts", "cifar10", name), digits) for _, name, digits in REPORTED]
    texts = [one[1].text(digits) if one else None for one, digits in found]
    assert texts == [None, f"{top1} (Table I)", f"{density} (Table I)"]


def test_numbers_printed_for_one_label_agree() -> None:
    """So that it does not matter which table comes first."""
    seen: dict[Any, Entry] = {}
    for paper in PAPERS.values():
        for entry in paper.entries:
            if entry.label:
                first = seen.setdefault((entry.label, entry.space, entry.dataset, entry.metric), entry)
                assert (first.mean, first.std) == (entry.mean, entry.std), (first, entry)


def test_a_paper_that_cannot_be_imported_is_named(install: Install) -> None:
    install("press", papers={"press": "no_such_module:HERE"})
    with pytest.raises(BadInput, match=r"The paper 'press' of press 1\.0 cannot be imported"):
        installed()


def test_a_paper_that_is_no_folder_is_named(install: Install) -> None:
    install("press", papers={"press": "json:dumps"})
    with pytest.raises(BadInput, match=r"json:dumps, registered as the paper 'press', is no folder"):
        installed()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "cannot be read as YAML"),
        ("[]", "entries to a list"),
        ("paper: P\nnote: N\nentries: 3", "entries to a list"),
        ("paper: P\nentries: []", "must map paper and note to text"),
        ("paper: 1\nnote: N\nentries: []", "reported.yaml: paper = 1 does not fit"),
        (f"paper: P\nnote: N\nentries: [{{{ENTRY}, labl: spos}}]", "reported.yaml: entry 1: label'?"),
        (f"paper: P\nnote: N\nentries: [{{{ENTRY}, std: .nan}}]", "reported.yaml: entry 1: std = nan does not fit"),
        ("paper: P\nnote: N\nentries: [{method: SPOS}]", "reported.yaml: entry 1: space is missing"),
        ("paper: P\nnote: N\nentries: [3]", "entries to a list"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "reported.yaml").write_text(content)
    with pytest.raises(BadInput, match=r"reported\.yaml") as caught:
        read(tmp_path)
    assert sentence in str(caught.value)
