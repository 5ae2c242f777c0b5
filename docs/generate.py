"""Write the pages that are made from code: `python docs/generate.py`. A test finds out when they are stale."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import typer

from nasbench import hookspecs
from nasbench.cli import app
from nasbench.installed import description
from nasbench.plugins import registered

FOLDER = Path(__file__).parent
NOTE = "<!-- made by docs/generate.py -->\n"
#: The plugins that have no card of their own, and the card that describes them.
SHARED = {
    **dict.fromkeys(("params", "madds", "synflow", "naswot", "jacob-cov", "snip", "grasp", "zico"), "zero-cost"),
    **dict.fromkeys(("ofa-v", "random-in-budget"), "ofa-t"),
    "eas-v": "eas",
}


def hooks() -> str:
    """The hook reference, from hookspecs.py: its sections, signatures and docstrings, in its order."""
    lines = ["# Hooks", NOTE, inspect.getdoc(hookspecs) or ""]
    lines += [
        "",
        f"This is version {hookspecs.VERSION} of the hooks. A plugin says which version it is written for with "
        "`api: ClassVar[int]`; one that says nothing is written for version 1. A plugin for another version is refused "
        "with a sentence; a hook that is to go first warns for a while where it is implemented.",
        "",
        "What changed: version 1 is the first.",
        "",
        "What each default calls, so that a plugin which answers it can declare in `calls` what it still calls:",
        "",
        *(f"- `{name}`: {', '.join(f'`{c}`' for c in sorted(called))}" for name, called in hookspecs.CALLS.items()),
    ]
    for line in inspect.getsource(hookspecs.Hooks).splitlines():
        if section := re.match(r"    # -+ (.+)", line):
            lines += ["", f"## {section[1].capitalize()}"]
        elif name := re.match(r"    def (\w+)", line):
            hook = getattr(hookspecs.Hooks, name[1])
            lines += ["", f"### {name[1]}", "", "```text", f"{name[1]}{_signature(hook)}", "```", ""]
            lines += [inspect.getdoc(hook) or ""]
    return "\n".join(lines) + "\n"


def _signature(hook: Any) -> str:
    signature = inspect.signature(hook)
    return re.sub(r"'([^']*)'", r"\1", str(signature.replace(parameters=list(signature.parameters.values())[1:])))


def command_line() -> str:
    """The command line, from typer: every verb with its arguments, options and examples."""
    lines = ["# Command line", NOTE]
    lines += [
        "Exit codes: 0 done, 1 failed or stale, 2 bad input or refused, 130 interrupted. `nasbench --version` shows the"
    ]
    lines += ["version, `--help` after a command its options.", ""]
    lines += ["| variable | what it is for |", "|---|---|"]
    lines += ["| `NASBENCH_HOME` | where datasets and tables live; else the platform's folder for caches |"]
    lines += ["| `NASBENCH_PLUGINS` | files of plugins, as `--plugin` names them, separated like `PATH` |"]
    for name, command in _verbs("nasbench", typer.main.get_command(app)):
        usage = " ".join([name, *(p.metavar for p in command.params if p.param_type_name == "argument"), "[OPTIONS]"])
        _, _, examples = (command.epilog or "").partition("Examples:\n")
        lines += ["", f"## {name}", "", inspect.cleandoc(command.help), "", "```text", usage, "```", ""]
        lines += ["| | |", "|---|---|"]
        lines += [f"| {_spelled(p)} | {_cell(p)} |" for p in command.params]
        lines += ["", "```text", inspect.cleandoc(examples), "```"]
    return "\n".join(lines) + "\n"


def _verbs(name: str, command: Any) -> list[tuple[str, Any]]:
    inside = getattr(command, "commands", None)
    return [v for n, c in inside.items() for v in _verbs(f"{name} {n}", c)] if inside else [(name, command)]


def _spelled(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar}`"
    value = "" if parameter.is_flag else f" {parameter.metavar}"
    return ", ".join(f"`{opt}{value}`" for opt in parameter.opts)


def _cell(parameter: Any) -> str:
    default = parameter.default
    shown = default not in (None, False) and not callable(default) and parameter.param_type_name == "option"
    required = " Required." if parameter.required and parameter.param_type_name == "option" else ""
    return (parameter.help or "").replace("|", "\\|") + (f" [default: {default}]" if shown else "") + required


def methods() -> str:
    """The index of the methods' cards."""
    lines = ["# Methods and modifiers", NOTE]
    lines += ["A card has a method's equations, the choices made where its paper is ambiguous, and numbered invariants"]
    lines += [
        "that tests prove. `nasbench list methods` says what runs on which space; `METHOD+MODIFIER` composes them."
    ]
    return "\n".join([*lines, *_cards("method"), *_cards("modifier")]) + "\n"


def spaces() -> str:
    """The index of the search spaces' cards, and of those of tables of costs."""
    lines = ["# Search spaces", NOTE]
    lines += ["A card has a space's decisions, its costs, where its ground truth is from, and numbered invariants that"]
    lines += ["tests prove."]
    return "\n".join([*lines, *_cards("space"), *_cards("cost")]) + "\n"


def _cards(kind: str) -> list[str]:
    lines = ["", f"## {kind.capitalize()}s", "", "| name | what it is | card |", "|---|---|---|"]
    for entry in registered(kind):
        if entry.dist is None or entry.dist.name != "nasbench":
            continue
        folder = "methods" if kind in ("method", "modifier") else "spaces"
        card = f"{SHARED.get(entry.name, entry.name)}.md"
        title = (FOLDER / folder / card).read_text().partition("\n")[0].removeprefix("# ")
        about = description(entry).replace("|", "\\|")
        lines.append(f"| `{entry.name}` | {about} | [{title}]({card}) |")
    return lines


PAGES = {
    "hooks.md": hooks,
    "command-line.md": command_line,
    "methods/README.md": methods,
    "spaces/README.md": spaces,
}

if __name__ == "__main__":
    for page, make in PAGES.items():
        (FOLDER / page).write_text(make())
