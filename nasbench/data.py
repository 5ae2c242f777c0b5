"""Images as uint8 tensors on the device, split by a fixed rule, augmented a whole batch at a time."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from nasbench import home
from nasbench.errors import BadInput, unknown
from nasbench.files import write_atomic
from nasbench.plugins import discover, load

if TYPE_CHECKING:
    from nasbench.recipe import Augmentation, DataSettings


@dataclass
class Split:
    """Images uint8 [N,C,H,W] and their labels int64 [N]."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: torch.Tensor | np.ndarray) -> Split:
        """The images of these indices, int64 [n], in the same memory format."""
        rows = torch.as_tensor(rows)
        by_channels = self.images.is_contiguous(memory_format=torch.channels_last)
        # Selecting whole images that are contiguous is a copy, 10 times as fast as indexing.
        images = self.images.permute(0, 2, 3, 1) if by_channels else self.images
        images = images.index_select(0, rows)
        return Split(images.permute(0, 3, 1, 2) if by_channels else images, self.labels.index_select(0, rows))


@dataclass
class Images:
    """A dataset as it was published: its splits (`train`, `test`, perhaps `valid`) and its classes."""

    name: str
    target: str
    """The dataset whose ground-truth table it is ranked against unless the user says otherwise."""
    classes: list[str]
    splits: dict[str, Split]

    @cached_property
    def content_hash(self) -> str:
        """First 16 hex digits of a hash over all images and labels: the same data, the same name."""
        digest = hashlib.blake2b(digest_size=8)
        for key in sorted(self.splits):
            digest.update(key.encode())
            digest.update(self.splits[key].images.contiguous().numpy().data)
            digest.update(self.splits[key].labels.contiguous().numpy().data)
        return digest.hexdigest()


class Dataset:
    """Base of a registered dataset."""

    target: ClassVar[str] = ""
    """The dataset whose ground truth it is ranked against; empty stands for its own name."""

    def load(self) -> Images:
        """Read the images, downloading them if need be. Raises BadInput saying what to put where."""
        raise NotImplementedError

    def read(self, folder: Path) -> Images | None:
        """The images of the original files that `nasbench data add NAME FOLDER` is given; None if it takes none."""
        return None


# ---------------------------------------------------------------------- finding, storing


def load_images(name: str) -> Images:
    """The images of a registered or an added dataset."""
    return _load_images(name, home.path())


@lru_cache(maxsize=2)
def _load_images(name: str, folder: Path) -> Images:
    found = _find(name)
    return read_images(found) if isinstance(found, Path) else found().load()


def target_of(name: str) -> str:
    """The dataset whose ground truth a dataset is ranked against; the images are not read."""
    found = _find(name)
    return _header(found)["target"] if isinstance(found, Path) else found.target or name


def _find(name: str) -> Path | type[Dataset]:
    if name in discover("dataset"):
        cls: type[Dataset] = load("dataset", name)
        return cls
    if name in home.stored("datasets"):
        return home.path("datasets", f"{name}.safetensors")
    raise unknown("dataset", name, [*discover("dataset"), *home.stored("datasets")])


def write_images(images: Images, path: Path) -> None:
    """Store a dataset in one safetensors file."""
    tensors = {f"{s}.{k}": v.contiguous() for s, split in images.splits.items() for k, v in vars(split).items()}
    meta = {"name": images.name, "target": images.target, "classes": json.dumps(images.classes)}
    write_atomic(path, save(tensors, meta))


def read_images(path: Path) -> Images:
    """Read what `write_images` stored."""
    meta = _header(path)
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no dictionary
    keys = sorted({key.partition(".")[0] for key in tensors})
    splits = {key: Split(tensors[f"{key}.images"], tensors[f"{key}.labels"]) for key in keys}
    return Images(meta["name"], meta["target"], json.loads(meta["classes"]), splits)


def _header(path: Path) -> dict[str, str]:
    """What a stored dataset says of itself; its length is checked, so that a truncated one is found out."""
    try:
        with safe_open(path, "pt") as file:
            meta = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise BadInput(f"The dataset {path} cannot be read ({error}); add it again with `nasbench data add`.") from None
    if not meta.keys() >= {"name", "target", "classes"}:
        raise BadInput(f"{path} holds no dataset; add it again with `nasbench data add`.")
    return meta


# ---------------------------------------------------------------------- splitting


def stratified_order(labels: np.ndarray, seed: int) -> list[np.ndarray]:
    """For each class, its image indices in a seeded order."""
    return [np.random.default_rng(seed + int(c)).permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)]


def stratified(split: Split, count: int, seed: int, skip: int = 0) -> Split:
    """`count` images, every class in its share, after leaving out the first `skip` of the same order."""
    per_class = stratified_order(split.labels.numpy(), seed)
    # The k-th of n images of a class stands at (k + 1/2) / n: every stretch of this order has every class's share.
    places = np.concatenate([(np.arange(len(rows)) + 0.5) / len(rows) for rows in per_class])
    order = np.concatenate(per_class)[np.argsort(places, kind="stable")]
    return split.take(np.sort(order[skip : skip + count]))


# ---------------------------------------------------------------------- batches


@dataclass
class Batch:
    """Normalised images [B,C,H,W], labels [B] and, where a method sets it, the classes that take part [B,K]."""

    images: torch.Tensor
    labels: torch.Tensor
    class_mask: torch.Tensor | None = None


class Data:
    """The splits a run uses, on its device.

    A dataset without a validation split gives a share of its training images, stratified by a fixed seed: half
    unless told otherwise, as NAS-Bench-201 does with CIFAR-10. The test split is never touched by a search.
    """

    SPLIT_SEED = 0

    def __init__(self, images: Images, settings: DataSettings, device: torch.device, channels_last: bool) -> None:
        self.name, self.classes, self.content_hash = images.name, len(images.classes), images.content_hash
        self.settings, self.device = settings, device
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        splits = dict(images.splits)
        if "valid" not in splits:
            all_ = splits["train"]
            count = int(len(all_) * (1 - settings.valid_share) + 1e-9)
            if not count:
                raise BadInput(
                    f"data.valid_share = {settings.valid_share} of the {len(all_)} training images of {images.name} "
                    f"leaves none to train on; lower it or add images."
                )
            splits["train"] = stratified(all_, count, self.SPLIT_SEED)
            splits["valid"] = stratified(all_, len(all_) - count, self.SPLIT_SEED, skip=count)
        for key, limit in (("train", settings.train_images), ("valid", settings.valid_images)):
            if limit is not None and limit > len(splits[key]):
                raise BadInput(f"data.{key}_images = {limit} is more than the {len(splits[key])} of {images.name}.")
            if limit is not None:
                splits[key] = stratified(splits[key], limit, self.SPLIT_SEED)
        resized = {key: self._resize(split) for key, split in splits.items()}
        self.train, self.valid, self.test = resized["train"], resized["valid"], resized.get("test")
        mean, std = channel_statistics(self.train.images)
        # Spread over an image, because multiplying by what lies in memory as the images do is 7 times as fast.
        self.scale, self.shift = (
            value.float().view(1, -1, 1, 1).expand(1, *self.image).contiguous(memory_format=self.memory_format)
            for value in (1 / (255 * std), -mean / std)
        )
        self._prepared: dict[tuple[str, int], list[Batch]] = {}

    @property
    def image(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def _resize(self, split: Split) -> Split:
        images, size = split.images, self.settings.size
        if size is not None and images.shape[-2:] != (size, size):
            parts = images.split(4096)
            small = [F.interpolate(p.float(), size=(size, size), mode="bilinear", antialias=True) for p in parts]
            images = torch.cat([s.round().clamp(0, 255).to(torch.uint8) for s in small])
        images = images.to(self.device).contiguous(memory_format=self.memory_format)
        return Split(images, split.labels.to(self.device))

    def _normalise(self, images: torch.Tensor) -> torch.Tensor:
        """(x / 255 - mean) / std, as one multiplication and one addition."""
        images = images.contiguous(memory_format=self.memory_format)
        return torch.addcmul(self.shift, images.float(), self.scale)

    def steps_per_epoch(self, batch_size: int) -> int:
        """Batches in an epoch; the last one may be smaller."""
        return -(-len(self.train) // batch_size)

    def training_batch(
        self,
        order: torch.Tensor,
        rng: torch.Generator,
        split: str = "train",
        kinds: list[Augmentation] | None = None,
    ) -> Batch:
        """The images of these indices, augmented, by other `kinds` than the settings' where these are given: training
        images, or whatever an architecture is trained on."""
        part: Split = getattr(self, split).take(order)
        kinds = self.settings.augment if kinds is None else kinds
        return Batch(self._normalise(augment(part.images, kinds, rng)), part.labels)

    def batch(self, split: str, rows: torch.Tensor) -> Batch:
        """The images of a split with these indices, int64 [B], as they are."""
        part: Split = getattr(self, split).take(rows)
        return Batch(self._normalise(part.images), part.labels)

    def batches(self, split: str, batch_size: int) -> list[Batch]:
        """All images of a split in one fixed, seeded, class-mixed order, prepared once.

        Mixed, because a batch of one class would give batch statistics that know the label.
        """
        key = (split, batch_size)
        if key not in self._prepared:
            source: Split = getattr(self, split)
            mixed = np.random.default_rng(self.SPLIT_SEED).permutation(len(source))
            order = torch.from_numpy(mixed).to(self.device)
            parts = [source.take(rows) for rows in order.split(batch_size)]
            self._prepared[key] = [Batch(self._normalise(part.images), part.labels) for part in parts]
        return self._prepared[key]


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the device, without waiting for what the device still has to do."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


@lru_cache(maxsize=2)
def shuffled(count: int, seed: int, device: torch.device | None = None) -> torch.Tensor:
    """The numbers below `count` in a seeded order, int64: drawn, and brought to the device, once for all steps of an
    epoch."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order if device is None else to_device(order, device)


def channel_statistics(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each channel of uint8 images [N,C,H,W], as if they went from 0 to 1.

    From histograms: exact, and without the eight bytes a pixel that float64 would take. The deviation is at
    least one grey level, so that a channel without contrast can be divided by it.
    """
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)]).double()
    levels, total = torch.arange(256, device=images.device).double() / 255, counts.sum(1)
    mean = counts @ levels / total
    variance = (counts * (levels - mean[:, None]) ** 2).sum(1) / (total - 1)
    return mean, variance.sqrt().clamp_min(1 / 255)


def augment(images: torch.Tensor, kinds: list[Augmentation], rng: torch.Generator) -> torch.Tensor:
    """Batched augmentation of uint8 images [B,C,H,W]; each image draws its own flip, shift and hole.

    `crop` pads by an eighth of the side (4 for 32, as usual on CIFAR) and cuts out the original size;
    `autoaugment` is the policy that AutoAugment found for CIFAR-10; `cutout` blanks a square of half the side,
    clipped at the border. They come in this order.
    """
    count, channels, height, width = images.shape

    def draw(low: int, high: int) -> torch.Tensor:
        return torch.randint(low, high + 1, (count, 1), generator=rng)

    flipped = draw(0, 1).bool() if "flip" in kinds else torch.zeros(count, 1, dtype=torch.bool)
    pad = max(1, height // 8) if "crop" in kinds else 0
    if "flip" in kinds or "crop" in kinds:
        # Mirror images come after the batch: image i is found at place[i].
        mirrored, place = flipped.flatten().nonzero().flatten(), torch.arange(count)
        place[mirrored] = count + torch.arange(len(mirrored))
        y, x = (draw(0, 2 * pad), draw(0, 2 * pad)) if pad else (0, torch.zeros(count, 1, dtype=torch.int64))
        x = torch.where(flipped, 2 * pad - x, x)  # it was drawn for the image as it was
        rows = place[:, None] * (height + 2 * pad) + y + torch.arange(height)
        first = (rows * (width + 2 * pad) + x).flatten()
        # Both in one, because bringing it to a GPU costs more than what is brought.
        mirrored, first = to_device(torch.cat([mirrored, first]), images.device).split([len(mirrored), len(first)])
        pixels = images.permute(0, 2, 3, 1).contiguous()  # [B,H,W,C]
        pixels = torch.cat([pixels, pixels.index_select(0, mirrored).flip(2)])
        pixels = F.pad(pixels, (0, 0, pad, pad, pad, pad))
        # A row of a window is a run of pixels; every run is a row of this overlapping view, selected as a whole.
        runs = pixels.flatten().unfold(0, width * channels, channels)
        images = runs.index_select(0, first).view(count, height, width, channels).permute(0, 3, 1, 2)
    if "autoaugment" in kinds:
        images = auto_augment(images, rng)
    if "cutout" in kinds:
        half = height // 4
        y, x = (torch.arange(side, device=images.device).expand(count, -1) for side in (height, width))
        inside_y, inside_x = (
            (y - to_device(draw(0, height - 1), images.device)).add(0.5).abs() < half,
            (x - to_device(draw(0, width - 1), images.device)).add(0.5).abs() < half,
        )
        images = images.masked_fill((inside_y[:, :, None] & inside_x[:, None, :])[:, None], 0)
    return images


def auto_augment(images: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """AutoAugment's CIFAR-10 policy (Cubuk et al., CVPR 2019) as torchvision has it, drawn for each image anew."""
    from torchvision.transforms import v2

    policy = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)
    seed = int(torch.randint(2**63 - 1, (1,), generator=rng))
    with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
        torch.manual_seed(seed)
        return torch.stack([policy(image) for image in images]).contiguous(
            memory_format=torch.channels_last
            if images.is_contiguous(memory_format=torch.channels_last)
            else torch.contiguous_format
        )
