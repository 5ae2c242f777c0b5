"""`nasbench new`: a plugin as a package of its own, from templates/."""

from __future__ import annotations

import keyword
import re
import shutil
import sys
import tempfile
from importlib.machinery import PathFinder
from pathlib import Path
from string import Template

from nasbench.errors import BadInput, unknown
from nasbench.files import write_atomic
from nasbench.plugins import discover, origin

TEMPLATES = Path(__file__).parent / "templates"
#: Every package's files and their templates; braces stand for its names.
COMMON = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "test_{module}.py": "test.py",
    ".github/workflows/test.yml": "ci.yml",
}
KINDS: dict[str, dict[str, str]] = {
    "method": {"{module}/__init__.py": "method.py"},
    "modifier": {"{module}/__init__.py": "modifier.py"},
    "evaluator": {"{module}/__init__.py": "evaluator.py"},
    "space": {
        "{module}/__init__.py": "space.py",
        "{module}/networks.py": "networks.py",
        "{module}/presets/{name}.yaml": "preset.yaml",
    },
}
#: What the README says of them, where there is more than one.
ABOUT = {
    "space": """\
`{module}/__init__.py` is the space, `{module}/networks.py` its networks, and `{module}/presets/{name}.yaml` what a run
on it starts from.""",
}


def new(kind: str, name: str, out: Path | None = None) -> list[Path]:
    """Write the package of a new plugin into a folder, by default of its name; returns the files.

    The folder is there whole or not at all. Raises BadInput for an unknown kind, a name that cannot be used, and a
    folder that is there already.
    """
    if kind not in KINDS:
        raise unknown("kind of plugin", kind, KINDS)
    folder, module = out or Path(name), _module(kind, name)
    if folder.exists():
        raise BadInput(f"{folder} is there already, and nothing is written over; choose another place with --out.")
    names = {"kind": kind, "name": name, "module": module, "title": "".join(map(str.title, name.split("-")))}
    names["about"] = ABOUT.get(kind, "`{module}/__init__.py` is all of it.").format(**names)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    except OSError as error:
        raise BadInput(f"Cannot make {folder} ({error.strerror}); choose another place with --out.") from None
    try:
        draft.chmod(0o755)  # as mkdir would make it
        paths = []
        for path, template in {**COMMON, **KINDS[kind]}.items():
            paths.append(Path(path.format(**names)))
            write_atomic(
                draft / paths[-1], Template((TEMPLATES / f"{template}.template").read_text()).substitute(names)
            )
        draft.rename(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return [folder / path for path in sorted(paths)]


def _module(kind: str, name: str) -> str:
    """The import name of a plugin's package. Raises BadInput for a name that is malformed or taken."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()
        near = re.sub(r"[^a-z0-9]+", "-", apart).lstrip("-0123456789").rstrip("-")
        hint = f"did you mean {near!r}?" if near else f"for example my-{kind}."
        raise BadInput(f"{name!r} is no plugin name, which has small letters, digits and single hyphens; {hint}")
    terms = ("method", "modifier")  # which stand in one label
    for taken in terms if kind in terms else (kind,):
        if name in discover(taken):
            where = origin(discover(taken)[name])
            raise BadInput(f"There is a {taken} {name!r} already, of {where}; choose another name, such as my-{name}.")
    module = name.replace("-", "_")
    elsewhere = [place for place in sys.path if Path(place).resolve() != Path.cwd()]  # here may lie what becomes it
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or PathFinder.find_spec(module, elsewhere):
        raise BadInput(f"The package would be named {module}, which Python knows already; try my-{name}.")
    return module
