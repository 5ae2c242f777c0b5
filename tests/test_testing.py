"""Every plugin that is installed passes the conformance suite; deliberately wrong ones are caught by name."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import nasbench_tiny.tiny
import pytest
import torch
from nasbench_tiny.tiny import Tiny
from pydantic import PrivateAttr

from nasbench import Arch, BadInput, Choice, Evaluator, Method, Metric, Modifier, Plugin, Run, SearchSpace, hookimpl
from nasbench.plugins import discover
from nasbench.stages import python_stream
from nasbench.testing import SUITES, Check, Failure, checks
from nasbench.testing.observers import Witness
from nasbench.testing.suite import Suite
from tests import shapes
from tests.command import nasbench
from tests.conftest import Install

EVERY = [
    pytest.param(check, id=f"{kind} {name}: {check}")
    for kind in SUITES
    for name in discover(kind)
    for check in checks(kind, name)
]


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what is slow and tested elsewhere."""
    monkeypatch.setattr("nasbench.evaluators.tau_interval", lambda *_: None)
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.mark.parametrize("check", EVERY)
def test_every_plugin(check: Check) -> None:
    check()


# ---------------------------------------------------------------------- methods and modifiers that are wrong


class Breaks(Method):
    """A bug that every run meets."""

    @hookimpl
    def search(self, run: Run) -> list[Choice]:
        raise ZeroDivisionError("division by zero")


class Uniform(Method):
    @hookimpl
    def sample_archs(self, run: Run) -> list[Arch]:
        return [run.space.sample(run.rng("archs"))]


class Pick(Method):
    """Chooses without training."""

    @hookimpl
    def search(self, run: Run) -> list[Choice]:
        return [Choice(run.space.sample(run.rng("pick")))]


class GlobalRandom(Method):
    @hookimpl
    def sample_archs(self, run: Run) -> list[Arch]:
        return [run.space.sample(random)]  # type: ignore[arg-type]


class GlobalTorch(Method):
    @hookimpl
    def search(self, run: Run) -> list[Choice]:
        return [Choice(tuple(torch.randint(3, (3,)).tolist()))]


class ClassState(Method):
    count: ClassVar[list[int]] = [0]

    @hookimpl
    def sample_archs(self, run: Run) -> list[Arch]:
        self.count[0] += 1
        return [run.space.from_number(self.count[0] % 26)]


class Forgetful(Method):
    _count: int = PrivateAttr(0)

    @hookimpl
    def sample_archs(self, run: Run) -> list[Arch]:
        self._count += 1
        return [run.space.from_number(self._count % 26)]


class OneStream(Method):
    @hookimpl
    def sample_archs(self, run: Run) -> list[Arch]:
        return [run.space.sample(python_stream("archs", run.step))]


class DeclaresTooMuch(Pick):
    calls: ClassVar[frozenset[str]] = frozenset({"score"})


class DeclaresTooLittle(Uniform):
    @hookimpl
    def search(self, run: Run) -> list[Choice]:
        run.hook.train(run=run)
        return [Choice((0, 0, 0))]


class LooksAtTheTestColumn(Method):
    @hookimpl
    def search(self, run: Run) -> list[Choice]:
        assert run.truth is not None
        truth = run.truth.query(archs := list(run.space.architectures()), "test", run.recipe.target)
        return [Choice(max(zip(truth, archs, strict=True))[1])]


class LooksAtTheTestImages(Uniform):
    @hookimpl
    def score(self, run: Run, archs: list[Arch]) -> list[float]:
        run.data.batches("test", 50)
        return [float(sum(arch)) for arch in archs]


class RefusesEverything(Uniform):
    @hookimpl
    def refuse(self) -> str:
        return "Not today."


class RefusesEverybody(Modifier):
    @hookimpl
    def refuse(self) -> str:
        return "Not with you."

    @hookimpl
    def after_epoch(self) -> None:
        """Nothing."""


class ChoosesNothing(Method):
    @hookimpl
    def search(self) -> list[Choice]:
        return []


class ChoosesOutside(Method):
    @hookimpl
    def search(self) -> list[Choice]:
        return [Choice((0, 0, 2), scenario={"fine": 1}), Choice([0, 0, 0])]  # type: ignore[arg-type]


class TupleScenario(Method):
    @hookimpl
    def search(self) -> list[Choice]:
        return [Choice((0, 0, 0), scenario={"range": (1, 2)})]


class BreaksWithOthers(Modifier):
    @hookimpl
    def refuse(self, run: Run) -> str | None:
        return {1: None}[len(run.plugins) - 1]

    @hookimpl
    def after_epoch(self) -> None:
        """Nothing."""


class RefusesAtLength(Modifier):
    @hookimpl
    def refuse(self, run: Run) -> str | None:
        return "First,\nsecond." if len(run.plugins) > 2 else None

    @hookimpl
    def after_epoch(self) -> None:
        """Nothing."""


class Undescribed(Uniform):
    rate: float = 1.0


class WrongDefault(Uniform):
    rate: float = "fast"  # type: ignore[assignment]
    """A rate."""


class NotANumber(Evaluator):
    value: ClassVar[float] = float("nan")

    @hookimpl
    def evaluate(self, run: Run, choices: list[Choice]) -> list[Metric]:
        return [Metric(name="mine", value=self.value, definition="nothing")]


class Infinite(NotANumber):
    value: ClassVar[float] = float("inf")


class BadInterval(Evaluator):
    @hookimpl
    def evaluate(self, run: Run, choices: list[Choice]) -> list[Metric]:
        return [Metric(name="mine", value=1, low=float("nan"), definition="something")]


class Undefined(Evaluator):
    @hookimpl
    def evaluate(self, run: Run, choices: list[Choice]) -> list[Metric]:
        return [Metric(name="mine", value=1, definition=" ")]


class Silent(Evaluator):
    @hookimpl
    def evaluate(self, run: Run, choices: list[Choice]) -> list[Metric]:
        return []


class Clashing(Evaluator):
    @hookimpl
    def evaluate(self, run: Run, choices: list[Choice]) -> list[Metric]:
        return [Metric(name="params", value=1, definition="a name that is taken")]


# ---------------------------------------------------------------------- spaces that are wrong


class SamplesOutside(Tiny):
    def sample(self, rng: random.Random) -> Arch:
        return tuple(rng.choice(range(3)) for _ in range(3))


class MutatesTwice(Tiny):
    def mutate(self, arch: Arch, rng: random.Random) -> Arch:
        return super().mutate(super().mutate(arch, rng), rng)


class CrossesWithStrangers(Tiny):
    def crossover(self, a: Arch, b: Arch, rng: random.Random) -> Arch:
        return self.sample(rng)


class LosesNeighbours(Tiny):
    def neighbours(self, arch: Arch) -> Iterator[Arch]:
        yield from list(super().neighbours(arch))[1:]


class WrongCost(Tiny):
    key: ClassVar[str] = "params"

    def cost(self, arch: Arch) -> dict[str, int]:
        cost = super().cost(arch)
        return {**cost, self.key: cost[self.key] + (arch[0] == 2)}


class WrongWeights(WrongCost):
    key: ClassVar[str] = "conv_weights"


class WrongMAdds(WrongCost):
    key: ClassVar[str] = "madds"


class NarrowRange(Tiny):
    def cost_range(self, name: str) -> tuple[int, int]:
        low, high = super().cost_range(name)
        return low, high - 1


class ParsesBackwards(Tiny):
    def parse(self, text: str) -> Arch:
        return super().parse(text)[::-1]


class MiscountsBackwards(Tiny):
    def number(self, arch: Arch) -> int:
        return super().number(arch[::-1])


class Shuffled(torch.nn.Module):
    """The supernet of tiny, with something done to its logits."""

    def __init__(self, space: SearchSpace, change: Any) -> None:
        super().__init__()
        self.net, self.change = Tiny.supernet(space), change  # type: ignore[arg-type]

    def forward(self, images: torch.Tensor, archs: list[Arch]) -> torch.Tensor:
        logits: torch.Tensor = self.change(self.net(images, archs))
        return logits


class Together(Tiny):
    def supernet(self) -> torch.nn.Module:
        return Shuffled(self, lambda logits: logits - logits.mean(0))


class Detached(Tiny):
    def supernet(self) -> torch.nn.Module:
        return Shuffled(self, lambda logits: logits * 0)


class BatchFirst(Tiny):
    def supernet(self) -> torch.nn.Module:
        return Shuffled(self, lambda logits: logits.transpose(0, 1).clone())


class Unseeded(Tiny):
    def supernet(self) -> torch.nn.Module:
        net = super().supernet()
        torch.nn.init.constant_(net.stem.weight, random.random())  # type: ignore[union-attr, arg-type]
        return net


WRONG: list[tuple[type[Plugin], str, str]] = [
    (GlobalRandom, "same seed same record", r"Draw from run\.rng"),
    (GlobalTorch, "same seed same record", r"Draw from run\.rng"),
    (ClassState, "same seed same record", "Keep no state outside the instance"),
    (Forgetful, "killed and resumed same record", "Return from state_dict"),
    (OneStream, "another seed another random stream", r"every seed draws from \('archs', \d+\)"),
    (DeclaresTooMuch, "calls what it declares", "Take 'score' out of `calls`"),
    (DeclaresTooLittle, "calls what it declares", "Add 'train' to `calls`"),
    (LooksAtTheTestColumn, "search reads no test results", "no single mean test accuracy"),
    (LooksAtTheTestImages, "search reads no test results", r"Leave run\.data\.test alone"),
    (RefusesEverything, "runs at the preset test", r"Tried: RefusesEverything on tiny: Not today\."),
    (RefusesEverybody, "runs at the preset test", r"Tried: .*\+RefusesEverybody on tiny: Not with you\."),
    (ChoosesNothing, "runs at the preset test", "Return at least one Choice"),
    (ChoosesOutside, "runs at the preset test", r"\[0, 0, 0\] is none"),
    (TupleScenario, "record survives json", "JSON changed the record"),
    (BreaksWithOthers, "composes or refuses in a sentence", r"it broke \(KeyError: 2\)"),
    (RefusesAtLength, "composes or refuses in a sentence", "in one sentence"),
    (Undescribed, "options are described and their defaults valid", "docstring below the option rate"),
    (WrongDefault, "options are described and their defaults valid", r"WrongDefault\.rate = 'fast' does not fit"),
    (NotANumber, "metrics are defined and finite", "Report None where the metric 'mine' is undefined"),
    (Infinite, "metrics are defined and finite", "Report None where the metric 'mine' is undefined"),
    (BadInterval, "metrics are defined and finite", "Report None where the metric 'mine' is undefined"),
    (Undefined, "metrics are defined and finite", "Give the metric 'mine' a name and a definition"),
    (Silent, "runs at the preset test", "it reports no metric"),
    (Clashing, "runs at the preset test", "Two evaluators report 'params'"),
    (SamplesOutside, "moves stay inside", "Let sample stay among the options"),
    (MutatesTwice, "moves stay inside", "exactly one decision"),
    (CrossesWithStrangers, "moves stay inside", "from a parent"),
    (LosesNeighbours, "moves stay inside", "each of the 6 once"),
    (WrongCost, "costs are those of the network", "give params = "),
    (WrongWeights, "costs are those of the network", "give conv_weights = "),
    (WrongMAdds, "costs are those of the network", "give madds = "),
    (NarrowRange, "costs are those of the network", "Widen cost_range"),
    (ParsesBackwards, "text and numbers go there and back", "Let parse invert format"),
    (MiscountsBackwards, "text and numbers go there and back", "Let from_number invert number"),
    (Together, "a subnet is the same alone and among others", "others changed its logits"),
    (Detached, "supernet gives logits and gradients", "Let gradients reach"),
    (BatchFirst, "supernet gives logits and gradients", r"\[n,B,K\]"),
    (Unseeded, "a supernet is made by the seed alone", "equal seeds gave other weights"),
]
KINDS = {Method: "method", Modifier: "modifier", SearchSpace: "space", Evaluator: "evaluator"}


def put(install: Install, cls: type[Plugin]) -> tuple[str, str]:
    """Install one wrong plugin under its class's name; returns its kind and name."""
    name = cls.__name__
    kind = next(kind for base, kind in KINDS.items() if issubclass(cls, base))
    site = install("wrong", **{f"{kind}s": {name: f"wrong_{name}:{name}"}})
    # In a module of its own: a space's preset lies beside it.
    source = f"from tests.test_testing import {name} as Wrong\n\nclass {name}(Wrong):\n    pass\n"
    (site / f"wrong_{name}.py").write_text(source + (f"\n{name}.name = {name!r}\n" if kind == "space" else ""))
    (site / "presets").mkdir()
    settings = Path(nasbench_tiny.tiny.__file__).parent / "presets" / "tiny.yaml"
    (site / "presets" / f"{name}.yaml").write_text(settings.read_text())
    return kind, name


@pytest.mark.parametrize(("cls", "title", "message"), WRONG, ids=[cls.__name__ for cls, *_ in WRONG])
def test_a_wrong_plugin_is_caught(
    install: Install, monkeypatch: pytest.MonkeyPatch, cls: type[Plugin], title: str, message: str
) -> None:
    if issubclass(cls, Evaluator):
        monkeypatch.setattr(Suite, "labels", lambda self: ["random-search"])
    if issubclass(cls, Evaluator) or cls is RefusesEverybody:
        monkeypatch.setattr(Suite, "spaces", lambda self: ["tiny"])
    (check,) = (check for check in checks(*put(install, cls)) if check.title == title)
    with pytest.raises(Exception, match=message):  # Failure, or the BadInput that a user would see as well
        check()
    assert check.problem()


@pytest.mark.parametrize("cls", [Uniform, Pick])
def test_what_is_right_of_the_wrong_ones_is_right(install: Install, cls: type[Plugin]) -> None:
    found = checks(*put(install, cls))
    assert [str(check) for check in found if check.problem()] == []


@pytest.mark.parametrize("name", shapes.METHODS)
def test_every_shape_of_method_passes(install: Install, name: str) -> None:
    install("twins", methods={name: f"tests.shapes:{shapes.METHODS[name].__name__}"})
    for check in checks("method", name):
        if check.title != "killed and resumed same record":  # tests/test_shapes.py kills them at random moments
            check()


def test_an_evaluator_with_nothing_to_say_is_asked_once_of_each_method_and_space(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not of every pair; what is refused is tried elsewhere."""
    asked = []

    def trial(self: Suite, label: str, space: str) -> Witness:
        asked.append((label, space))
        if (label, space) == ("b", "small"):
            raise BadInput("b is for large spaces.")
        witness = Witness("", label, space)
        witness.own = []
        return witness

    monkeypatch.setattr(Suite, "labels", lambda self: ["a", "b", "c"])
    monkeypatch.setattr(Suite, "spaces", lambda self: ["small", "middle", "large"])
    monkeypatch.setattr(Suite, "trial", trial)
    with pytest.raises(Failure, match=r"a on small: it reports no metric\. b on small: b is for large spaces\."):
        _ = Suite(*put(install, Silent)).first
    assert asked == [("a", "small"), ("b", "small"), ("c", "small"), ("a", "middle"), ("b", "middle"), ("a", "large")]


def test_every_check_catches_something() -> None:
    assert {title for _, title, _ in WRONG} == {check.title for kind in SUITES for check in checks(kind, "any")}


# ---------------------------------------------------------------------- on the command line


def test_check_says_what_is_wrong_and_goes_on(install: Install, tmp_path: Path) -> None:
    _, name = put(install, Undescribed)
    code, out, err = nasbench("check", name, cwd=tmp_path)
    lines = [line.split("  ")[0] for line in out.splitlines()]
    assert (code, err) == (1, "")
    assert lines.count("failed") == 1
    assert lines.count("ok") == len(checks("method", name)) - 1
    assert "docstring below the option rate" in out


def test_check_says_once_what_is_wrong_everywhere(install: Install, tmp_path: Path) -> None:
    install("acme", methods={"gone": "no_such_module:Gone"})
    code, out, err = nasbench("check", "gone", cwd=tmp_path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("nasbench: The method 'gone' of acme 1.0 cannot be imported (ModuleNotFoundError")

    install("bell", methods={"breaks": "tests.test_testing:Breaks"})
    code, out, err = nasbench("check", "breaks", cwd=tmp_path)
    failed = [line for line in out.splitlines() if line.startswith("failed")]
    assert (code, err) == (1, "")
    assert failed[0] == "failed  runs at the preset test: ZeroDivisionError: division by zero"
    assert "failed  same seed same record: as 'runs at the preset test'" in failed


def test_check_of_what_is_right(tmp_path: Path) -> None:
    code, out, err = nasbench("check", "random-search", cwd=tmp_path)
    assert (code, err) == (0, "")
    assert out.splitlines() == [f"ok      {check}" for check in checks("method", "random-search")]
    assert list(tmp_path.iterdir()) == []


def test_check_of_an_unknown_name(tmp_path: Path) -> None:
    code, out, err = nasbench("check", "fairnass", cwd=tmp_path)
    assert (code, out) == (2, "")
    assert err == "nasbench: Unknown plugin 'fairnass'; did you mean 'fairnas'?\n"


def test_collecting_the_checks_imports_nothing_heavy() -> None:
    code = (
        "import sys; from nasbench.testing import checks; checks('method', 'spos'); assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
