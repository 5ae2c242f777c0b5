"""The rates rise as they should, and warmup keeps the rules that every modifier of nasbench keeps."""

from pathlib import Path

import pytest

import nasbench
from nasbench import Run, hookimpl
from nasbench.testing import Check, checks


@pytest.mark.parametrize("check", checks("modifier", "warmup"), ids=str)
def test_conformance(check: Check) -> None:
    check()


class Rates:
    """Keeps the learning rate of each step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    @hookimpl
    def progress(self, run: Run, stage: str) -> None:
        if stage == "train":
            self.seen.append(run.info["lr"])


def test_the_rate_rises_over_the_first_half_and_is_the_method_s_after_it(tmp_path: Path) -> None:
    rates = Rates()
    sets = {"train.epochs": 2, "train.schedule": "constant", "train.lr": 0.4}
    nasbench.run("spos+warmup[share=0.5]", "tiny", preset="test", sets=sets, runs=tmp_path, observers=[rates])
    assert rates.seen == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4, 0.4])
