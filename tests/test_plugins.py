"""Labels, composition and refusals; third-party plugins, whole and broken."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasbench import Arch, BadInput, Choice, Evaluator, Method, Metric, Modifier, Plugin, Run, cli, hookimpl
from nasbench.cli.looking import _row
from nasbench.hookspecs import CALLS, ROOTS, VERSION, Hooks, hookspec
from nasbench.oneshot import Defaults
from nasbench.plugins import (
    GROUPS,
    build,
    build_terms,
    compose,
    discover,
    format_label,
    hooks_of,
    load,
    load_evaluators,
    parse_label,
    reachable,
)
from tests.command import nasbench
from tests.conftest import Install, RunTiny


class Plain(Method):
    @hookimpl
    def sample_archs(self, run: Run) -> list[Arch]:
        return [run.space.sample(run.rng("archs"))]


class Rates(Modifier):
    value: float = 1.0
    pair: tuple[int, int] = (1, 2)

    @hookimpl
    def learning_rates(self, run: Run, archs: list[Arch]) -> list[float]:
        return [self.value] * len(archs)


class Anything(Modifier):
    value: Any = "default"
    other: Any = None

    @hookimpl
    def after_epoch(self) -> None:
        """Nothing."""


class Around(Modifier):
    priority: ClassVar[int] = 1
    trace: ClassVar[list[str]] = []

    @hookimpl(wrapper=True)
    def train_step(self) -> Generator[None, bool, bool]:
        self.trace.append(type(self).__name__)
        return (yield)


class Between(Around):
    priority: ClassVar[int] = -1


class Reporter(Modifier):
    @hookimpl
    def evaluate(self, run: Run, choices: list[Choice]) -> list[Metric]:
        return [Metric(name="reported", value=7, definition="a constant")]


class Twice(Evaluator):
    @hookimpl
    def evaluate(self, run: Run, choices: list[Choice]) -> list[Metric]:
        return [Metric(name="params", value=7, definition="a name that is taken")]


def composed(**terms: Plugin) -> Any:
    return compose(terms, {}, Defaults())


# ---------------------------------------------------------------------- labels


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(values, values)
def test_a_label_is_read_back_as_it_was_written(value: Any, other: Any) -> None:
    label = format_label({"anything": Anything(value=value, other=other), "plain": Plain()})
    (plain, anything) = parse_label(label)
    assert plain == ("plain", {})
    given_ = {"value": value, "other": other}
    assert anything.options == {k: v for k, v in given_.items() if v != {"value": "default", "other": None}[k]}


names = st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True)


@given(st.lists(names, min_size=1, max_size=5, unique=True), st.data())
def test_terms_come_in_the_order_they_are_written(found: list[str], data: st.DataObject) -> None:
    numbers = [data.draw(st.dictionaries(names, st.integers(), max_size=3)) for _ in found]
    terms = [
        f"{name}[{', '.join(f'{k} = {v}' for k, v in options.items())}]" if options else name
        for name, options in zip(found, numbers, strict=True)
    ]
    assert parse_label(" + ".join(terms)) == list(zip(found, numbers, strict=True))


@given(st.text())
def test_whatever_is_written_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(BadInput):
        assert parse_label(text)


@pytest.mark.parametrize(
    ("label", "options"),
    [
        ("calr[gamma_prime=3]", {"gamma_prime": 3}),
        ("calr[g=linear, gamma_prime=2.5]", {"g": "linear", "gamma_prime": 2.5}),
        ("ms[edge=3<-2]", {"edge": "3<-2"}),
        ("ms[clusters=null]", {"clusters": None}),
        ("x[flag=true,list=[1,[2,3]],text='a,b]+c']", {"flag": True, "list": [1, [2, 3]], "text": "a,b]+c"}),
        ('x[text="say \\"a+b\\", twice"]', {"text": 'say "a+b", twice'}),
        ("x[]", {}),
    ],
)
def test_options_are_yaml(label: str, options: dict[str, Any]) -> None:
    assert parse_label(f"spos+{label}")[1].options == options


@pytest.mark.parametrize(
    "label", ["", "+", "spos+", "spos++ms", "spos calr", "spos[", "spos]", "spos[a]", "spos[a=1,]", "spos[a='x]"]
)
def test_what_is_no_label_is_refused(label: str) -> None:
    with pytest.raises(BadInput, match="Cannot read"):
        parse_label(label)


def test_the_canonical_spelling() -> None:
    plugins = build_terms("ms+calr[g=linear,gamma_prime=4.0]+fairnas", {"ms": {"clusters": 2, "edge": "random"}})
    assert format_label(plugins) == "fairnas+calr[g=linear]+ms[clusters=2]"
    assert format_label({"rates": Rates(pair=(1, 2)), "plain": Plain()}) == "plain+rates"
    assert format_label({"rates": Rates(pair=(3, 4)), "plain": Plain()}) == "plain+rates[pair=[3, 4]]"


def test_brackets_win() -> None:
    assert build_terms("spos+calr[gamma_prime=2]", {"calr": {"gamma_prime": 3, "g": "exp"}})["calr"].model_dump() == {
        "gamma_prime": 2,
        "g": "exp",
        "complexity": "conv_weights",
        "matched": False,
    }


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("spos+fairnas", "spos and fairnas are both methods"),
        ("calr+ms", "has no method, only modifiers"),
        ("spos+ms+ms", "'ms' stands twice"),
        ("spso", "Unknown method 'spso'; did you mean 'spos'?"),
        ("darts", "Unknown method 'darts'; did you mean 'darts-v1' or 'darts-v2'?"),
        ("P-DARTS", "Unknown method 'P-DARTS'; did you mean 'p-darts'?"),
        ("spos+clar", "Unknown method 'clar'; did you mean 'calr'?"),
        ("spos+calr[gama_prime=3]", "did you mean 'calr.gamma_prime'?"),
        ("spos+calr[gamma_prime=0.5]", "calr.gamma_prime = 0.5 does not fit"),
        ("spos+calr[g=cubic]", "calr.g = 'cubic' does not fit"),
        ("spos+ms[clusters=two]", "ms.clusters = 'two' does not fit"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_reason(label: str, message: str) -> None:
    with pytest.raises(BadInput) as error:
        build_terms(label, {})
    assert message in str(error.value)


# ---------------------------------------------------------------------- composing


def test_two_answers_to_one_choice_are_refused() -> None:
    with pytest.raises(BadInput, match="calr and rates both decide 'learning_rates'"):
        composed(plain=Plain(), **build_terms("spos+calr", {}) | {"rates": Rates()})


@pytest.mark.parametrize("label", ["random-search+calr", "random-search+ms", "regularized-evolution+evolution"])
def test_a_term_that_nothing_would_call_is_refused(run_tiny: RunTiny, label: str) -> None:
    method, modifier = label.split("+")
    with pytest.raises(BadInput, match=f"{modifier} changes .*, which {method} never calls"):
        run_tiny(label)


def test_a_term_without_hooks_is_refused() -> None:
    class Idle(Modifier):
        pass

    with pytest.raises(BadInput, match="idle changes nothing"):
        composed(plain=Plain(), idle=Idle())


def test_a_term_that_only_reports_is_welcome_everywhere(run_tiny: RunTiny, install: Install) -> None:
    install("acme", modifiers={"reporter": "tests.test_plugins:Reporter"})
    metrics = run_tiny("random-search+reporter")["results"][0]["metrics"]
    assert [m["value"] for m in metrics if m["name"] == "reported"] == [7]


def test_what_a_method_calls_is_what_it_declares() -> None:
    class Own(Method):
        calls: ClassVar[frozenset[str]] = frozenset({"make_optimizer", "train_step"})

        @hookimpl
        def train(self) -> bool:
            return True

    usual = reachable(composed(plain=Plain()))
    assert usual == ROOTS | set().union(*CALLS.values())
    assert usual - reachable(composed(own=Own())) == {
        "build_supernet",
        "next_batch",
        "prepare_batch",
        "after_epoch",
    }


def test_every_hook_has_a_default_or_is_a_list() -> None:
    manager = composed(plain=Plain())
    first = {name for name, caller in vars(manager.hook).items() if caller.spec.opts["firstresult"]}
    assert first - hooks_of(manager, manager.get_plugin("default")) == {"sample_archs", "specialize"}
    assert set(vars(manager.hook)) == {name for name in vars(Hooks) if not name.startswith("_")}


def test_a_mistyped_hook_is_refused() -> None:
    class Typo(Modifier):
        @hookimpl
        def learning_rate(self, run: Run) -> list[float]:
            return []

    with pytest.raises(BadInput, match="unknown hook 'learning_rate' in plugin") as error:
        composed(plain=Plain(), typo=Typo())
    assert "\n" not in str(error.value)


def test_a_mistyped_parameter_is_refused() -> None:
    class Typo(Modifier):
        @hookimpl
        def after_epoch(self, runn: Run) -> None:
            """Nothing."""

    with pytest.raises(BadInput, match="runn") as error:
        composed(plain=Plain(), typo=Typo())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("order", ["plain+around+between", "between+around+plain"])
def test_wrappers_run_by_priority_however_the_label_is_spelled(
    run_tiny: RunTiny, install: Install, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    here = {name: f"tests.test_plugins:{name.title()}" for name in ("plain", "around", "between")}
    install("acme", methods={"plain": here.pop("plain")}, modifiers=here)
    monkeypatch.setattr(Around, "trace", [])
    run_tiny(order, "train.epochs=1", "train.batch_size=200")
    assert load("modifier", "around").trace == ["Around", "Between"]


def test_two_evaluators_may_not_report_one_name(run_tiny: RunTiny, install: Install) -> None:
    install("acme", evaluators={"twice": "tests.test_plugins:Twice"})
    with pytest.raises(BadInput, match="Two evaluators report 'params'"):
        run_tiny("spos")


# ---------------------------------------------------------------------- third parties


def test_a_third_party_plugin_is_like_ours(run_tiny: RunTiny, install: Install) -> None:
    site = install(
        "acme", methods={"acme-random": "acme_methods:Acme"}, modifiers={"rates": "tests.test_plugins:Rates"}
    )
    (site / "acme_methods.py").write_text("from nasbench_oneshot.spos import SPOS\n\nclass Acme(SPOS):\n    pass\n")
    assert discover("method")["acme-random"].dist.name == "acme"
    record = run_tiny("acme-random+rates[value=0.01]")
    assert record["recipe"]["method"] == "acme-random+rates[value=0.01]"
    assert record["recipe"]["options"]["rates"] == {"value": 0.01, "pair": [1, 2]}


BROKEN = {
    "import-error": ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    "syntax-error": ("def", "SyntaxError"),
    "no-class": ("", "AttributeError"),
    "any-error": ("1 / 0", "ZeroDivisionError: division by zero"),
    "no-plugin": ("class Broken: pass", "is no nasbench.Method"),
    "a-function": ("def Broken(): pass", "is no nasbench.Method"),
    "a-modifier": ("from nasbench import Modifier\nclass Broken(Modifier): pass", "is no nasbench.Method"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plugin_is_named_and_stops_nobody_else(
    run_tiny: RunTiny, install: Install, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    source, reason = BROKEN[kind]
    module = f"broken_{kind.replace('-', '_')}"
    site = install("acme", methods={"broken": f"{module}:Broken"})
    (site / f"{module}.py").write_text(source)
    with pytest.raises(BadInput) as error:
        run_tiny("broken")
    assert "broken" in str(error.value)
    assert reason in str(error.value)
    assert run_tiny("random-search")["results"]


def test_a_broken_evaluator_is_reported_and_left_out(run_tiny: RunTiny, install: Install) -> None:
    install("acme", evaluators={"broken": "no_such_module:Broken"})
    with pytest.warns(
        UserWarning, match=r"The evaluator 'broken' of acme 1.0 cannot be imported .* Its metrics are missing"
    ):
        assert run_tiny("random-search")["results"][0]["metrics"]
    with pytest.warns(UserWarning, match="cannot be imported"):
        assert set(load_evaluators()) == {*discover("evaluator")} - {"broken"}


def test_a_name_registered_twice_is_refused_when_it_is_used(run_tiny: RunTiny, install: Install) -> None:
    for distribution in ("acme", "bell"):
        install(distribution, methods={"spos": f"{distribution}:SPOS", distribution: "tests.test_plugins:Plain"})
    with pytest.raises(BadInput) as error:
        run_tiny("spos")
    assert re.search(
        "The method 'spos' is registered twice, as acme:SPOS by acme 1.0 and as bell:SPOS", f"{error.value}"
    )
    assert run_tiny("bell")["recipe"]["method"] == "bell"


def test_the_same_registration_found_twice_is_one(run_tiny: RunTiny, install: Install) -> None:
    for distribution in ("acme", "bell"):
        install(distribution, methods={"plain": "tests.test_plugins:Plain"})
    assert load("method", "plain").__name__ == "Plain"


class Old(Plain):
    api: ClassVar[int] = 0


class Later(Plain):
    api: ClassVar[int] = 99


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("old", f"is written for version 0 of the hooks, and this nasbench has version {VERSION}; docs/hooks.md says"),
        ("later", f"is written for version 99 of the hooks, and this nasbench has version {VERSION}; upgrade nasbench"),
    ],
)
def test_a_plugin_for_other_hooks_is_told_so(run_tiny: RunTiny, install: Install, name: str, message: str) -> None:
    install("acme", methods={name: f"tests.test_plugins:{name.title()}"})
    with pytest.raises(BadInput, match=f"^The method {name!r} of acme 1.0 {message}"):
        run_tiny(name)


def test_when_the_hooks_change_ours_change_with_them(
    run_tiny: RunTiny, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("acme", methods={"plain": "tests.test_plugins:Plain"})
    monkeypatch.setattr("nasbench.hookspecs.VERSION", VERSION + 1)
    with pytest.raises(BadInput, match=f"is written for version {VERSION} of the hooks"):
        run_tiny("plain")
    assert run_tiny("random-search")["results"]


def test_a_hook_that_is_to_go_warns_where_it_is_implemented(monkeypatch: pytest.MonkeyPatch) -> None:
    class Next(Hooks):
        @hookspec(warn_on_impl=FutureWarning("after_epoch goes; implement progress instead"))
        def after_epoch(self, run: Run) -> None:
            """Going."""

    monkeypatch.setattr("nasbench.hookspecs.Hooks", Next)
    with pytest.warns(FutureWarning, match="after_epoch goes; implement progress instead") as found:
        composed(plain=Plain(), anything=Anything())
    (warning,) = found
    assert Path(warning.filename).name == "test_plugins.py"
    line = cli._warning(warning.message, warning.category, warning.filename, warning.lineno)
    assert line.startswith("warning: after_epoch goes; implement progress instead (")
    assert line.endswith(f"test_plugins.py:{warning.lineno})\n")
    assert cli._warning("two\nlines", UserWarning, "x.py", 3) == "warning: two lines\n"


def test_a_list_of_distributions_names_what_is_broken_and_goes_on(install: Install, tmp_path: Path) -> None:
    install(
        "acme",
        methods={"plain": "tests.test_plugins:Plain", "broken": "no_such_module:X"},
        modifiers={"rates": "tests.test_plugins:Rates"},
        papers={"gone": "no_such_module:HERE"},
    )
    listed = nasbench("list", "plugins", cwd=tmp_path)
    assert listed.code == 1
    assert "acme 1.0\n  methods    broken plain\n  modifiers  rates\n  papers     gone\n" in listed.out
    assert listed.err.splitlines() == [
        "problem: The method 'broken' of acme 1.0 cannot be imported (ModuleNotFoundError: No module named "
        "'no_such_module'); mend or uninstall it.",
        "problem: The paper 'gone' of acme 1.0 cannot be imported (ModuleNotFoundError: No module named "
        "'no_such_module'); mend or uninstall it.",
    ]
    found = json.loads(nasbench("list", "plugins", "--json", cwd=tmp_path).out)
    assert found["plugins"]["acme 1.0"] == {"methods": ["broken", "plain"], "modifiers": ["rates"], "papers": ["gone"]}
    assert len(found["problems"]) == 2
    install("bell", modifiers={"rates": "tests.test_plugins:Anything"})
    again = nasbench("list", "plugins", cwd=tmp_path).err
    assert (
        "problem: The modifier 'rates' is registered twice, as tests.test_plugins:Anything by bell 1.0 and as " in again
    )
    assert re.search(
        r"^  rates +\[bell 1.0, acme 1.0\]$", nasbench("list", "modifiers", cwd=tmp_path).out, re.MULTILINE
    )


def test_a_description_is_read_without_an_import(install: Install, tmp_path: Path) -> None:
    site = install(
        "acme",
        methods={"told": "acme.methods:Told", "bare": "acme.methods:Bare", "gone": "acme.none:X", "odd": "acme.odd:X"},
        modifiers={"inside": "acme:Inside", "single": "acme_single:Single", "elsewhere": "no_such_module:X"},
        papers={"paper": "acme.methods:PAPER"},
    )
    (site / "acme").mkdir()
    (site / "acme/__init__.py").write_text('raise SystemExit\nclass Inside:\n    """As Li et al. 2017, e.g. so."""\n')
    told = 'class Told:\n    """Fair in\n    each step (Eq. 2). More of it."""\nclass Bare: pass\n'
    (site / "acme/methods.py").write_text(f'raise SystemExit\n{told}PAPER = 1\n"""A title."""\n')
    (site / "acme/odd.py").write_text("class X(:")
    (site / "acme_single.py").write_text('raise SystemExit\ndef Single():\n    """One file"""')
    found = json.loads(nasbench("list", "--json", cwd=tmp_path).out)["descriptions"]
    assert {name: found["methods"][name] for name in ("told", "bare", "gone", "odd")} == {
        "told": "Fair in each step (Eq. 2).", "bare": "", "gone": "", "odd": "",
    }  # fmt: skip
    assert {name: found["modifiers"][name] for name in ("inside", "single", "elsewhere")} == {
        "inside": "As Li et al. 2017, e.g. so.", "single": "One file", "elsewhere": "",
    }  # fmt: skip
    assert found["papers"]["paper"] == "A title."
    lines = nasbench("list", "methods", cwd=tmp_path).out.splitlines()
    assert "  told                     Fair in each step (Eq. 2). [acme 1.0]" in lines
    assert "  bare                     [acme 1.0]" in lines
    (tmp_path / "mine.py").write_text(
        'from nasbench import Method\n\n\nclass Mine(Method):\n    """Of a file. With more."""\n'
    )
    lines = nasbench("list", "methods", "--plugin", "mine.py", cwd=tmp_path).out.splitlines()
    assert "  mine                     Of a file. [mine.py]" in lines


@pytest.mark.parametrize("width", [20, 40, 60])
def test_a_description_is_cut_and_whose_it_is_stays(width: int) -> None:
    whole = _row("name", "In each step all of them.", "[acme 1.0]")
    cut = _row("name", "In each step all of them.", "[acme 1.0]", width)
    assert whole == "  name                     In each step all of them. [acme 1.0]"
    assert cut.startswith("  name ")
    assert cut.endswith("… [acme 1.0]")
    assert len(cut) <= max(width, 40)


def test_an_unknown_name_gets_a_suggestion() -> None:
    for kind, wrong, right in [
        ("space", "nb210", "nb201"),
        ("dataset", "cifar", "cifar10"),
        ("evaluator", "pik", "pick"),
    ]:
        with pytest.raises(BadInput, match=f"Unknown {kind} '{wrong}'; did you mean '{right}'"):
            load(kind, wrong)


@pytest.mark.parametrize("kind", GROUPS)
def test_every_registered_name_can_be_loaded(kind: str) -> None:
    for name in discover(kind):
        cls = load(kind, name)
        if isinstance(cls, type) and issubclass(cls, Plugin):
            build(cls, name, {})


def test_listing_imports_no_plugin(install: Install, tmp_path: Path) -> None:
    site = install("acme", methods={"mine": "acme_marker:Mine"})
    (site / "acme_marker.py").write_text("raise SystemExit('imported')")
    assert discover("method")["mine"].value == "acme_marker:Mine"
