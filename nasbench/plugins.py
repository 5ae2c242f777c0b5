"""Find plugins by entry point, build the terms of `a+b+c`, compose them, or refuse in a sentence."""

from __future__ import annotations

import inspect
import math
import re
import sys
import warnings
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, get_args

import pluggy
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from nasbench import hookspecs
from nasbench.errors import BadInput, unknown

GROUPS = {
    "method": "nasbench.methods",
    "modifier": "nasbench.modifiers",
    "space": "nasbench.spaces",
    "dataset": "nasbench.datasets",
    "evaluator": "nasbench.evaluators",
    "observer": "nasbench.observers",
    "cost": "nasbench.costs",
    "paper": "nasbench.papers",
}


#: `Field(..., json_schema_extra=LATER)` marks an option or a setting that older records lack: at its default it takes
#: no part in a run's name, so that theirs stay as they are.
LATER: dict[str, Any] = {"later": True}


class Plugin(BaseModel):
    """Whatever can be registered: fields are options, marked methods are hooks, private fields are state.

    An option is a typed field with a default and a docstring below it; `nasbench config` shows all three.
    A plugin that answers `search`, `train`, `train_step` or `select` names in `calls` the hooks it still calls.
    Wrappers run in the order of `priority`, the highest outermost.
    """

    model_config = ConfigDict(
        extra="forbid", use_attribute_docstrings=True, arbitrary_types_allowed=True, allow_inf_nan=False
    )
    api: ClassVar[int] = 1
    """Version of the hooks it is written for (`nasbench.hookspecs.VERSION`); silence stands for the first."""
    calls: ClassVar[frozenset[str]] = frozenset()
    priority: ClassVar[int] = 0
    scores_by: ClassVar[str] = "the score of {name}"
    """What the `score` that it answers says, for the record of what was chosen by it; `{name}` is the plugin's."""
    keeps_within: ClassVar[bool] = False
    """Whether the `search` or `select` that it answers chooses only what `run.fits`."""

    def state_dict(self, run: Any) -> dict[str, Any]:
        """State beyond network and optimizer that a checkpoint must hold: tensors and plain containers."""
        return {}

    def load_state_dict(self, run: Any, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""

    if not TYPE_CHECKING:  # else mypy would let any name be set

        def __setattr__(self, name: str, value: Any) -> None:
            try:
                super().__setattr__(name, value)
            except ValueError:
                if name in type(self).model_fields or hasattr(type(self), name):
                    raise
                plain = isinstance(value, int | float | str)
                form = f"{type(value).__name__} = PrivateAttr({value!r})" if plain else "Any = PrivateAttr(None)"
                raise AttributeError(
                    f"{type(self).__name__} has no field {name!r}; what it keeps is private: declare `_{name}: {form}` "
                    f"in the class (PrivateAttr is pydantic's), use self._{name}, and if it must survive a resume, "
                    "return it from state_dict."
                ) from None


class Method(Plugin):
    """A term that stands alone: exactly one in a composition."""


class Modifier(Plugin):
    """A term added to a method with `+`."""


class Evaluator(Plugin):
    """Turns the choices of a run into metrics."""


class Observer(Plugin):
    """Looks on (see `run_started`, `progress`, `run_finished`), and has no part in what a run is."""


BASES: dict[str, type[Plugin]] = {
    "method": Method,
    "modifier": Modifier,
    "evaluator": Evaluator,
    "observer": Observer,
    "space": Plugin,
}


# ---------------------------------------------------------------------- finding


def registered(kind: str) -> list[EntryPoint]:
    """Every registration of a kind, once: what distributions register, and the files of `--plugin`."""
    from nasbench import plugin_files

    found = [*_installed(GROUPS[kind], tuple(sys.path))]
    found += [entry for file in plugin_files.files() for entry in file.entries if entry.group == GROUPS[kind]]
    return list({(e.name, e.value): e for e in sorted(found, key=lambda e: (e.name, e.value))}.values())


@lru_cache
def _installed(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    # Kept, since reading what every distribution on the path registers takes 10 ms, and a recipe asks ten times.
    return tuple(entry_points(group=group))


def discover(kind: str) -> dict[str, EntryPoint]:
    """The registered names of a kind and where each lives; of what is installed, nothing is imported."""
    return {entry.name: entry for entry in registered(kind)}


def origin(entry: EntryPoint) -> str:
    """Where a registration comes from: a distribution and its version, or a file of `--plugin`."""
    if entry.dist:
        return f"{entry.dist.name} {entry.dist.version}"
    return Path(sys.modules[entry.module].__file__ or "").name


def load(kind: str, name: str) -> type[Any]:
    """Import the class registered as `name`; a plugin that cannot be imported is named, not blamed on us.

    Raises BadInput as well if two distributions register the name; their other names stay usable.
    """
    found = [entry for entry in registered(kind) if entry.name == name]
    if not found:
        raise unknown(kind, name, discover(kind))
    entry, *others = found
    if others:
        raise BadInput(
            f"The {kind} {name!r} is registered twice, as {entry.value} by {origin(entry)} and as {others[0].value} "
            f"by {origin(others[0])}; use one without the other."
        )
    try:
        cls = entry.load()
    except Exception as error:
        raise BadInput(
            f"The {kind} {name!r} of {origin(entry)} cannot be imported "
            f"({type(error).__name__}: {error}); mend or uninstall it."
        ) from error
    base = BASES.get(kind)
    if base and not (isinstance(cls, type) and issubclass(cls, base)):
        raise BadInput(f"{entry.value}, registered as the {kind} {name!r}, is no nasbench.{base.__name__}.")
    # Whose it is comes last: a distribution's name is read from its metadata each time.
    if base and cls.api != hookspecs.VERSION and (entry.dist is None or entry.dist.name != "nasbench"):
        mend = "upgrade nasbench" if cls.api > hookspecs.VERSION else "docs/hooks.md says what changed"
        raise BadInput(
            f"The {kind} {name!r} of {origin(entry)} is written for version {cls.api} of the hooks, "
            f"and this nasbench has version {hookspecs.VERSION}; {mend}."
        )
    return cls


def load_evaluators(options: dict[str, dict[str, Any]] | None = None) -> dict[str, Evaluator]:
    """Every evaluator that is installed, with its options; one that cannot be used is reported and left out."""
    found: dict[str, Evaluator] = {}
    for name in discover("evaluator"):
        try:
            found[name] = build(load("evaluator", name), name, (options or {}).get(name, {}))
        except BadInput as error:
            warnings.warn(f"{error} Its metrics are missing.")
    return found


def build_observers(labels: Iterable[str]) -> list[Observer]:
    """The observers of `--observe`, each a name with options in brackets."""
    joined = "+".join(labels)
    terms = parse_label(joined, "observer") if joined else []
    return [build(load("observer", name), name, options) for name, options in terms]


def build(cls: type[Any], name: str, options: dict[str, Any]) -> Any:
    """An instance of a plugin class with these options, or BadInput naming the option that does not fit."""
    return validated(cls, options, prefix=f"{name}.")


def validated(model: type[BaseModel], values: dict[str, Any], prefix: str = "") -> Any:
    """`model(**values)`, with pydantic's findings turned into one sentence."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise BadInput(_explain(model, error, prefix)) from None


def _explain(model: type[BaseModel], error: ValidationError, prefix: str) -> str:
    first = error.errors()[0]
    place = prefix + ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        owner: Any = model
        for part in first["loc"][:-1]:
            owner = get_args(owner)[0] if isinstance(part, int) else owner.model_fields[part].annotation
        return str(unknown("option", place, [place[: -len(str(first["loc"][-1]))] + f for f in owner.model_fields]))
    if first["type"] == "missing":
        return f"{place} is missing."
    expected = first["msg"].replace("Input", "it", 1).partition(", unable")[0]
    return f"{place or model.__name__} = {first['input']!r} does not fit: {expected}."


# ---------------------------------------------------------------------- the label a+b[c=1]+d


class Term(NamedTuple):
    """One term of a method label and the options in its brackets."""

    name: str
    options: dict[str, Any]


_TERM = re.compile(r"([A-Za-z0-9_.-]+)(?:\[(.*)\])?", re.DOTALL)
_TOKEN = re.compile(r""""(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|.""", re.DOTALL)


def parse_label(label: str, kind: str = "method") -> list[Term]:
    """The terms of a method label; `kind` is what a message calls it.

    >>> parse_label("fairnas+calr[gamma_prime=3]")
    [Term(name='fairnas', options={}), Term(name='calr', options={'gamma_prime': 3})]
    """
    terms = []
    for part in _split(label, "+"):
        match = _TERM.fullmatch(part.strip())
        if not match:
            raise BadInput(f"Cannot read {part!r} in the {kind} {label!r}; write it like fairnas+calr[gamma_prime=3].")
        options = {}
        for item in _split(match[2], ",") if match[2] else ():
            key, equals, value = item.partition("=")
            try:
                options[key.strip()] = yaml.safe_load(value)
            except (yaml.YAMLError, ValueError):  # ValueError: a date that does not exist
                equals = ""
            if not equals:
                raise BadInput(f"Cannot read {item!r} in the {kind} {label!r}; write options as name=value.")
        terms.append(Term(match[1], options))
    names = [term.name for term in terms]
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"{name!r} stands twice in the {kind} {label!r}; once is enough.")
    return terms


def _split(text: str, separator: str) -> list[str]:
    """Split where the separator stands outside brackets and quotes."""
    parts, depth = [""], 0
    for token in _TOKEN.findall(text):
        depth += (token in "[{") - (token in "]}")
        if token == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += token
    return parts


def format_label(plugins: dict[str, Plugin], usual: dict[str, Plugin] | None = None) -> str:
    """The canonical spelling: the method, then the modifiers by name, with options that differ from defaults.

    `parse_label` reads it back to the same values. With `usual`, the same terms otherwise, it tells what differs
    from those.
    """

    def text(name: str, plugin: Plugin) -> str:
        defaults = (usual[name] if usual else type(plugin).model_construct()).model_dump(mode="json")
        changed = {k: v for k, v in plugin.model_dump(mode="json").items() if v != defaults.get(k)}
        inside = ",".join(f"{k}={_scalar(v)}" for k, v in sorted(changed.items()))
        return f"{name}[{inside}]" if inside else name

    return "+".join(text(name, plugins[name]) for name in in_order(plugins))


def in_order(plugins: dict[str, Plugin]) -> list[str]:
    """The names of these terms: the method, then the modifiers by name."""
    return sorted(plugins, key=lambda name: (isinstance(plugins[name], Modifier), name))


def _scalar(value: Any) -> str:
    # As an item of a YAML list, so that commas and brackets come out quoted.
    return yaml.safe_dump([value], default_flow_style=True, width=math.inf).strip()[1:-1]


def build_terms(label: str, options: dict[str, dict[str, Any]]) -> dict[str, Plugin]:
    """The plugin instances of a label: exactly one method, any number of modifiers.

    `options` holds, per term, the values of presets and files; brackets win over them.
    """
    terms, methods, modifiers = parse_label(label), discover("method"), discover("modifier")
    for term in terms:  # names first: importing a plugin takes seconds, since most import torch
        if term.name not in methods and term.name not in modifiers:
            raise unknown("method", term.name, [*methods, *modifiers])
    found = [term.name for term in terms if term.name in methods]
    if len(found) > 1:
        raise BadInput(
            f"{' and '.join(found)} are both methods, and a composition has exactly one; "
            f"modifiers: {', '.join(modifiers)}."
        )
    if not found:
        raise BadInput(
            f"{label!r} has no method, only modifiers; put one in front: METHOD+{label} (see `nasbench list methods`)."
        )
    classes = {name: load("method" if name in methods else "modifier", name) for name, _ in terms}
    return {name: build(classes[name], name, {**options.get(name, {}), **inside}) for name, inside in terms}


# ---------------------------------------------------------------------- composing


def compose(terms: dict[str, Plugin], others: dict[str, Any], defaults: Any) -> pluggy.PluginManager:
    """One plugin manager holding the defaults, the terms of the label and everything else of the run.

    Raises BadInput for a mistyped or unmarked hook, two answers to one choice, and a term that nothing would call.
    """
    manager = pluggy.PluginManager("nasbench")
    manager.add_hookspecs(hookspecs.Hooks)
    manager.register(defaults, "default")
    everyone = {**others, **terms}
    try:
        for name in sorted(everyone, key=lambda n: (getattr(everyone[n], "priority", 0), n)):
            manager.register(everyone[name], name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        sentence = " ".join(str(error).split())
        raise BadInput(f"A plugin's hook does not fit: {sentence} (nasbench/hookspecs.py lists the hooks).") from None
    _refuse_unmarked(manager, everyone)
    _refuse_double_answers(manager)
    _refuse_unreachable(manager, terms)
    return manager


def hooks_of(manager: pluggy.PluginManager, plugin: Any) -> set[str]:
    """Names of the hooks a registered plugin implements."""
    return {
        caller.name
        for caller in manager.get_hookcallers(plugin) or []
        for impl in caller.get_hookimpls()
        if impl.plugin is plugin
    }


def answerer(manager: pluggy.PluginManager, hook: str) -> Any:
    """The plugin whose answer to a *first* hook counts, or None where only the default answers."""
    impls = getattr(manager.hook, hook).get_hookimpls()
    return next((i.plugin for i in impls if not i.wrapper and i.plugin_name != "default"), None)


def _refuse_unmarked(manager: pluggy.PluginManager, everyone: dict[str, Any]) -> None:
    for plugin in everyone.values():
        for hook, caller in vars(manager.hook).items():
            method = getattr(type(plugin), hook, None)
            if not inspect.isfunction(method) or hasattr(method, "nasbench_impl"):
                continue
            # One with parameters that the hook does not have is another thing of the same name.
            if {*inspect.signature(method).parameters} <= {"self", *caller.spec.argnames}:
                raise BadInput(f"{type(plugin).__name__}.{hook} has the name of a hook; mark it with @hookimpl.")


def _refuse_double_answers(manager: pluggy.PluginManager) -> None:
    for name, caller in vars(manager.hook).items():
        if not caller.spec or not caller.spec.opts.get("firstresult"):
            continue
        answers = sorted(i.plugin_name for i in caller.get_hookimpls() if not i.wrapper and i.plugin_name != "default")
        if len(answers) > 1:
            raise BadInput(f"{' and '.join(answers)} both decide {name!r}; use one of them.")


def reachable(manager: pluggy.PluginManager) -> set[str]:
    """The hooks that will be called, following what each answering plugin declares that it calls."""
    seen: set[str] = set()
    todo = set(hookspecs.ROOTS)
    while todo:
        hook = todo.pop()
        seen.add(hook)
        owner = answerer(manager, hook) if hook in hookspecs.CALLS else None
        todo |= (owner.calls if owner else hookspecs.CALLS.get(hook, frozenset())) - seen
    return seen


#: Hooks that only look on.
WATCHING = frozenset({"run_started", "progress", "run_finished", "evaluate"})


def _refuse_unreachable(manager: pluggy.PluginManager, terms: dict[str, Plugin]) -> None:
    called = reachable(manager)
    method = next((n for n, p in terms.items() if isinstance(p, Method)), "the method")
    for name, plugin in terms.items():
        hooks = hooks_of(manager, plugin) - {"refuse"}
        hooks = hooks - WATCHING or hooks  # reporting alone does not justify a term that means to change something
        if isinstance(plugin, Modifier) and not hooks & called:
            raise BadInput(f"{name} changes {', '.join(sorted(hooks)) or 'nothing'}, which {method} never calls.")


def all_names(kinds: Iterable[str]) -> list[str]:
    """Every registered name of these kinds."""
    return [name for kind in kinds for name in discover(kind)]
