"""Superclasses: groups of a dataset's classes, from a YAML file, and accuracy inside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
import yaml
from pydantic import AfterValidator

from nasbench import BadInput
from nasbench.data import load_images
from nasbench.errors import unknown
from nasbench.files import pin, pinned_file

if TYPE_CHECKING:
    from nasbench import Run

FOLDER = Path(__file__).parent / "superclasses"


def _pinned(name: str) -> str:
    return pin(Path(name)) if name.endswith(".yaml") and Path(name).is_file() else name


#: A file's name or path; records name a path with a digest of the content, which determines the result.
Name = Annotated[str, AfterValidator(_pinned)]


@dataclass(frozen=True)
class Superclasses:
    """Names of the superclasses, and for each the indices of its classes; together every class, each once."""

    names: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str) -> int:
        """The place of a superclass, which the paper calls t. Raises BadInput if there is none of that name."""
        if name not in self.names:
            raise unknown("superclass", name, self.names)
        return self.names.index(name)

    def of_classes(self) -> torch.Tensor:
        """For each class, its superclass: int64 [K]."""
        of = {c: t for t, group in enumerate(self.groups) for c in group}
        return torch.tensor([of[c] for c in range(len(of))])


def superclasses_of(run: Run, name: str) -> Superclasses:
    """The superclasses of a run's dataset: `auto` is the file named like its target, else a file's name or path."""
    return read_superclasses(run.recipe.target if name == "auto" else name, load_images(run.recipe.dataset).classes)


def read_superclasses(name: str, classes: Sequence[str]) -> Superclasses:
    """Read a file that maps each superclass to its classes; `classes` are the dataset's, in the order of its labels.

    Case, hyphens and underscores make no difference, nor does a class that has its superclass' name in front. Where
    a dataset knows its classes by number, they are taken to be in alphabetical order, as CIFAR's are. Raises BadInput
    if the groups are not a partition of the classes.
    """
    path = FOLDER / f"{name}.yaml"
    if not path.exists():
        path = pinned_file(name) or Path(name)
    if path.suffix != ".yaml" or not path.is_file():
        raise unknown("superclasses", name, [*(p.stem for p in FOLDER.glob("*.yaml")), "FILE.yaml"])
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BadInput(f"Cannot read the superclasses {path}: {' '.join(str(error).split())}.") from None
    if not isinstance(content, dict) or not all(isinstance(g, list) and g for g in content.values()):
        raise BadInput(f"{path} must map each superclass to a list of its classes.")
    listed = sorted(_plain(c) for group in content.values() for c in group)
    numbered = [str(i) for i in range(len(classes))] == list(classes) and len(listed) == len(classes)
    numbered = numbered and not set(listed) & set(classes)
    places = {name: i for i, name in enumerate(listed if numbered else map(_plain, classes))}
    groups, seen = [], dict[int, str]()
    for superclass, group in content.items():
        rows = []
        for c in group:
            found = [places[n] for n in (_plain(c), _plain(f"{superclass} {c}")) if n in places]
            if not found:
                raise BadInput(f"The class {c!r} of {path.name} is none of the dataset's {len(classes)} classes.")
            if found[0] in seen:
                raise BadInput(f"The class {c!r} stands in {path.name} under {seen[found[0]]!r} and {superclass!r}.")
            seen[found[0]] = str(superclass)
            rows.append(found[0])
        groups.append(tuple(rows))
    left = [c for i, c in enumerate(classes) if i not in seen]
    if left or len(groups) < 2:
        why = f"leaves out {len(left)} classes, {left[0]!r} first" if left else "has a single superclass"
        raise BadInput(f"{path.name} {why}; expected two or more groups that hold each of the dataset's classes once.")
    return Superclasses(tuple(map(str, content)), tuple(groups))


def _plain(name: object) -> str:
    return " ".join(str(name).lower().replace("_", " ").replace("-", " ").split())


def accuracies(
    run: Run, network: torch.nn.Module, superclasses: Superclasses, split: str, rows: torch.Tensor | None = None
) -> list[float]:
    """Top-1 (%) of a plain network on each superclass, the answer restricted to its classes; NaN where it has no image.

    Of the images of a split, or of those of them that `rows` (int64 [N]) names.
    """
    source = getattr(run.data, split)
    rows = torch.arange(len(source), device=run.device) if rows is None else rows.to(run.device)
    of, t = superclasses.of_classes().to(run.device), len(superclasses)
    inside = of == torch.arange(t, device=run.device)[:, None]  # [T,K]
    right, count = torch.zeros(t, device=run.device), torch.zeros(t, device=run.device)
    with torch.inference_mode():
        for part in rows.split(run.recipe.score.batch_size):
            batch = run.data.batch(split, part)
            own = of[batch.labels]
            answer = run.predict(network, batch.images).masked_fill(~inside[own], -torch.inf).argmax(-1)
            right.index_add_(0, own, (answer == batch.labels).to(right))
            count.index_add_(0, own, torch.ones_like(own).to(count))
    return [100 * a / b if b else float("nan") for a, b in zip(right.tolist(), count.tolist(), strict=True)]
