from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas.data.augment import Augmentation, Wanted, augment, augmentation_for, default_augmentation, normalize, resize
from nas.data.config import DataConfig
from nas.data.dataset import ArraySplit, Dataset
from nas.data.load import load
from nas.errors import InvalidSetting
from nas.evaluation.supernet import accuracy
from nas.report.augmentation import augmentation_words
from nas.torch_seeding import generator
from nas.training.loop import Checkpoints, TrainConfig, train
from nas.training.objectives import classification

OFF = Augmentation(crop_padding=0, flip=False)


def random_images(count: int = 12, channels: int = 3, height: int = 8, width: int = 8) -> Tensor:
    images = torch.randn(count, channels, height, width, generator=generator(0, "images"))
    return images.contiguous(memory_format=torch.channels_last)


def varied(images: Tensor, spec: Augmentation, seed: int = 0) -> Tensor:
    return augment(images, torch.zeros(len(images), dtype=torch.int64), spec, generator(seed, "augment"))[0]


def slow_shift_and_flip(images: Tensor, spec: Augmentation, rng: torch.Generator) -> Tensor:
    """One image and one pixel after the other, from the documented order of draws: shifts, flips."""
    count, _, height, width = images.shape
    padding = spec.crop_padding
    shifts = torch.randint(2 * padding + 1, (2, count), generator=rng) - padding if padding else torch.zeros(2, count).int()
    flips = torch.randint(2, (count, 1), generator=rng) if spec.flip else torch.zeros(count, 1)
    result = torch.zeros_like(images)
    for n in range(count):
        for y in range(height):
            for x in range(width):
                source_y, source_x = y + int(shifts[0, n]), (width - 1 - x if flips[n, 0] else x) + int(shifts[1, n])
                if 0 <= source_y < height and 0 <= source_x < width:
                    result[n, :, y, x] = images[n, :, source_y, source_x]
    return result


def slow_cutout(images: Tensor, side: int, rng: torch.Generator) -> Tensor:
    count, _, height, width = images.shape
    centre_y = torch.randint(height, (count, 1), generator=rng)
    centre_x = torch.randint(width, (count, 1), generator=rng)
    result = images.clone()
    for n in range(count):
        top, left = int(centre_y[n]) - side // 2, int(centre_x[n]) - side // 2
        result[n, :, max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = 0
    return result


@pytest.mark.parametrize("shape", [(12, 3, 8, 8), (5, 1, 8, 8), (4, 2, 6, 9), (1, 3, 5, 5)])
@pytest.mark.parametrize(("padding", "flip"), [(1, False), (3, True), (0, True), (9, True)])
def test_shift_and_flip_equal_the_slow_reference(shape: tuple[int, ...], padding: int, flip: bool) -> None:
    images, spec = random_images(*shape), Augmentation(padding, flip)
    assert torch.equal(varied(images, spec), slow_shift_and_flip(images, spec, generator(0, "augment")))


@pytest.mark.parametrize("side", [1, 3, 4, 20])
def test_cutout_equals_the_slow_reference(side: int) -> None:
    images = random_images(20)
    assert torch.equal(varied(images, replace(OFF, cutout=side)), slow_cutout(images, side, generator(0, "augment")))


def test_everything_together_equals_the_slow_reference() -> None:
    images, targets = random_images(), torch.arange(12) % 4
    spec = Augmentation(2, True, cutout=3, mixup=0.4, classes=4)
    mixed, soft = augment(images, targets, spec, generator(7, "augment"))
    rng = generator(7, "augment")
    expected = slow_cutout(slow_shift_and_flip(images, spec, rng), 3, rng)
    order = torch.randperm(12, generator=rng)
    weight = np.random.default_rng(int(torch.randint(2**63 - 1, (1,), generator=rng))).beta(0.4, 0.4)
    one_hot = torch.eye(4)[targets]
    torch.testing.assert_close(mixed, weight * expected + (1 - weight) * expected[order])
    torch.testing.assert_close(soft, weight * one_hot + (1 - weight) * one_hot[order], check_dtype=True)


def test_every_shift_and_flip_occurs_about_equally_often() -> None:
    image = torch.arange(1.0, 10).view(1, 1, 3, 3)
    spec = Augmentation(1, True)
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1))
    windows = [padded[:, :, y : y + 3, x : x + 3] for y in range(3) for x in range(3)]
    possible = {tuple(w.flatten().tolist()) for window in windows for w in (window, window.flip(3))}
    seen = [tuple(row) for row in varied(image.expand(1800, 1, 3, 3), spec).flatten(1).tolist()]
    assert set(seen) == possible
    assert all(60 < seen.count(window) < 145 for window in possible)  # 100 expected, deviation 9.7


def test_turned_off_returns_the_images_themselves() -> None:
    images = random_images()
    assert varied(images, OFF) is images


def test_the_input_is_not_changed() -> None:
    images = random_images()
    before = images.clone()
    varied(images, Augmentation(2, True, cutout=3, mixup=0.4, classes=2))
    assert torch.equal(images, before)


def test_equal_generators_give_equal_batches_and_the_global_generator_is_left_alone() -> None:
    images, spec = random_images(), Augmentation(2, True, cutout=3, mixup=0.4, classes=2)
    state = torch.get_rng_state()
    first = varied(images, spec, seed=1)
    assert torch.equal(first, varied(images, spec, seed=1))
    assert not torch.equal(first, varied(images, spec, seed=2))
    assert torch.equal(torch.get_rng_state(), state)


def test_results_stay_in_channels_last_format() -> None:
    spec = Augmentation(2, True, cutout=3, mixup=0.4, classes=2)
    for part in (replace(OFF, crop_padding=1), replace(OFF, cutout=3), spec):
        assert varied(random_images(), part).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("alpha", [0.01, 1.0])
def test_mixup_targets_are_probabilities(alpha: float) -> None:
    targets = torch.tensor([0, 1, 2, 2, 1, 0])
    spec = replace(OFF, mixup=alpha, classes=3)
    _, soft = augment(random_images(6), targets, spec, generator(0, "mixup"))
    assert soft.shape == (6, 3) and soft.dtype == torch.float32
    assert soft.min() >= 0
    torch.testing.assert_close(soft.sum(1), torch.ones(6))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_cpu_generator_gives_the_same_images_on_the_gpu() -> None:
    images, spec = random_images(), Augmentation(2, True, cutout=3)
    assert torch.equal(varied(images.cuda(), spec).cpu(), varied(images, spec))


def test_normalize_scales_by_the_statistics() -> None:
    images = torch.randint(256, (4, 3, 5, 5), dtype=torch.uint8, generator=generator(0))
    mean, std = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
    result = normalize(images, mean, std, "cpu")
    expected = (images.double() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert result.dtype == torch.float32 and result.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(result, expected.float(), rtol=0, atol=2e-6)


def test_normalized_data_have_mean_0_and_deviation_1() -> None:
    data = load(DataConfig("digits"))
    images, _ = next(data.train.batches([torch.arange(len(data.train))]))
    result = normalize(images, data.mean, data.std, torch.device("cpu"))
    assert abs(float(result.mean())) < 1e-5
    assert float(result.std(correction=0)) == pytest.approx(1, abs=1e-5)


def test_resize_keeps_a_fitting_batch_and_agrees_between_types() -> None:
    images = torch.randint(256, (3, 3, 12, 12), dtype=torch.uint8, generator=generator(0))
    assert resize(images, 12) is images
    small = resize(images, 6)
    assert small.dtype == torch.uint8 and small.shape == (3, 3, 6, 6)
    assert torch.equal(small, resize(images.float(), 6).round().clamp(0, 255).to(torch.uint8))


def test_resize_is_antialiased() -> None:
    stripes = torch.tensor([0.0, 1.0]).repeat(16).expand(1, 1, 32, 32)
    inner = resize(stripes, 8)[..., 1:-1]  # the border sees less of one stripe
    torch.testing.assert_close(inner, torch.full_like(inner, 0.5))


def test_default_augmentation_fits_the_data() -> None:
    digits = load(DataConfig("digits"))
    assert default_augmentation(digits) == Augmentation(1, False, classes=10)
    assert default_augmentation(replace(digits, resolution=28)).crop_padding == 3
    assert default_augmentation(replace(digits, resolution=32, flip=True)) == Augmentation(4, True, classes=10)
    assert default_augmentation(replace(digits, resolution=4)).crop_padding == 1


def test_what_the_user_says_of_the_augmentation_counts() -> None:
    photos = replace(load(DataConfig("digits")), resolution=32, flip=None)
    assert augmentation_for(photos, Wanted()) == Augmentation(4, False, classes=10)
    assert augmentation_for(photos, Wanted(crop=0, flip=True)) == Augmentation(0, True, classes=10)
    cifar = replace(photos, flip=True)
    assert augmentation_for(cifar, Wanted()).flip and not augmentation_for(cifar, Wanted(flip=False)).flip
    assert augmentation_for(cifar, Wanted(31, None, 32, 0.2)) == Augmentation(31, True, 32, 0.2, 10)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Wanted(crop=32), "--crop 32 shifts images of 32 pixels out of view; choose at most 31"),
        (Wanted(crop=10**9), "--crop 1000000000 shifts images of 32 pixels out of view; choose at most 31"),
        (Wanted(crop=-1), "crop_padding is -1; choose 0 to turn it off, or more"),
        (Wanted(cutout=33), "--cutout 33 hides images of 32 pixels; choose at most 32"),
        (Wanted(mixup=float("nan")), "mixup is nan; choose 0 to turn it off, or more"),
        (Wanted(mixup=float("inf")), "mixup is inf; choose 0 to turn it off, or more"),
    ],
)
def test_what_would_hide_the_images_is_refused(wanted: Wanted, message: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        augmentation_for(replace(load(DataConfig("digits")), resolution=32), wanted)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (OFF, "no shift, no mirroring"),
        (Augmentation(1, True), "shifted by up to 1 pixel, mirrored at random"),
        (
            Augmentation(4, False, 8, 0.2, 10),
            "shifted by up to 4 pixels, no mirroring, a square of 8 pixels hidden, blended in pairs (mixup 0.2)",
        ),
    ],
)
def test_what_is_applied_is_said(spec: Augmentation, words: str) -> None:
    assert augmentation_words(vars(spec)) == words and augmentation_words({}) == ""


def arrows(count: int) -> ArraySplit:
    """Arrows of 16 pixels that point left (class 0) or right (class 1): classes that differ by a mirror alone."""
    rng = np.random.default_rng(count)
    images = rng.integers(0, 40, (count, 1, 16, 16), dtype=np.uint8)
    for i, row, column in zip(range(count), rng.integers(5, 11, count), rng.integers(2, 5, count), strict=True):
        images[i, 0, row, column : column + 9] = 255
        for k in (1, 2, 3):
            images[i, 0, (row - k, row + k), column + k] = 255
    labels = torch.arange(count) % 2
    images[1::2] = images[1::2, :, :, ::-1]
    return ArraySplit(torch.from_numpy(images), labels)


def test_own_data_whose_classes_differ_by_a_mirror_are_learned() -> None:
    reached = {}
    parts = arrows(256), arrows(100)
    data = Dataset("own", *parts, lambda: arrows(100), ("left", "right"), 1, 16, (0.1,), (0.2,), None, "own")
    for flip in (None, True):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module = nn.Sequential(nn.Conv2d(1, 16, 5), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(16, 2))
        config = TrainConfig(epochs=12, batch_size=32, optimizer="adamw", lr=0.01)
        spec = augmentation_for(data, Wanted(flip=flip))
        for _ in train(module, classification(module), data, spec, config, Checkpoints()):
            pass
        reached[flip] = accuracy(module, data.val, data, 16)
    assert reached[None] == 1.0 and reached[True] < 0.75


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop_padding": -1}, "crop_padding is -1; choose 0 to turn it off, or more"),
        ({"cutout": -2}, "cutout is -2; choose 0 to turn it off, or more"),
        ({"mixup": -0.5, "classes": 2}, "mixup is -0.5; choose 0 to turn it off, or more"),
        ({"mixup": 0.2}, "mixup is 0.2, but the number of classes is not set; set classes"),
    ],
)
def test_senseless_settings_are_refused(change: dict, message: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        replace(OFF, **change)
    assert str(caught.value) == message
