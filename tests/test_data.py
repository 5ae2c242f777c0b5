"""Splits, augmentation, batches: small images as tensors."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from nasbench import BadInput
from nasbench.data import (
    Data,
    Images,
    Split,
    augment,
    channel_statistics,
    load_images,
    read_images,
    shuffled,
    stratified,
    target_of,
    write_images,
)
from nasbench.recipe import DataSettings


def numbered(per_class: list[int], side: int = 4) -> Split:
    """Images whose first two pixels spell their number, sorted by class, which is how folders come."""
    labels = torch.arange(len(per_class)).repeat_interleave(torch.tensor(per_class))
    images = torch.zeros(len(labels), 1, side, side, dtype=torch.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = torch.arange(len(labels)) // 256, torch.arange(len(labels)) % 256
    return Split(images, labels)


def numbers(split: Split) -> list[int]:
    return (split.images[:, 0, 0, 0].long() * 256 + split.images[:, 0, 0, 1].long()).tolist()


def data(images: Images, channels_last: bool = False, **settings: Any) -> Data:
    return Data(images, DataSettings(**settings), torch.device("cpu"), channels_last)


def dataset(*per_class: int, **more: Split) -> Images:
    return Images("made", "made", [str(c) for c in range(len(per_class))], {"train": numbered(list(per_class)), **more})


sides = st.sampled_from([4, 8, 9, 16, 32])
seeds = st.integers(0, 2**32)


def noise(count: int, height: int, width: int, seed: int) -> torch.Tensor:
    """No pixel is 0, which is what padding and holes are."""
    return torch.randint(1, 256, (count, 3, height, width), dtype=torch.uint8, generator=rng(seed))


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------------- splits


def test_digits() -> None:
    digits = load_images("digits")
    assert {key: len(split) for key, split in digits.splits.items()} == {"train": 600, "valid": 400, "test": 797}
    assert Counter(digits.splits["train"].labels.tolist()) == dict.fromkeys(range(10), 60)
    assert Counter(digits.splits["valid"].labels.tolist()) == dict.fromkeys(range(10), 40)
    assert (digits.name, target_of("digits"), len(digits.classes)) == ("digits", "digits", 10)
    assert digits.splits["train"].images.shape == (600, 1, 8, 8)
    assert digits.splits["train"].images.max() == 255


def test_digits_are_those_of_scikit_learn_each_once() -> None:
    from sklearn.datasets import load_digits

    ours = torch.cat([split.images.flatten(1) for split in load_images("digits").splits.values()])
    theirs = np.rint(load_digits().data * 255 / 16).astype(np.uint8)
    assert Counter(map(bytes, ours.numpy())) == Counter(map(bytes, theirs))


@given(st.lists(st.integers(1, 40), min_size=2, max_size=6), st.data())
def test_stratified(per_class: list[int], draw: st.DataObject) -> None:
    """Exactly as many as asked for; stretches of one order do not overlap; larger ones hold the smaller."""
    split, total = numbered(per_class), sum(per_class)
    few = draw.draw(st.integers(0, total))
    more = draw.draw(st.integers(few, total))
    a, b, rest = stratified(split, few, 0), stratified(split, more, 0), stratified(split, total - few, 0, skip=few)
    assert (len(a), len(b)) == (few, more)
    assert set(numbers(a)) <= set(numbers(b))
    assert sorted(numbers(a) + numbers(rest)) == list(range(total))
    for label, size in enumerate(per_class):
        share = size / total
        assert abs((a.labels == label).sum().item() - few * share) <= 0.5 + share * len(per_class) / 2


def test_stratified_is_seeded() -> None:
    split = numbered([50, 50])
    assert numbers(stratified(split, 30, 1)) == numbers(stratified(split, 30, 1)) != numbers(stratified(split, 30, 2))


def test_shares_are_exact_where_they_are_whole() -> None:
    assert Counter(stratified(numbered([50, 30, 20]), 40, 0).labels.tolist()) == {0: 20, 1: 12, 2: 8}


def test_without_validation_images_half_of_training_is_taken() -> None:
    test = numbered([3, 3])
    made = data(dataset(31, 20, test=test))
    assert (len(made.train), len(made.valid)) == (25, 26)
    assert sorted(numbers(made.train) + numbers(made.valid)) == list(range(51))
    again = data(dataset(31, 20, test=test))
    assert numbers(again.train) == numbers(made.train)
    assert made.test is not None
    assert numbers(made.test) == numbers(test)


@pytest.mark.parametrize(("share", "sizes"), [(0.1, (45, 5)), (0.3, (35, 15)), (0.9, (5, 45))])
def test_or_another_share(share: float, sizes: tuple[int, int]) -> None:
    made = data(dataset(30, 20), valid_share=share)
    assert (len(made.train), len(made.valid)) == sizes
    assert sorted(numbers(made.train) + numbers(made.valid)) == list(range(50))
    assert made.valid.labels.tolist().count(0) == 3 * sizes[1] // 5


def test_a_share_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(BadInput, match=r"data\.valid_share = 0\.99 of the 16 training images .* none to train on"):
        data(dataset(8, 8), valid_share=0.99)


def test_validation_images_that_are_there_are_kept() -> None:
    made = data(dataset(5, 5, valid=numbered([2, 2])))
    assert (len(made.train), len(made.valid)) == (10, 4)


def test_limits_are_exact_and_nested() -> None:
    small, large = (data(dataset(40, 21), train_images=n, valid_images=n // 2) for n in (11, 22))
    assert [len(s) for s in (small.train, small.valid, large.train, large.valid)] == [11, 5, 22, 11]
    assert set(numbers(small.train)) < set(numbers(large.train))
    assert set(numbers(small.valid)) < set(numbers(large.valid))
    assert not set(numbers(large.train)) & set(numbers(large.valid))


def test_more_images_than_there_are() -> None:
    with pytest.raises(BadInput, match=r"data\.valid_images = 26 is more than the 25 of made"):
        data(dataset(25, 25), valid_images=26)


def test_content_hash_is_of_the_content() -> None:
    a, b = dataset(5, 5), dataset(5, 5)
    b.name = "other"
    assert a.content_hash == b.content_hash
    pixel, label = dataset(5, 5), dataset(5, 5)
    pixel.splits["train"].images[3, 0, 2, 2] = 1
    label.splits["train"].labels[3] = 1
    assert len({a.content_hash, pixel.content_hash, label.content_hash}) == 3


# ---------------------------------------------------------------------- size and scale


@pytest.mark.parametrize("shape", [(8, 8), (8, 4), (4, 8)])
def test_resize(shape: tuple[int, int]) -> None:
    split = Split(torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1).expand(20, 1, *shape), torch.arange(20) % 2)
    made = data(Images("made", "made", ["a", "b"], {"train": split, "valid": split, "test": split}), size=4)
    assert made.image == (1, 4, 4)
    assert made.test is not None
    for resized in (made.train, made.valid, made.test):
        assert resized.images.dtype == torch.uint8
        assert resized.images[:, 0, 0, 0].tolist() == list(range(20))  # what is even stays so
        assert (resized.images == resized.images[:, :, :1, :1]).all()


def test_images_of_the_right_size_are_not_touched() -> None:
    made = dataset(6, 6)
    assert torch.equal(data(made, size=4).train.images, data(made).train.images)


def test_training_images_are_normalised() -> None:
    made = data(load_images("digits"), augment=[])
    batch = made.training_batch(torch.arange(len(made.train)), torch.Generator())
    assert batch.images.dtype == torch.float32
    assert batch.images.mean().item() == pytest.approx(0, abs=1e-5)
    assert batch.images.std().item() == pytest.approx(1, abs=1e-4)
    assert torch.equal(batch.labels, made.train.labels)


@given(st.integers(1, 5), seeds)
def test_channel_statistics(channels: int, seed: int) -> None:
    images = torch.randint(0, 256, (6, channels, 3, 4), dtype=torch.uint8, generator=rng(seed))
    mean, std = channel_statistics(images)
    torch.testing.assert_close(mean, (images.double() / 255).mean((0, 2, 3)))
    torch.testing.assert_close(std, (images.double() / 255).std((0, 2, 3)))


def test_a_channel_without_contrast_stays_finite() -> None:
    split = Split(torch.full((4, 3, 4, 4), 255, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
    made = data(Images("made", "made", ["a", "b"], {"train": split, "valid": split}), augment=[])
    assert made.batches("valid", 4)[0].images.isfinite().all()


# ---------------------------------------------------------------------- batches


def test_batches_hold_every_image_once_in_a_fixed_mixed_order() -> None:
    made = data(dataset(60, 60, 60, valid=numbered([50, 50, 50])))
    batches = made.batches("valid", 64)
    labels = torch.cat([batch.labels for batch in batches])
    assert [len(batch.labels) for batch in batches] == [64, 64, 22]
    assert Counter(labels.tolist()) == {0: 50, 1: 50, 2: 50}
    for batch in batches:  # each class has about a third
        assert min((batch.labels == c).sum().item() for c in range(3)) >= len(batch.labels) / 6
    again = data(dataset(60, 60, 60, valid=numbered([50, 50, 50]))).batches("valid", 64)
    assert all(torch.equal(a.images, b.images) for a, b in zip(batches, again, strict=True))


def test_an_epoch_has_a_smaller_last_batch() -> None:
    made = data(dataset(10, 10, valid=numbered([2, 2])))
    assert [made.steps_per_epoch(size) for size in (1, 6, 10, 20, 21)] == [20, 4, 2, 1, 1]


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("kinds", [[], ["flip"], ["crop", "cutout"]])
def test_memory_format(channels_last: bool, kinds: list[str]) -> None:
    split = Split(torch.randint(0, 256, (8, 3, 8, 8), dtype=torch.uint8), torch.arange(8) % 2)
    made = data(Images("made", "made", ["a", "b"], {"train": split, "valid": split}), channels_last, augment=kinds)
    wanted = torch.channels_last if channels_last else torch.contiguous_format
    for batch in (made.training_batch(torch.arange(8), torch.Generator()), *made.batches("valid", 8)):
        assert batch.images.shape == (8, 3, 8, 8)
        assert batch.images.is_contiguous(memory_format=wanted)


# ---------------------------------------------------------------------- augmentation


@given(sides, sides, seeds, st.sets(st.sampled_from(["flip", "crop", "cutout"])))
def test_augment_keeps_shape_and_type_and_its_input(height: int, width: int, seed: int, kinds: set[Any]) -> None:
    images = noise(5, height, width, seed)
    before = images.clone()
    changed = augment(images, sorted(kinds), rng(seed))
    assert (changed.shape, changed.dtype) == (images.shape, torch.uint8)
    assert torch.equal(images, before)
    assert torch.equal(changed, augment(images, sorted(kinds), rng(seed)))


@given(sides, sides, seeds)
def test_flip_mirrors_some_images_and_is_its_own_inverse(height: int, width: int, seed: int) -> None:
    images = noise(64, height, width, seed)
    flipped = augment(images, ["flip"], rng(seed))
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    same = (flipped == images).flatten(1).all(1)
    assert (mirrored ^ same).all()
    assert 0 < mirrored.sum() < 64
    assert torch.equal(augment(flipped, ["flip"], rng(seed)), images)


@pytest.mark.parametrize(("height", "width", "pad"), [(32, 32, 4), (8, 8, 1), (16, 32, 2)])
def test_crop_shifts_by_at_most_an_eighth(height: int, width: int, pad: int) -> None:
    """Every shift up to the padding occurs, no other; what comes in is black."""
    images, seen = noise(1, height, width, 0).expand(600, -1, -1, -1), set()
    padded = F.pad(images[0], (pad, pad, pad, pad))
    windows = {
        bytes(padded[:, y : y + height, x : x + width].contiguous().numpy()): (y, x)
        for y in range(2 * pad + 1)
        for x in range(2 * pad + 1)
    }
    for cropped in augment(images, ["crop"], rng(0)):
        seen.add(windows[bytes(cropped.contiguous().numpy())])
    assert {y for y, _ in seen} == {x for _, x in seen} == set(range(2 * pad + 1))


@given(sides, seeds)
def test_cutout_blanks_one_square_of_half_the_side(side: int, seed: int) -> None:
    images = noise(40, side, side, seed)
    holed = augment(images, ["cutout"], rng(seed))
    whole = 2 * (side // 4)
    for before, after in zip(images, holed, strict=True):
        hole = (after == 0).all(0)
        assert torch.equal(after, before.masked_fill(hole, 0))  # elsewhere nothing happens, in no channel
        rows, columns = hole.any(1).nonzero().flatten(), hole.any(0).nonzero().flatten()
        assert torch.equal(hole, torch.outer(hole.any(1), hole.any(0)))  # a rectangle
        for span in (rows, columns):
            assert span.tolist() == list(range(int(span[0]), int(span[-1]) + 1))
            inside = span[0] > 0 and span[-1] < side - 1
            assert len(span) == whole if inside else whole / 2 <= len(span) <= whole  # clipped at the border


def test_flip_and_crop_together() -> None:
    """A window of the padded image, of its mirror image for some."""
    images = noise(1, 8, 8, 0).expand(300, -1, -1, -1)
    windows = [
        {bytes(p[:, y : y + 8, x : x + 8].contiguous().numpy()) for y in range(3) for x in range(3)}
        for p in (F.pad(images[0], (1, 1, 1, 1)), F.pad(images[0].flip(2), (1, 1, 1, 1)))
    ]
    found = [bytes(image.contiguous().numpy()) for image in augment(images, ["flip", "crop"], rng(0))]
    assert set(found) == windows[0] | windows[1]


@given(sides, sides, seeds, st.sets(st.sampled_from(["flip", "crop", "cutout"])), st.booleans())
def test_augmentation_is_the_plain_one_of_each_image(
    height: int, width: int, seed: int, kinds: set[Any], channels_last: bool
) -> None:
    """Padding, cutting out, mirroring and blanking image by image, with the same draws in the same order."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    images = noise(6, height, width, seed).contiguous(memory_format=layout)
    draws, pad = rng(seed), max(1, height // 8)

    def draw(high: int) -> list[int]:
        return torch.randint(0, high + 1, (6, 1), generator=draws).flatten().tolist()

    flips = draw(1) if "flip" in kinds else [0] * 6
    top, left = (draw(2 * pad), draw(2 * pad)) if "crop" in kinds else ([pad] * 6, [pad] * 6)
    middles = zip(draw(height - 1), draw(width - 1), strict=True) if "cutout" in kinds else None
    plain = F.pad(images, (pad, pad, pad, pad))
    plain = torch.stack(
        [image[:, t:][:, :height, x:][..., :width] for image, t, x in zip(plain, top, left, strict=True)]
    )
    plain = torch.stack([image.flip(2) if flip else image for image, flip in zip(plain, flips, strict=True)])
    for image, (y, x) in zip(plain, middles or [], strict=False):
        half = height // 4
        image[:, max(0, y - half) : y + half, max(0, x - half) : x + half] = 0
    assert torch.equal(augment(images, sorted(kinds, key=["flip", "crop", "cutout"].index), rng(seed)), plain)


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_training_batch_is_normalised_by_the_plain_formula(channels_last: bool) -> None:
    split = Split(noise(40, 8, 8, 0), torch.arange(40) % 2)
    images = Images("made", "made", ["a", "b"], {"train": split, "valid": split})
    made, (mean, std) = data(images, channels_last), channel_statistics(split.images)
    rows = torch.tensor([7, 3, 3, 39])
    plain = augment(split.images[rows], ["flip", "crop"], rng(5)).double() / 255
    plain = (plain - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    batch = made.training_batch(rows, rng(5))
    assert batch.labels.tolist() == [1, 1, 1, 1]
    torch.testing.assert_close(batch.images, plain.float(), rtol=1e-6, atol=1e-6)


def test_an_order_is_that_of_its_seed() -> None:
    assert shuffled(50, 3).equal(torch.randperm(50, generator=rng(3)))
    assert not shuffled(50, 4).equal(shuffled(50, 3))


# ---------------------------------------------------------------------- storage


def test_stored_and_read_back(home: Path) -> None:
    images = dataset(300, 20, valid=numbered([3, 3]), test=numbered([2, 1]))
    images.target = "cifar10"
    path = home / "datasets" / "made.safetensors"
    write_images(images, path)
    for back in (read_images(path), load_images("made")):
        assert (back.name, back.target, back.classes) == ("made", "cifar10", ["0", "1"])
        assert back.splits.keys() == images.splits.keys()
        assert back.content_hash == images.content_hash
        assert numbers(back.splits["train"]) == list(range(320))
    assert target_of("made") == "cifar10"


def test_nothing_is_unpickled(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(dataset(3, 3), home / "datasets" / "made.safetensors")
    (home / "datasets" / "evil.safetensors").write_bytes(pickle.dumps({"train.images": 1}))

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler", "_Unpickler"):
        monkeypatch.setattr(pickle, name, forbidden)
    assert len(load_images("made").splits["train"]) == 6
    with pytest.raises(BadInput, match=r"evil\.safetensors cannot be read"):
        load_images("evil")


def test_home_is_where_the_environment_says(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nasbench import home as place

    assert place.path("a", "b") == home / "a" / "b"
    monkeypatch.delenv("NASBENCH_HOME")
    assert place.path().is_absolute()
    assert place.path() != home


def test_autoaugment_draws_a_policy_for_every_image_from_its_generator_alone() -> None:
    image = torch.randint(0, 256, (1, 3, 16, 16), generator=rng(1), dtype=torch.uint8)
    images = image.repeat(24, 1, 1, 1)
    torch.manual_seed(0)
    one = augment(images, ["autoaugment"], rng(0))
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), after)  # torch's global generator is left as it was
    assert (one.shape, one.dtype) == (images.shape, torch.uint8)
    assert torch.equal(augment(images, ["autoaugment"], rng(0)), one)
    assert not torch.equal(augment(images, ["autoaugment"], rng(1)), one)
    assert len({bytes(i.numpy()) for i in one}) > 4
    both = augment(images, ["autoaugment", "cutout"], rng(0))
    assert ((both == one) | (both == 0)).all()
