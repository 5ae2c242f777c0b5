"""EAS as a whole: what the generator learns from, what it leaves alone, what a run answers."""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nasbench_eas.deployment import Scenario
from nasbench_eas.generator import relax
from nasbench_mobile.mobilenet_v3 import MobileNetV3
from safetensors.torch import load_file

from nasbench import BadInput, Run, hookimpl
from nasbench.budget import Budget
from nasbench.data import Batch
from nasbench.harness import execute
from nasbench.recipe import resolve
from nasbench.results.specialize import specialize
from tests.command import nasbench
from tests.conftest import RunTiny
from tests.nasbench_eas.conftest import Prepare

ROUND, STRAIGHT, HOOKED = {0, 6, 8, 9}, {1, 4, 7}, {2, 3, 5}


class Watch:
    """Keeps the supernet's weights before and after the generator is trained."""

    def __init__(self) -> None:
        self.before: dict[str, torch.Tensor] = {}
        self.after: dict[str, torch.Tensor] = {}

    @hookimpl
    def progress(self, run: Run, stage: str) -> None:
        if stage == "supernet":
            self.before = copy.deepcopy(run.net.state_dict())

    @hookimpl
    def run_finished(self, run: Run) -> None:
        self.after = run.net.state_dict()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, Watch]:
    """A finished run of EAS on digits: its record, the record's path, what was seen."""
    watch = Watch()
    runs = tmp_path_factory.mktemp("runs")
    return *execute(resolve("eas", "mobilenetv3", preset="test"), runs, observers=[watch]), watch


def metrics(result: dict[str, Any]) -> dict[str, Any]:
    return {m["name"]: m["value"] for m in result["metrics"]}


@pytest.mark.invariant("eas", 7)
def test_training_the_generator_leaves_the_supernet_bit_identical(finished: tuple[Any, Path, Watch]) -> None:
    *_, watch = finished
    assert watch.before.keys() == watch.after.keys()
    assert all(torch.equal(value, watch.after[name]) for name, value in watch.before.items())
    assert not any("running" in name for name in watch.after)  # nothing that a forward pass could change


@pytest.mark.invariant("eas", 7)
def test_one_step_moves_the_generator_alone(prepared: Prepare) -> None:
    run = prepared("eas", eas={"epochs": 1, "batch_size": 64})
    run.hook.train(run=run)
    eas: Any = run.plugins["eas"]
    trained = copy.deepcopy(eas._generator.state_dict())
    with run.seeded("generator"):
        fresh = eas.fresh(run).state_dict()
    assert trained.keys() == fresh.keys()
    moved = {name for name, value in trained.items() if not torch.equal(value, fresh[name])}
    assert {"budget.weight", "superclass.weight", "kernel.weight", "width.weight", "depth.weight"} <= moved
    assert all(p.requires_grad for p in run.net.parameters())


@pytest.mark.invariant("eas", 8)
def test_a_step_sees_images_of_one_superclass_that_do_not_decide_later(prepared: Prepare) -> None:
    run, seen = prepared("eas", eas={"epochs": 20, "batch_size": 8}), []
    eas: Any = run.plugins["eas"]
    learn, pick = (set(rows.tolist()) for rows in eas.validation(run))
    assert learn | pick == set(range(40))
    assert not learn & pick
    assert len(pick) == 10  # of 4 images a class, a fifth is 0.8: one each

    def loss(run: Run, batch: Batch, mixture: torch.Tensor, t: int, budget: float) -> Any:
        seen.append((t, set(batch.labels.tolist()), budget))
        return mixture.sum(), torch.tensor(0.0)

    object.__setattr__(eas, "loss", loss)
    batches: list[set[int]] = []
    whole = run.data.batch
    run.data.batch = lambda split, rows: (batches.append(set(rows.tolist())), whole(split, rows))[1]
    run.net = run.hook.build_supernet(run=run)
    eas._generator = eas.fresh(run)
    run.stage("generator", lambda: eas.learn(run))
    assert len(seen) == 20 * 4  # 30 images in batches of 8
    assert all(rows <= learn for rows in batches)
    for t, labels, budget in seen:
        assert labels <= (ROUND, STRAIGHT, HOOKED)[t]
        assert eas.in_madds(run, 0.27) <= budget <= eas.in_madds(run, 0.97)
    assert {t for t, *_ in seen} == {0, 1, 2}


@pytest.mark.invariant("eas", 9)
@pytest.mark.parametrize("unit", [1e6, None])
def test_the_loss_is_cross_entropy_in_the_superclass_plus_the_squared_gap(prepared: Prepare, unit: Any) -> None:
    run = prepared("eas", eas={"unit": unit, "penalty": 0.3})
    eas: Any = run.plugins["eas"]
    run.net = run.hook.build_supernet(run=run)
    rows = torch.nonzero(torch.isin(run.data.valid.labels, torch.tensor([2, 3, 5])))[:, 0]
    batch = run.data.batch("valid", rows)
    z = torch.randn(45, 2, generator=torch.Generator().manual_seed(0))
    mixture = relax(z, torch.rand(45, 2, generator=torch.Generator().manual_seed(1)), 1.0)
    loss, cost = eas.loss(run, batch, mixture, 2, 300_000.0)
    arch = tuple(mixture.argmax(-1).tolist())
    assert cost.item() == run.space.cost(arch)["madds"]
    with torch.no_grad():
        logits = run.net(batch.images, [arch])[0][:, [2, 3, 5]]  # the subnet itself: masked equals sliced
    labels = torch.tensor([[2, 3, 5].index(label) for label in batch.labels.tolist()])
    scale = unit or run.space.cost_range("madds")[1] / 566.170656
    by_hand = F.cross_entropy(logits, labels).item() + 0.3 * ((cost.item() - 300_000) / scale) ** 2
    assert loss.item() == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.invariant("eas", 10)
def test_each_scenario_has_an_architecture_inside_its_budget_with_its_network(
    finished: tuple[Any, Path, Watch],
) -> None:
    record, path, _ = finished
    space = MobileNetV3(**record["recipe"]["options"]["mobilenetv3"])
    largest = space.cost_range("madds")[1]
    budgets = [float(f"{share * largest:.3g}") for share in (0.6, 0.9)]
    scenarios = [(Budget.parse(r["scenario"]["budget"]).value, r["scenario"]["superclass"]) for r in record["results"]]
    assert scenarios == [(b, name) for b in budgets for name in ("round", "straight", "hooked")]
    for result in record["results"]:
        arch, found = space.parse(result["arch"]), metrics(result)
        budget = Budget.parse(result["scenario"]["budget"]).value
        assert found["madds"] == space.cost(arch)["madds"] <= budget
        assert (found["within_budget"], found["budget_gap"]) == (1, budget - found["madds"])
        network = space.build(arch)
        network.load_state_dict(load_file(path.parent / result["network"]))
        norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert all(norm.running_mean.any() for norm in norms)  # recalibrated


@pytest.mark.invariant("eas", 11)
def test_the_reported_averages_are_the_means_over_superclasses(finished: tuple[Any, Path, Watch]) -> None:
    record, *_ = finished
    rows = defaultdict(list)
    for result in record["results"]:
        rows[result["scenario"]["budget"]].append(metrics(result))
    for found in rows.values():
        assert len(found) == 3
        for name, of in (("average_top1", "top1"), ("average_madds", "madds")):
            mean = sum(each[of] for each in found) / 3
            assert [each[name] for each in found] == pytest.approx([mean] * 3)


@pytest.mark.invariant("eas", 12)
def test_eas_v_has_one_architecture_for_all_superclasses(run_tiny: RunTiny) -> None:
    record = run_tiny("eas-v", space="mobilenetv3")
    for i in (0, 3):
        same = record["results"][i : i + 3]
        assert len({result["arch"] for result in same}) == 1
        assert [metrics(result)["similarity"] for result in same] == pytest.approx([1.0] * 3)


@pytest.mark.invariant("eas", 12)
def test_eas_v_is_not_told_the_superclass(prepared: Prepare) -> None:
    run = prepared("eas-v")
    eas: Any = run.plugins["eas-v"]
    eas._generator = eas.fresh(run)
    z = eas.logits(run, [Scenario(3e5, 0), Scenario(3e5, 2), Scenario(3e5, None), Scenario(4e5, 0)])
    assert torch.equal(z[0], z[1])
    assert torch.equal(z[0], z[2])
    assert not torch.equal(z[0], z[3])


def test_the_multi_path_generator_keeps_to_budgets_too(run_tiny: RunTiny) -> None:
    record = run_tiny("eas[encoding=multi_path,epochs=1,budgets=[0.5]]", space="mobilenetv3")
    assert [metrics(result)["within_budget"] for result in record["results"]] == [1, 1, 1]


# ---------------------------------------------------------------------- another scenario, later


@pytest.mark.invariant("eas", 13)
def test_a_finished_run_answers_other_scenarios_without_training(finished: tuple[Any, Path, Watch]) -> None:
    record, path, _ = finished
    scenario = {"budget": "madds=333K", "superclass": "straight"}
    answer, folder = specialize(path, scenario)
    assert answer["scenario"] == scenario
    found = metrics(answer)
    assert found["madds"] <= 333_000
    assert found["top1"] is not None
    again, _ = specialize(path, scenario)
    assert again == answer
    assert json.loads((folder / "result.json").read_text()) == answer
    space = MobileNetV3(**record["recipe"]["options"]["mobilenetv3"])
    space.build(space.parse(answer["arch"])).load_state_dict(load_file(folder / answer["network"]))


@pytest.mark.parametrize(
    ("scenario", "sentence"),
    [
        ({"budget": "madds=333K"}, "needs --budget madds=... and --superclass, one of round, straight, hooked."),
        (
            {"budget": "keep=0.4", "superclass": "round"},
            "takes budgets of multiply-adds, like madds=300M, not keep=0.4",
        ),
        ({"budget": "madds=1K", "superclass": "round"}, "below the smallest architecture's; take madds="),
        ({"budget": "madds=333K", "superclass": "rund"}, "did you mean 'round'?"),
    ],
)
def test_scenarios_that_cannot_be_served(
    finished: tuple[Any, Path, Watch], scenario: dict[str, str], sentence: str
) -> None:
    with pytest.raises(BadInput) as error:
        specialize(finished[1], scenario)
    assert sentence in str(error.value)


def test_settings_that_cannot_work_are_refused_before_training(prepared: Prepare, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="below the smallest architecture's; take madds="):
        prepared("eas", eas={"budgets": [0.01]})
    with pytest.raises(BadInput, match="recalibration_images = 41 is more than the 40"):
        prepared("eas", eas={"recalibration_images": 41})
    with pytest.raises(BadInput, match="eas and superclass-dropout both decide 'prepare_batch'"):
        prepared("eas+superclass-dropout")
    refused = nasbench("run", "-m", "eas", "-s", "tiny", "--preset", "test", cwd=tmp_path)
    assert (refused.code, refused.err) == (
        2,
        "nasbench: eas shrinks kernels, depths and widths; tiny has no such decisions.\n",
    )
