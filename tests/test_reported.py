"""Numbers printed in papers: the data, and reading it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from nasbench import BadInput
from nasbench.leaderboard import REPORTED
from nasbench.plugins import build_terms, format_label
from nasbench.reported import Entry, find, read

FOLDER = Path(__file__).parents[1] / "leaderboards" / "reported"
PAPERS = read(FOLDER)
LABELS = sorted({entry.label for paper in PAPERS for entry in paper.entries if entry.label})
ENTRY = "method: SPOS, space: nb201, dataset: cifar10, metric: top1, mean: 93, source_table: Table A"
#: What this project calls them.
NAMES = {"nasbench201": "nb201", "searched_top1_acc": "top1"}


@pytest.mark.parametrize("label", LABELS)
def test_every_label_can_be_built_and_is_canonical(label: str) -> None:
    assert format_label(build_terms(label, {})) == label


def test_the_copy_is_complete_and_unchanged(shared_data: Path) -> None:
    original = yaml.safe_load((shared_data.parent / "specs" / "reported.yaml").read_text())["records"]

    def plain(entry: dict[str, Any]) -> dict[str, Any]:
        kept = {k: v for k, v in entry.items() if v is not None and k not in ("system", "table")}
        kept["source_table"] = kept["source_table"].removeprefix("DynSupernet ")
        setting = {k: v for k, v in entry.get("setting", {}).items() if v is not None}
        return {**kept, **{k: NAMES.get(kept[k], kept[k]) for k in ("space", "metric")}, "setting": setting}

    ours = yaml.safe_load((FOLDER / "dynamic_supernet.yaml").read_text())["entries"]
    mine = [{"setting": {}, **{k: v for k, v in entry.items() if k != "label"}} for entry in ours]
    assert mine == [plain(entry) for entry in original if entry["system"] == "dynamic_supernet"]


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
    found = [(find(PAPERS, label, "nb201", dataset, name), digits) for _, name, digits in REPORTED]
    assert [one[1].text(digits) if one else None for one, digits in found] == [tau, top1]


def test_numbers_printed_for_one_label_agree() -> None:
    """So that it does not matter which table comes first."""
    seen: dict[Any, Entry] = {}
    for paper in PAPERS:
        for entry in paper.entries:
            if entry.label:
                first = seen.setdefault((entry.label, entry.space, entry.dataset, entry.metric), entry)
                assert (first.mean, first.std) == (entry.mean, entry.std), (first, entry)


def test_no_folder_means_no_papers(tmp_path: Path) -> None:
    assert read(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "cannot be read as YAML"),
        ("[]", "entries to a list"),
        ("paper: P\nnote: N\nentries: 3", "entries to a list"),
        ("paper: P\nentries: []", "must map paper and note to text"),
        ("paper: 1\nnote: N\nentries: []", "mine.yaml: paper = 1 does not fit"),
        (f"paper: P\nnote: N\nentries: [{{{ENTRY}, labl: spos}}]", "did you mean 'mine.yaml: entry 1: label'?"),
        (f"paper: P\nnote: N\nentries: [{{{ENTRY}, std: .nan}}]", "mine.yaml: entry 1: std = nan does not fit"),
        ("paper: P\nnote: N\nentries: [{method: SPOS}]", "mine.yaml: entry 1: space = "),
        ("paper: P\nnote: N\nentries: [3]", "entries to a list"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(BadInput, match=r"mine\.yaml") as caught:
        read(tmp_path)
    assert sentence in str(caught.value)
