"""Tables in the form of the paper's, from records."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from nasbench_eas.report import accuracy_table, cost_table, report

from nasbench import BadInput


def record(method: str, seed: int, top1: list[float], seconds: dict[str, float], **options: Any) -> dict[str, Any]:
    """One budget, as many superclasses as accuracies, 2 million MAdds each."""
    results = []
    for i, value in enumerate(top1):
        numbers = {"top1": value, "average_top1": sum(top1) / len(top1), "average_madds": 2e6}
        metrics = [{"name": name, "value": number} for name, number in numbers.items()]
        results.append({"scenario": {"budget": "madds=2.5M", "superclass": f"T-{i}"}, "metrics": metrics})
    recipe = {"method": method, "seed": seed, "dataset": "d", "preset": "p", "options": {method.split("+")[0]: options}}
    about = {"format": 1, "id": f"{seed}", "dataset_hash": ""}
    return {**about, "recipe": recipe, "results": results, "measured": {"seconds": seconds}}


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "---" not in line]


def test_a_row_is_the_mean_over_seeds() -> None:
    found = [record("eas[epochs=3]", 0, [80.0, 90.0], {}), record("eas[epochs=3]", 1, [82.0, 94.0], {})]
    assert cells(accuracy_table(found)) == [
        ["budget", "method", "T-0", "T-1", "Avg. Acc. (%)", "Avg. MAdds (M)"],
        ["madds=2.5M", "eas", "81.0", "92.0", "86.5", "2.00"],
    ]


def test_costs_count_training_search_and_project_what_was_measured() -> None:
    eas = record("eas", 0, [80.0], {"supernet": 500.0, "generator": 30.0, "propose": 0.02, "pick": 4.0})
    ofa = record("ofa-t", 0, [80.0], {"accuracies": 200.0, "predictor": 10.0, "propose": 60.0}, samples=100)
    _, first, second = cells(cost_table([eas, ofa]))
    assert first == ["eas", "30.0", "4.02", "1", "", "", ""]
    assert second == ["ofa-t", "210.0", "60.00", "1", "100", "2.00", "8.9"]  # 16,000 x 2 s


def test_the_module_prints_what_a_folder_holds(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no record with superclasses"):
        report(tmp_path)
    for name, content in (("a", record("eas", 0, [80.0], {})), ("b", {**record("spos", 0, [], {}), "id": "b"})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").write_text(json.dumps(content))
    text = report(tmp_path)
    assert "Top-1 (%) on d, preset p, seed 0" in text
    done = subprocess.run(
        [sys.executable, "-m", "nasbench_eas.report", str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == text + "\n"
