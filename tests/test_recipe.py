"""The recipe: where its values come from, which win, and how they are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from nasbench_cells import nb201
from nasbench_tiny import tiny

from nasbench import BadInput, data, records
from nasbench.plugins import build_terms, load
from nasbench.recipe import GROUPS, PRESETS, Recipe, TrainSettings, merge, parse_set, read_config, resolve
from nasbench.records import identity


def presets(module: Any) -> dict[str, Any]:
    """What the preset file of a space's module says."""
    name = module.__name__.rpartition(".")[2]
    content: dict[str, Any] = yaml.safe_load((Path(module.__file__).parent / "presets" / f"{name}.yaml").read_text())
    return content


# ---------------------------------------------------------------------- which value wins


def test_defaults_hold_where_nobody_says_otherwise() -> None:
    recipe = resolve("spos", "tiny", preset="test")
    assert recipe.train.momentum == TrainSettings().momentum
    assert recipe.seed == 0


@pytest.mark.parametrize(("module", "name"), [(m, name) for m in (nb201, tiny) for name in presets(m)])
def test_presets_of_a_space(module: Any, name: str) -> None:
    recipe = resolve("spos", module.__name__.rpartition(".")[2], preset=name)
    written = presets(module)[name]
    assert recipe.dataset == recipe.target == written.pop("dataset")
    for group, values in written.items():
        found = getattr(recipe, group).model_dump() if group in GROUPS else recipe.options[group]
        assert {key: found[key] for key in values} == values


def test_presets_have_known_names() -> None:
    assert {*presets(nb201), *presets(tiny)} <= PRESETS.keys()


def test_a_method_wins_over_the_space_where_it_names_it() -> None:
    """FairNAS on NAS-Bench-201 takes 200 epochs and does not clip; SPOS keeps the space's 250."""
    fairnas, spos = (resolve(method, "nb201", preset="paper").train for method in ("fairnas+calr", "spos+calr"))
    assert (fairnas.epochs, fairnas.clip) == (200, None)
    assert (spos.epochs, spos.clip) == (250, 5)


def test_config_over_preset_set_over_config_brackets_over_all() -> None:
    config = {"train": {"epochs": 7, "lr": 0.5}, "ms": {"edge": "first"}}
    sets = {"train": {"lr": 0.25}, "ms": {"edge": "layer1"}}
    base = resolve("spos+ms", "tiny", preset="test")
    assert resolve("spos+ms", "tiny", preset="test", config=config).train.epochs == 7 != base.train.epochs
    both = resolve("spos+ms", "tiny", preset="test", config=config, sets=sets)
    assert (both.train.epochs, both.train.lr, both.options["ms"]["edge"]) == (7, 0.25, "layer1")
    brackets = resolve("spos+ms[edge=last]", "tiny", preset="test", config=config, sets=sets)
    assert brackets.options["ms"]["edge"] == "last"
    assert both.train.batch_size == base.train.batch_size


def test_arguments_win_over_the_config() -> None:
    config = {"dataset": "cifar10", "target": "cifar10", "preset": "quick", "seed": 3}
    alone = resolve("spos", "tiny", config=config)
    assert {key: getattr(alone, key) for key in config} == config
    over = resolve("spos", "tiny", config=config, dataset="digits", target="digits", preset="test", seed=0)
    assert (over.dataset, over.target, over.preset, over.seed) == ("digits", "digits", "test", 0)
    assert over.train.epochs == resolve("spos", "tiny", preset="test").train.epochs


def test_an_empty_group_in_a_config_is_no_group(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("train:\n  # epochs: 3\nseed: 2\n")
    assert resolve("spos", "tiny", config=read_config(tmp_path / "my.yaml")).seed == 2
    (tmp_path / "my.yaml").write_text("# nothing\n")
    assert read_config(tmp_path / "my.yaml") == {}


def test_the_target_is_known_without_reading_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "load_images", lambda name: pytest.fail("read"))
    assert resolve("spos", "nb201", preset="paper").target == "cifar10"


# ---------------------------------------------------------------------- what does not fit


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("train.epochs", 0),
        ("train.batch_size", 0),
        ("train.lr", 0),
        ("train.lr", float("nan")),
        ("train.lr", float("inf")),
        ("train.momentum", 1),
        ("train.weight_decay", -1e-9),
        ("train.clip", 0),
        ("train.schedule", "step"),
        ("data.size", 3),
        ("data.train_images", 1),
        ("data.augment", ["rotate"]),
        ("score.batch_size", 1),
        ("engine.threads", 0),
        ("engine.precision", "float16"),
        ("tiny.width", 1),
        ("calr.gamma_prime", 0.5),
        ("calr.gamma_prime", float("inf")),
    ],
)
def test_a_value_that_does_not_fit_is_named(setting: str, value: object) -> None:
    group, name = setting.split(".")
    with pytest.raises(BadInput, match=rf"{group}\.{name}(\.0)? = .* does not fit: it should be") as refused:
        resolve("spos+calr", "tiny", preset="test", sets={group: {name: value}})
    shown = value[0] if isinstance(value, list) else value
    assert repr(shown) in str(refused.value)


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(BadInput, match=r"train\.nesterov needs train\.momentum above 0"):
        resolve("spos", "tiny", preset="test", sets={"train": {"momentum": 0}})
    assert not resolve("spos", "tiny", sets={"train": {"momentum": 0, "nesterov": False}}).train.nesterov


@pytest.mark.parametrize("group", ["ms", "nb201", "fairnas"])
def test_a_group_of_another_composition_is_refused(group: str) -> None:
    with pytest.raises(BadInput, match=f"Settings of {group} are for a run with it, not of spos on tiny"):
        resolve("spos", "tiny", preset="test", config={group: {"x": 1}})


@pytest.mark.parametrize("group", ["model", "methods", "device"])
def test_a_group_of_nobody_is_refused(group: str) -> None:
    with pytest.raises(BadInput, match=f"Unknown group of settings '{group}'"):
        resolve("spos", "tiny", preset="test", config={group: {"x": 1}})


@pytest.mark.parametrize("device", ["", "gpu", "CPU", "cpu:1", "cuda:", "cuda:x", "mps"])
def test_unknown_devices(device: str) -> None:
    with pytest.raises(BadInput, match="Unknown device"):
        resolve("spos", "tiny", device=device)


def test_a_recipe_cannot_be_changed() -> None:
    recipe = resolve("spos", "tiny", preset="test")
    with pytest.raises(ValueError, match="frozen"):
        recipe.train.epochs = 3


# ---------------------------------------------------------------------- spelling


@given(st.lists(st.sampled_from(["train.epochs=3", "train.lr=0.1", "calr.g=log", "train.epochs=5"])))
def test_the_last_of_several_settings_wins(items: list[str]) -> None:
    values = parse_set(items)
    for item in {item.partition("=")[0]: item for item in items}.values():
        key, _, text = item.partition("=")
        group, _, name = key.partition(".")
        assert values[group][name] == yaml.safe_load(text)


def test_set_reads_yaml() -> None:
    values = parse_set(["train.clip=null", "data.augment=[flip, crop]", "score.subset=random:5", "x.y=a=b", "x.z="])
    assert values == {
        "train": {"clip": None},
        "data": {"augment": ["flip", "crop"]},
        "score": {"subset": "random:5"},
        "x": {"y": "a=b", "z": None},
    }


nested = st.recursive(st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner), max_leaves=8)
layers = st.dictionaries(st.sampled_from("abc"), nested)


@given(layers, layers, layers)
def test_merge(a: dict[str, Any], b: dict[str, Any], c: dict[str, Any]) -> None:
    assert merge(a, {}) == merge({}, a) == merge(a, a) == a
    both = merge(a, b)
    assert both.keys() == a.keys() | b.keys()
    for key, value in both.items():
        if not (isinstance(a.get(key), dict) and isinstance(b.get(key), dict)):
            assert value == b.get(key, a.get(key))
        else:
            assert value == merge(a[key], b[key])


def test_every_setting_is_explained() -> None:
    """`nasbench config` shows the words; a setting without any is a riddle."""
    groups = {**GROUPS, "nb201": load("space", "nb201"), "tiny": load("space", "tiny")}
    for name, plugin in build_terms("fairnas+calr+ms", {}).items():
        groups[name] = type(plugin)
    for group, cls in groups.items():
        for name, field in cls.model_fields.items():
            assert field.description, f"{group}.{name}"


# ---------------------------------------------------------------------- identity


def test_the_order_of_terms_and_the_spelling_do_not_matter() -> None:
    spellings = [
        resolve("fairnas+ms+calr[gamma_prime=3]", "tiny", preset="test"),
        resolve("calr[gamma_prime=3.0]+fairnas+ms", "tiny", preset="test"),
        resolve("fairnas+calr+ms", "tiny", preset="test", sets={"calr": {"gamma_prime": 3}}),
        resolve("fairnas+calr[gamma_prime=3,g=log]+ms", "tiny", preset="test"),
    ]
    assert {recipe.method for recipe in spellings} == {"fairnas+calr[gamma_prime=3.0]+ms"}
    assert len({identity(recipe, "") for recipe in spellings}) == 1


def test_place_and_device_are_no_part_of_it_and_all_else_is() -> None:
    base = {"method": "spos+ms", "space": "tiny", "preset": "test"}
    same = [base, {**base, "device": "auto"}, {**base, "sets": {"engine": {"threads": 7, "checkpoint_seconds": 0}}}]
    other = [
        {**base, "seed": 1},
        {**base, "method": "spos"},
        {**base, "method": "spos+ms[edge=last]"},
        {**base, "sets": {"train": {"epochs": 3}}},
        {**base, "sets": {"tiny": {"width": 8}}},
        {**base, "sets": {"engine": {"precision": "float64"}}},
        {**base, "dataset": "cifar10"},
    ]
    ids = [identity(resolve(**arguments), "") for arguments in [*same, *other]]  # type: ignore[arg-type]
    assert len(set(ids[:3])) == 1
    assert len(set(ids)) == 1 + len(other)
    assert identity(resolve(**base), "") != identity(resolve(**base), "of other images")  # type: ignore[arg-type]


def test_runs_keep_their_names_when_settings_are_added() -> None:
    """A new setting is marked LATER, so that whoever gives an old command again gets the record it has."""
    paths = sorted((Path(__file__).parents[1] / "leaderboards" / "records").glob("*.json"))
    assert len(paths) > 30
    for path in paths:
        record = records.read(path)
        assert identity(Recipe.model_validate(record["recipe"]), record["dataset_hash"]) == record["id"], path.name


def test_a_later_setting_counts_once_it_is_used() -> None:
    base = resolve("spos", "tiny", preset="test")
    used = [{"batch_norm": "recalibrated"}, {"batch_norm": "tracked"}, {"recalibration_images": 50}]
    ids = [identity(resolve("spos", "tiny", preset="test", sets={"score": values}), "") for values in used]
    assert len({identity(base, ""), *ids}) == 4


def test_a_preset_may_hold_settings_for_one_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def values(*args: Any) -> dict[str, Any]:
        asked.append(args[-1])
        return {"data": {"size": 9}} if args[-1] == "cifar100" else {"dataset": "digits"}

    monkeypatch.setattr("nasbench.recipe.preset_values", values)
    assert resolve("spos", "tiny", target="digits").data.size is None
    assert resolve("spos", "tiny", dataset="cifar100", target="digits").data.size == 9
    assert resolve("spos", "tiny", target="digits", config={"dataset": "cifar100"}).data.size == 9
    assert set(asked) == {None, "cifar100"}
