"""The recipe: everything that determines a run, typed, resolved from defaults, presets, files and `--set`."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_serializer

from nasbench import plugin_files
from nasbench.budget import Window
from nasbench.errors import BadInput, unknown
from nasbench.plugins import (
    LATER,
    Plugin,
    build,
    build_terms,
    discover,
    format_label,
    in_order,
    load,
    parse_label,
    validated,
)

#: libyaml where there is it: several times as fast, with the same answers.
FastLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Augmentation = Literal["flip", "crop", "autoaugment", "cutout"]


class Settings(BaseModel):
    """A group of settings: unknown names and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class DataSettings(Settings):
    """Which images are used, and how."""

    train_images: int | None = Field(None, ge=2)
    """Use only so many training images, stratified; null uses all."""
    valid_images: int | None = Field(None, ge=2)
    """Use only so many validation images, stratified; null uses all."""
    valid_share: float = Field(0.5, gt=0, lt=1, json_schema_extra=LATER)
    """How much of its training images a dataset without validation images gives to validation, stratified."""
    size: int | None = Field(None, ge=4)
    """Resize images to this side (bilinear, antialiased); null keeps them."""
    augment: list[Augmentation] = ["flip", "crop"]
    """Training augmentation."""


class TrainSettings(Settings):
    """How the supernet is trained."""

    epochs: int = Field(200, ge=1)
    """Passes over the training images."""
    batch_size: int = Field(64, ge=1)
    """Images a step."""
    lr: float = Field(0.025, gt=0)
    """Initial learning rate."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """SGD momentum (beta)."""
    nesterov: bool = True
    """Nesterov momentum; needs momentum above 0."""
    weight_decay: float = Field(5e-4, ge=0)
    """L2 decay of every parameter that is updated."""
    clip: float | None = Field(5.0, gt=0)
    """Clip the gradient's global norm; null does not."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls to 0 over the run, step by step."""
    rate_placement: Literal["auto", "outside", "inside"] = "auto"
    """Whether the rate multiplies the update (outside momentum, plain SGD) or each subnet's gradient (inside,
    Algorithm 2 of the CaLR/MS paper). auto: inside only where a plugin gives rates to several subnets at once."""
    decay: Literal["mean_rate", "initial_rate"] = "mean_rate"
    """With rates inside, what multiplies the weight decay: the subnets' mean rate, so that it falls with them, or
    the initial rate, as in the official code of that paper."""
    update_scope: Literal["subnet", "all"] = "subnet"
    """subnet: parameters outside the sampled subnets are left alone; all: weight decay and momentum move them too."""
    optimizer: Literal["sgd", "adamw"] = Field("sgd", json_schema_extra=LATER)
    """adamw: decoupled weight decay, betas (0.9, 0.999); momentum and nesterov are SGD's. Rates inside are then the
    subnets' weights relative to their mean rate, which is the optimizer's, since AdamW undoes a gradient's scale."""
    warmup_epochs: float = Field(0.0, ge=0, json_schema_extra=LATER)
    """In so many first epochs the rate of every subnet rises on a line to `lr`, whatever the schedule says."""
    label_smoothing: float = Field(0.0, ge=0, lt=1, json_schema_extra=LATER)
    """Share of a label's weight that all classes get alike, in training."""


class ScoreSettings(Settings):
    """How architectures are ranked once the supernet is trained."""

    subset: str = "table"
    """Which architectures: table (every one with ground truth), all, random:N, FILE of numbers, or a subset's name."""
    batch_size: int = Field(256, ge=2)
    """Validation images a batch; batch statistics depend on it."""
    batch_norm: Literal["batch", "recalibrated", "tracked"] = Field("batch", json_schema_extra=LATER)
    """Whose mean and variance normalise a subnet: the batch's own, those of training images passed through it first
    (as in SPOS), or the averages that the network kept while it was trained."""
    recalibration_images: int | None = Field(None, ge=2, json_schema_extra=LATER)
    """Training images that recalibration passes through each subnet; null takes all."""
    together: int = Field(8, ge=1)
    """Architectures scored in one call."""


class SelectSettings(Settings):
    """What may be selected, whoever selects."""

    within: list[str] = Field([], json_schema_extra=LATER)
    """Limits that the choice keeps to: madds=30M, params=1M or, with a table of measured costs, latency.raspi4=12ms and
    energy.eyeriss=2mJ; a window has two ends, madds=300M..330M."""

    @field_validator("within", mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            return texts  # for pydantic to refuse
        return [str(Window.parse(text)) for text in texts]


class EngineSettings(Settings):
    """How it is computed; the numbers agree within rounding."""

    precision: Literal["auto", "float32", "bfloat16", "float64"] = "auto"
    """auto: bfloat16 where the device has instructions for it, else float32."""
    memory_format: Literal["auto", "channels_last", "contiguous"] = "auto"
    """auto: channels_last with bfloat16, and in a run on an x86 processor; else contiguous."""
    threads: int | None = Field(None, ge=1)
    """CPU threads; null takes OMP_NUM_THREADS, or else every core this process may use."""
    static: Literal["auto", "off", "recorded"] = Field("off", json_schema_extra=LATER)
    """Whether a step's subnets are one pass that is the same whatever they are, replayed as CUDA graphs; scoring is
    recorded too, where it takes several batches. Mixtures, and subnets of which a few share an operation, run as with
    off. auto: recorded in a single process on a GPU where the space has such a pass, else off."""
    checkpoint_seconds: float = Field(30.0, ge=0)
    """Seconds between checkpoints of a running stage."""
    processes: int = Field(1, ge=1, json_schema_extra=LATER)
    """Processes that share each batch, batch norm seeing a share; set by torchrun, which starts them."""
    sync_batch_norm: bool = Field(False, json_schema_extra=LATER)
    """Batch norm sees the whole batch although processes share it (torch's SyncBatchNorm; CUDA only)."""


class Recipe(Settings):
    """Everything that determines a run. Equal recipes on one machine give equal records."""

    method: str
    space: str
    dataset: str
    target: str
    preset: str
    seed: int = Field(ge=0)
    device: str = "cpu"
    data: DataSettings = DataSettings()
    train: TrainSettings = TrainSettings()
    score: ScoreSettings = ScoreSettings()
    select: SelectSettings = Field(SelectSettings(), json_schema_extra=LATER)
    engine: EngineSettings = EngineSettings()
    options: dict[str, dict[str, Any]] = {}
    """Options of the method, its modifiers and the space, by name."""
    plugin_files: dict[str, str] = {}
    """The files of `--plugin` that it uses, and digests of their content."""

    @model_serializer(mode="wrap")
    def _without_nothing(self, handler: Any) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        nothing: dict[str, Any] = {"plugin_files": {}, "select": {"within": []}}  # as before there were these
        return {k: v for k, v in values.items() if k not in nothing or v != nothing[k]}


GROUPS: dict[str, type[Settings]] = {
    "data": DataSettings,
    "train": TrainSettings,
    "score": ScoreSettings,
    "select": SelectSettings,
    "engine": EngineSettings,
}
PRESETS = {
    "quick": "a minute, offline, to see it work",
    "cpu": "minutes on two CPU cores with a real dataset",
    "paper": "the paper's hyper-parameters",
    "test": "seconds, for the tests of plugins",
}


# ---------------------------------------------------------------------- presets


def preset_values(cls: type[Plugin], name: str, preset: str, space: str, dataset: str | None = None) -> dict[str, Any]:
    """What a plugin's own preset file says: `presets/<name>.yaml` beside the module that defines it.

    The file maps a preset to settings; below `spaces:` and `datasets:` it may hold settings for one of them only.
    """
    path = Path(inspect.getfile(cls)).parent / "presets" / f"{name}.yaml"
    if not path.exists():
        return {}
    try:
        content = (yaml.load(path.read_text(), FastLoader) or {}).get(preset, {})
    except (yaml.YAMLError, AttributeError, ValueError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        raise BadInput(f"The presets {path} of {name} do not map presets to settings (line {line}).") from None
    general = {k: v for k, v in content.items() if k not in ("spaces", "datasets")}
    general = merge(general, content.get("spaces", {}).get(space, {}))
    return merge(general, content.get("datasets", {}).get(dataset, {}))


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Nested dictionaries, the second winning.

    >>> merge({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}})
    {'a': {'b': 1, 'c': 3}}
    """
    both = {
        k: merge(base[k], v) if isinstance(v, dict) and isinstance(base.get(k), dict) else v for k, v in over.items()
    }
    return {**base, **both}


def parse_set(items: list[str]) -> dict[str, Any]:
    """`--set train.epochs=3` and the like, as nested dictionaries; values are YAML.

    >>> parse_set(["train.epochs=3", "calr.gamma_prime=2.5"])
    {'train': {'epochs': 3}, 'calr': {'gamma_prime': 2.5}}
    """
    values: dict[str, Any] = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals:
            raise BadInput(f"Cannot read --set {item!r}; write it like --set train.epochs=3.")
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError):  # ValueError: a date that does not exist
            raise BadInput(f"Cannot read the value {text!r} of --set {item!r} as YAML.") from None
        values = merge(values, nested({key.strip(): value}))
    return values


def nested(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings by dotted name, as nested dictionaries. Raises BadInput for a name without a dot.

    >>> nested({"train.epochs": 3, "train.lr": 0.1})
    {'train': {'epochs': 3, 'lr': 0.1}}
    """
    values: dict[str, Any] = {}
    for key, value in settings.items():
        group, dot, name = key.partition(".")
        if not dot or not name:
            raise BadInput(f"Cannot read the setting {key!r}; write it like train.epochs.")
        values = merge(values, {group: {name: value}})
    return values


def read_config(path: Path) -> dict[str, Any]:
    """A `--config` file as nested dictionaries."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(f"Cannot read the config {path} ({reason}); make one with `nasbench config`.") from None
    except (yaml.YAMLError, ValueError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        raise BadInput(f"The config {path} is no valid YAML (line {line}).") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        found = type(content).__name__
        raise BadInput(f"The config {path} holds a {found}; it must map groups to settings, as `nasbench config` does.")
    return {str(group): settings for group, settings in content.items()}


# ---------------------------------------------------------------------- resolving

#: Options of a space that a run sets by itself, from its dataset.
OF_THE_DATA = ("classes", "image")
#: What stands in a preset or a config beside the groups of settings.
NAMES = ("method", "space", "dataset", "target", "preset", "seed")


def check_device(name: str) -> None:
    """Raise BadInput for what names no device; whether there is one is another question."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise unknown("device", name, ["auto", "cpu", "cuda", "cuda:N"])


def resolve(
    method: str,
    space: str,
    *,
    dataset: str | None = None,
    target: str | None = None,
    preset: str | None = None,
    seed: int | None = None,
    device: str = "cpu",
    config: dict[str, Any] | None = None,
    sets: dict[str, Any] | None = None,
) -> Recipe:
    """One recipe from: defaults < space < method < modifiers (each with its preset) < config < sets.

    The other arguments and the brackets of the label win over all. Raises BadInput for whatever is unknown
    or does not fit; what the user wrote is checked first, before a plugin is imported.
    """
    given = {k: v for k, v in (config or {}).items() if v is not None}
    for name in ("method", "space", "dataset", "target"):
        if not isinstance(given.get(name, ""), str):
            raise BadInput(f"{name} = {given[name]!r} does not fit: expected a name.")
    preset = preset or given.get("preset", "quick")
    if preset not in list(PRESETS):  # a list, since a file may hold what cannot be hashed
        raise unknown("preset", str(preset), PRESETS)
    check_device(device)
    terms = parse_label(method)
    evaluators = discover("evaluator")
    known = {*GROUPS, space, *(term.name for term in terms), *evaluators}
    for written in ({k: v for k, v in given.items() if k not in NAMES}, sets or {}):
        for group, inside in written.items():
            if group not in known:
                if any(group in discover(kind) for kind in ("method", "modifier", "space")):
                    raise BadInput(f"Settings of {group} are for a run with it, not of {method} on {space}; drop them.")
                raise unknown("group of settings", group, known)
            if not isinstance(inside, dict):
                raise BadInput(f"{group} = {inside!r} does not fit: expected settings, like {group}.NAME=VALUE.")
            if group in GROUPS:
                validated(GROUPS[group], inside, prefix=f"{group}.")
    space_class = load("space", space)
    built = build_terms(method, {})
    values = of_preset(built, space, preset, dataset or given.get("dataset"))
    for layer in (given, sets or {}):
        values = merge(values, layer)
    names = {"dataset": dataset, "target": target, "preset": preset, "seed": seed}
    names = {name: values.get(name) if value is None else value for name, value in names.items()}
    names["seed"] = names["seed"] or 0
    plugins = build_terms(method, {name: values.get(name, {}) for name in built})
    made_space = build(space_class, space, values.get(space, {}))
    options = {name: plugin.model_dump(mode="json") for name, plugin in [*plugins.items(), (space, made_space)]}
    for name in sorted(evaluators.keys() & values.keys()):  # a part of all runs: recorded only where not as usual
        one = build(load("evaluator", name), name, values[name])
        if one != type(one)():
            options[name] = one.model_dump(mode="json")
    groups = {g: validated(cls, values.get(g, {}), prefix=f"{g}.").model_dump() for g, cls in GROUPS.items()}
    if groups["train"]["nesterov"] and groups["train"]["momentum"] == 0:
        raise BadInput("train.nesterov needs train.momentum above 0; set train.nesterov=false as well.")
    if names["dataset"] is None:
        raise BadInput(f"The space {space} names no dataset for the preset {preset!r}; give one with --dataset.")
    if names["target"] not in (*made_space.targets(), names["dataset"]):
        from nasbench.data import target_of  # a dataset knows what it is ranked against

        own = target_of(str(names["dataset"]))
        if names["target"] not in (None, own):
            raise unknown(f"target of {space}", str(names["target"]), {*made_space.targets(), own})
        names["target"] = own
    everything = {
        "method": format_label(plugins),
        "space": space,
        **names,
        "device": device,
        **groups,
        "options": options,
        "plugin_files": plugin_files.digests([*plugins, space, str(names["dataset"])]),
    }
    return validated(Recipe, everything)


def of_preset(plugins: dict[str, Plugin], space: str, preset: str, dataset: str | None) -> dict[str, Any]:
    """What the presets of a space and of these terms say together: space < method < modifiers."""
    values = preset_values(load("space", space), space, preset, space, dataset)
    for name in in_order(plugins):
        values = merge(values, preset_values(type(plugins[name]), name, preset, space, dataset))
    return values


def beside_preset(recipe: dict[str, Any]) -> dict[str, Any]:
    """The groups of settings and the space's options of a recorded recipe, as its preset has them today; nothing where
    that is not at hand, as of a plugin that is not installed."""
    space = recipe["space"]
    try:
        values = of_preset(build_terms(recipe["method"], {}), space, recipe["preset"], recipe["dataset"])
        groups = {g: validated(cls, values.get(g, {})).model_dump(mode="json") for g, cls in GROUPS.items()}
        options = build(load("space", space), space, values.get(space, {})).model_dump(mode="json")
    except BadInput:
        return {}
    options |= {name: recipe["options"][space].get(name) for name in OF_THE_DATA if name in options}
    return {**groups, "options": {space: options}}


def label_beside_preset(recipe: dict[str, Any]) -> str:
    """The label of a recorded recipe, with the options that differ from its preset's instead of from the defaults."""
    try:
        plugins = build_terms(recipe["method"], recipe["options"])
        values = of_preset(plugins, recipe["space"], recipe["preset"], recipe["dataset"])
    except BadInput:  # made with a plugin that is not at hand
        return str(recipe["method"])
    return format_label(plugins, build_terms("+".join(plugins), values))
