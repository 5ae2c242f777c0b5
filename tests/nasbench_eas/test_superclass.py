"""Superclasses: the files, what is wrong with one, accuracy inside a group."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import yaml
from nasbench_eas.eas import EAS
from nasbench_eas.superclass import FOLDER, Superclasses, accuracies, read_superclasses
from nasbench_eas.superclass_dropout import SuperclassDropout

from nasbench import BadInput
from tests.nasbench_eas.conftest import Prepare

DIGITS = [str(i) for i in range(10)]


@pytest.mark.parametrize(
    ("name", "superclasses", "classes"),
    [
        ("imagenet-10", 10, 60),
        ("imagenet-12", 12, 240),
        ("car-20", 20, 60),
        ("cifar100", 20, 100),
        ("cifar10", 2, 10),
        ("digits", 3, 10),
    ],
)
def test_every_file_is_a_partition_of_as_many_classes_as_it_should_be(
    name: str, superclasses: int, classes: int
) -> None:
    content = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    listed = sorted(str(c) for group in content.values() for c in group)
    found = read_superclasses(name, listed)
    assert (len(found), len(found.of_classes())) == (superclasses, classes)
    assert sorted(c for group in found.groups for c in group) == list(range(classes))
    if name in ("imagenet-10", "imagenet-12", "car-20", "cifar100"):
        assert {len(group) for group in found.groups} == {classes // superclasses}


def test_names_are_found_however_a_folder_spells_them() -> None:
    content = yaml.safe_load((FOLDER / "car-20.yaml").read_text())
    folders = [f"{make} {model}".replace(" ", "_").upper() for make, group in content.items() for model in group]
    assert read_superclasses("car-20", folders).groups[1] == (3, 4, 5)


def test_classes_known_by_number_are_in_alphabetical_order() -> None:
    found = read_superclasses("cifar10", DIGITS)
    assert dict(zip(found.names, found.groups, strict=True)) == {
        "animals": (2, 3, 4, 5, 6, 7),  # bird cat deer dog frog horse
        "vehicles": (0, 1, 8, 9),  # airplane automobile ship truck
    }
    assert found.of_classes().tolist() == [1, 1, 0, 0, 0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: ['0', '1']\nb: ['2']", "leaves out 7 classes, '3' first"),
        ("a: ['0', '1']\nb: ['1']", "The class '1' stands in mine.yaml under 'a' and 'b'."),
        ("a: ['0', 'ten']\nb: ['1']", "The class 'ten' of mine.yaml is none of the dataset's 10 classes."),
        ("a: ['0','1','2','3','4','5','6','7','8','9']", "has a single superclass"),
        ("a: 3", "must map each superclass to a list of its classes."),
        ("a: [", "Cannot read the superclasses"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(BadInput) as error:
        read_superclasses(str(tmp_path / "mine.yaml"), DIGITS)
    assert sentence in str(error.value)


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("low: ['0', '1', '2', '3', '4']\nhigh: ['5', '6', '7', '8', '9']")
    name = SuperclassDropout(superclasses=str(path)).superclasses
    assert name.startswith(f"{path}@")
    assert EAS(superclasses=str(path)).superclasses == SuperclassDropout(superclasses=name).superclasses == name
    assert read_superclasses(name, DIGITS) == read_superclasses(str(path), DIGITS)
    assert SuperclassDropout(superclasses="car-20").superclasses == "car-20"
    path.write_text("low: ['0', '1', '2', '3']\nhigh: ['4', '5', '6', '7', '8', '9']")
    assert SuperclassDropout(superclasses=str(path)).superclasses != name
    with pytest.raises(BadInput, match=r"mine\.yaml has changed"):
        read_superclasses(name, DIGITS)


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(BadInput, match="did you mean 'cifar100'"):
        read_superclasses("cifar1000", DIGITS)
    with pytest.raises(BadInput, match="did you mean 'round'"):
        read_superclasses("digits", DIGITS).index("rounded")


def test_accuracy_counts_answers_among_the_superclass_alone(prepared: Prepare) -> None:
    """A network that always prefers 9, then 8, ...: in each group it names the largest member."""
    run = prepared("ofa-t")
    groups = Superclasses(("low", "high"), ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9)))

    class Largest(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.arange(10.0).expand(len(images), 10)

    labels = run.data.test.labels
    wanted = [100 * float((labels == best).sum() / ((labels // 5) == t).sum()) for t, best in enumerate((4, 9))]
    assert accuracies(run, Largest(), groups, "test") == pytest.approx(wanted)
    only = torch.nonzero(labels < 5)[:, 0]
    low, high = accuracies(run, Largest(), groups, "test", only)
    assert low == pytest.approx(wanted[0])
    assert math.isnan(high)
