"""Slips of a plugin's author: each is answered by one sentence that names the plugin and the hook."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from pydantic import PrivateAttr

from nasbench import Arch, BadInput, Choice, Evaluator, Method, Metric, Modifier, Run, hookimpl
from tests import shapes
from tests.command import nasbench
from tests.conftest import Install, RunTiny


class Slip(shapes.Uniform):
    """A method whose answers `slip` spoils, by hook."""

    slip: ClassVar[dict[str, Callable[..., Any]]] = {}


def _answering(hook: str) -> Callable[..., Any]:
    # Each with the parameters of the hook that a slip below needs.
    def one(self: Slip, run: Run) -> Any:
        return self.slip[hook](run)

    def many(self: Slip, run: Run, archs: list[Arch]) -> Any:
        return self.slip[hook](run, archs)

    return many if hook in {"learning_rates", "compute_loss", "score"} else one


def slips(hook: str, answer: Callable[..., Any], *, around: bool = False) -> type[Slip] | type[Modifier]:
    """A method, or a modifier whose wrapper spoils the answer, of which one hook answers what `answer` says."""
    if not around:
        return type("Slip", (Slip,), {"__module__": __name__, "slip": {hook: answer}, hook: hookimpl(_answering(hook))})

    def wrapper(self: Modifier) -> Generator[None, Any, Any]:
        return answer((yield))

    return type("Around", (Modifier,), {"__module__": __name__, hook: hookimpl(wrapper=True)(wrapper)})


MISTAKES: dict[str, tuple[str, Callable[..., Any], str]] = {
    "search: one choice": (
        "search",
        lambda run: Choice((0, 0, 0)),
        "search must return a list of Choice; slip returned Choice(arch=(0, 0, 0)",
    ),
    "select: an architecture": (
        "select",
        lambda run: [(0, 0, 0)],
        "select must return a list of Choice; slip returned a list of 1 (tuple): [(0, 0, 0)].",
    ),
    "sample_archs: one architecture": (
        "sample_archs",
        lambda run: (0, 0, 0),
        "sample_archs must return a list of at least one architecture of the space, each a tuple of option indices, "
        "or of mixtures; slip returned (0, 0, 0).",
    ),
    "sample_archs: no architecture": ("sample_archs", lambda run: [], "slip returned []."),
    "sample_archs: nothing": ("sample_archs", lambda run: None, "slip returned None."),
    "sample_archs: an option that is not there": (
        "sample_archs",
        lambda run: [(0, 0, 9)],
        "slip returned a list of 1 (tuple): [(0, 0, 9)].",
    ),
    "sample_archs: a decision too few": ("sample_archs", lambda run: [(0, 0)], "slip returned a list of 1 (tuple)"),
    "learning_rates: one for all": (
        "learning_rates",
        lambda run, archs: 0.1,
        "learning_rates must return a list of 1 finite numbers, one for each subnet; slip returned 0.1.",
    ),
    "learning_rates: too many": ("learning_rates", lambda run, archs: [0.1, 0.1], "slip returned a list of 2 (float)"),
    "learning_rates: not a number": (
        "learning_rates",
        lambda run, archs: [math.nan],
        "slip returned a list of 1 (float): [nan].",
    ),
    "learning_rates: tensors": (
        "learning_rates",
        lambda run, archs: [torch.tensor(0.1)],
        "slip returned a list of 1 (Tensor): [tensor(0.1000)].",
    ),
    "compute_loss: a mean": (
        "compute_loss",
        lambda run, archs: torch.zeros(()),
        "compute_loss must return a tensor of shape [1], one loss for each subnet; slip returned a tensor of shape [].",
    ),
    "compute_loss: a number": ("compute_loss", lambda run, archs: 1.5, "slip returned 1.5."),
    "score: a tensor": (
        "score",
        lambda run, archs: torch.zeros(len(archs)),
        "Python numbers, one for each architecture; slip returned a tensor of shape [",
    ),
    "score: tensors": ("score", lambda run, archs: [torch.zeros(())] * len(archs), "(Tensor): [tensor(0.), "),
    "score: one for all": ("score", lambda run, archs: [1.0], "slip returned a list of 1 (float): [1.0]."),
    "build_supernet: a class": (
        "build_supernet",
        lambda run: torch.nn.Linear,
        "build_supernet must return a torch.nn.Module; slip returned <class 'torch.nn.modules.linear.Linear'>.",
    ),
    "make_optimizer: a class": (
        "make_optimizer",
        lambda run: torch.optim.SGD,
        "make_optimizer must return a torch.optim.Optimizer; slip returned <class 'torch.optim.sgd.SGD'>.",
    ),
    "next_batch: a pair": (
        "next_batch",
        lambda run: (1, 2),
        "next_batch must return a nasbench.data.Batch; slip returned (1, 2).",
    ),
    "prepare_batch: a pair": (
        "prepare_batch",
        lambda run: (1, 2),
        "prepare_batch must return a nasbench.data.Batch; slip returned (1, 2).",
    ),
    "evaluate: one metric": (
        "evaluate",
        lambda run: Metric(name="x", value=1, definition="one"),
        "evaluate must return a list of Metric; slip returned Metric(name='x'",
    ),
    "evaluate: pairs": (
        "evaluate",
        lambda run: [("x", 1.0)],
        "evaluate must return a list of Metric; slip returned a list of 1 (tuple): [('x', 1.0)].",
    ),
}


def message(run_tiny: RunTiny, label: str, *sets: str) -> str:
    with pytest.raises(BadInput) as error:
        run_tiny(label, *sets)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def label(install: Install, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Installs classes of this test as methods and modifiers, and is their label."""

    def label_(**classes: type) -> str:
        kinds: dict[str, dict[str, str]] = {"methods": {}, "modifiers": {}, "evaluators": {}}
        for name, cls in classes.items():
            monkeypatch.setattr(f"{__name__}.{name}", cls, raising=False)
            kind = "methods" if issubclass(cls, Method) else "modifiers" if issubclass(cls, Modifier) else "evaluators"
            kinds[kind][name] = f"{__name__}:{name}"
        install("acme", **kinds)
        return "+".join([*kinds["methods"], *kinds["modifiers"]])

    return label_


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_answer_is_told_in_a_sentence(run_tiny: RunTiny, label: Callable[..., str], mistake: str) -> None:
    hook, answer, says = MISTAKES[mistake]
    told = message(run_tiny, label(slip=slips(hook, answer)))
    assert told.startswith(f"{hook} must return ")
    assert says in told


@pytest.mark.parametrize("hook", ["train", "train_step", "update", "sample_archs", "compute_loss", "learning_rates"])
def test_a_wrapper_that_forgets_to_return_is_named(run_tiny: RunTiny, label: Callable[..., str], hook: str) -> None:
    terms = label(uniform=shapes.Uniform, lossy=slips(hook, lambda answer: None, around=True))
    who = "uniform or lossy" if hook == "sample_archs" else "lossy"
    assert message(run_tiny, terms).endswith(f"; {who} returned None.")


def test_our_own_wrappers_meet_no_wrong_answer(run_tiny: RunTiny, label: Callable[..., str]) -> None:
    terms = label(slip=slips("learning_rates", lambda run, archs: 0.1))
    assert message(run_tiny, terms, "train.warmup_epochs=1").endswith("; slip returned 0.1.")


def test_who_may_have_evaluated_wrongly(run_tiny: RunTiny, label: Callable[..., str]) -> None:
    wrong = slips("evaluate", lambda run: 3)
    silent = type("Silent", (Evaluator,), {"__module__": __name__, "evaluate": hookimpl(lambda self: None)})
    told = message(run_tiny, label(slip=wrong, silent=silent))  # an answer of None leaves no trace of whose it was
    assert "evaluator silent or " in told
    assert told.endswith(" or slip returned 3.")


def test_a_part_is_looked_at_as_well(run_tiny: RunTiny, label: Callable[..., str]) -> None:
    class Parts(shapes.Parts):
        @hookimpl
        def sample_archs(self, run: Run) -> list[Arch]:
            return [(2, 0, 0)]  # in the space, but not in the first part

    assert message(run_tiny, label(parts=Parts)).endswith("; parts returned a list of 1 (tuple): [(2, 0, 0)].")


def test_a_method_that_samples_nothing_is_told_so(run_tiny: RunTiny, label: Callable[..., str]) -> None:
    assert message(run_tiny, label(empty=type("Empty", (Method,), {"__module__": __name__}))).endswith(
        "or of mixtures; no plugin implements it."
    )


def test_the_command_line_answers_with_one_line(tmp_path: Path, install: Install) -> None:
    site = install("acme", methods={"slip": "slip:Slip"})
    lines = ["from nasbench import Method, hookimpl", "class Slip(Method):", "    @hookimpl"]
    (site / "slip.py").write_text("\n".join([*lines, "    def sample_archs(self):", "        return []", ""]))
    done = nasbench("run", "-m", "slip", "-s", "tiny", "--preset", "test", cwd=tmp_path)
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith("nasbench: sample_archs must return a list of at least one")
    assert "Traceback" not in done.err


# ---------------------------------------------------------------------- hooks without a mark, state without a field


class Unmarked(Method):
    def sample_archs(self, run: Run) -> list[Arch]:
        return [run.space.sample(run.rng("archs"))]


class Overridden(shapes.Uniform):
    def sample_archs(self, run: Run) -> list[Arch]:
        return [run.space.sample(run.rng("others"))]


@pytest.mark.parametrize("cls", [Unmarked, Overridden])
def test_a_hook_without_its_mark_is_refused(run_tiny: RunTiny, label: Callable[..., str], cls: type) -> None:
    told = message(run_tiny, label(mine=cls))
    assert told == f"{cls.__name__}.sample_archs has the name of a hook; mark it with @hookimpl."


def test_a_method_of_its_own_may_share_a_hooks_name(run_tiny: RunTiny, label: Callable[..., str]) -> None:
    class Helped(shapes.Uniform):
        def score(self, depth: int) -> float:
            return 1 / depth

    assert run_tiny(label(helped=Helped))["results"]


class Counter(shapes.Uniform):
    option: int = 0
    _count: int = PrivateAttr(0)


@pytest.mark.parametrize(
    ("value", "form"), [(1, "_number: int = PrivateAttr(1)"), ([], "_number: Any = PrivateAttr(None)")]
)
def test_state_without_a_field_is_told_how_it_is_declared(value: object, form: str) -> None:
    with pytest.raises(AttributeError) as error:
        Counter().number = value  # type: ignore[attr-defined]
    assert str(error.value) == (
        f"Counter has no field 'number'; what it keeps is private: declare `{form}` in the class (PrivateAttr is "
        "pydantic's), use self._number, and if it must survive a resume, return it from state_dict."
    )


def test_fields_and_private_state_are_set_as_ever() -> None:
    counter = Counter()
    counter.option, counter._count = 2, 3
    assert (counter.option, counter._count) == (2, 3)
    with pytest.raises(ValueError, match="state_dict"):
        counter.state_dict = None  # type: ignore[assignment, method-assign]
