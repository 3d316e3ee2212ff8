"""Splits, batches, and the data sets that come as arrays."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import nas.data.npz
from nas.data.arrays import channel_statistics
from nas.data.config import DataConfig
from nas.data.dataset import ArraySplit, Subset, epoch_batches, images_at_once, plain_batches, stratified_split
from nas.data.load import load
from nas.errors import InvalidData

SHARED_CIFAR = Path(__file__).parents[2] / "shared" / "data" / "cifar10.npz"


def arrays(classes: int = 3, per_class: int = 10, side: int = 6, channels: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (side, side, channels) if channels else (side, side)
    labels = rng.permutation(np.repeat(np.arange(classes), per_class))
    return {
        "train_images": rng.integers(0, 256, (len(labels), *shape), dtype=np.uint8),
        "train_labels": labels,
        "test_images": rng.integers(0, 256, (classes, *shape), dtype=np.uint8),
        "test_labels": np.arange(classes),
    }


@pytest.fixture
def npz(tmp_path: Path):
    def write(**changes: object) -> DataConfig:
        content = {name: value for name, value in {**arrays(), **changes}.items() if value is not None}
        np.savez(tmp_path / "data.npz", **content)
        return DataConfig(f"npz:{tmp_path / 'data.npz'}")

    return write


def refused(config: DataConfig) -> str:
    with pytest.raises(InvalidData) as caught:
        load(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def split_of(count: int) -> ArraySplit:
    images = torch.arange(count, dtype=torch.uint8).view(count, 1, 1, 1).expand(count, 2, 3, 3).contiguous()
    return ArraySplit(images, torch.arange(count) % 3)


# --- batches ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "images"), [(224, 32), (32, 256), (96, 174), (448, 8), (4096, 1)])
def test_batches_of_large_images_are_small_on_the_cpu(side, images) -> None:
    assert images_at_once(side, 256, torch.device("cpu")) == images
    assert images_at_once(side, 256, torch.device("cuda")) == 256


def test_an_epoch_is_full_batches_of_different_images() -> None:
    batches = epoch_batches(23, 5, seed=0, epoch=0)
    assert [len(b) for b in batches] == [5, 5, 5, 5]
    seen = torch.cat(batches)
    assert len(set(seen.tolist())) == 20 and set(seen.tolist()) < set(range(23))
    assert seen.dtype == torch.int64


def test_an_epoch_depends_on_seed_and_number_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return torch.cat(epoch_batches(40, 8, seed, epoch)).tolist()

    assert order(1, 2) == order(1, 2)
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4


def test_few_images_are_one_batch() -> None:
    (batch,) = epoch_batches(3, 8, seed=0, epoch=0)
    assert sorted(batch.tolist()) == [0, 1, 2]


def test_the_dropped_tail_changes() -> None:
    left_out = {frozenset(range(9)) - set(torch.cat(epoch_batches(9, 4, 0, epoch)).tolist()) for epoch in range(20)}
    assert len(left_out) > 1


def test_plain_batches_are_all_images_in_order() -> None:
    batches = plain_batches(10, 4)
    assert [b.tolist() for b in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


# --- splits ----------------------------------------------------------------------------------------------------------------


def test_batches_follow_the_given_indices() -> None:
    split = split_of(9)
    wanted = [torch.tensor([4, 1]), torch.tensor([8, 0, 4])]
    got = list(split.batches(wanted))
    assert [images[:, 0, 0, 0].tolist() for images, _ in got] == [[4, 1], [8, 0, 4]]
    assert [labels.tolist() for _, labels in got] == [[1, 1], [2, 0, 1]]
    assert got[0][0].shape == (2, 2, 3, 3) and got[0][0].dtype == torch.uint8 and got[0][1].dtype == torch.int64


def test_a_subset_is_a_view_of_its_indices() -> None:
    split = split_of(9)
    view = Subset(split, torch.tensor([7, 2, 5]))
    assert len(view) == 3 and view.labels.tolist() == [1, 2, 2]
    ((images, labels),) = view.batches([torch.tensor([2, 0])])
    assert images[:, 0, 0, 0].tolist() == [5, 7] and labels.tolist() == [2, 1]
    taken = split.take(torch.tensor([7, 2, 5]))
    assert torch.equal(taken.images, next(view.batches([torch.arange(3)]))[0]) and torch.equal(taken.labels, view.labels)


def test_to_moves_a_split() -> None:
    split = split_of(4).to("meta")
    assert split.images.device.type == split.labels.device.type == "meta"
    moved = Subset(split_of(4), torch.tensor([1])).to("cpu")
    assert moved.labels.tolist() == [1]


def test_a_stratified_split_is_disjoint_complete_and_even() -> None:
    labels = torch.tensor([0] * 50 + [1] * 20 + [2] * 2)[torch.randperm(72, generator=torch.Generator().manual_seed(0))]
    rest, held_out = stratified_split(labels, 0.1, seed=0)
    assert sorted(rest.tolist() + held_out.tolist()) == list(range(72))
    assert rest.tolist() == sorted(rest.tolist()) and held_out.tolist() == sorted(held_out.tolist())
    assert torch.bincount(labels[held_out]).tolist() == [5, 2, 1]
    assert torch.equal(stratified_split(labels, 0.1, seed=0)[1], held_out)
    assert not torch.equal(stratified_split(labels, 0.1, seed=1)[1], held_out)
    assert torch.bincount(labels[stratified_split(labels, 0.99, seed=0)[0]]).tolist() == [1, 1, 1]


# --- digits ----------------------------------------------------------------------------------------------------------------


def test_digits() -> None:
    data = load(DataConfig("digits"))
    test = data.load_test()
    assert (data.classes, data.channels, data.resolution, data.flip) == (10, 1, 8, False)
    assert len(data.train) + len(data.val) + len(test) == 1797
    assert data.class_names == tuple("0123456789")
    assert torch.bincount(test.labels).min() >= 35
    images, _ = next(data.train.batches([torch.arange(len(data.train))]))
    assert int(images.min()) == 0 and int(images.max()) == 255


def test_digits_hold_every_image_once() -> None:
    from sklearn.datasets import load_digits

    data = load(DataConfig("digits"))
    splits = (data.train, data.val, data.load_test())
    images = torch.cat([next(s.batches([torch.arange(len(s))]))[0] for s in splits]).flatten(1)
    labels = torch.cat([s.labels for s in splits])
    got = sorted((*pixels, label) for pixels, label in zip(images.tolist(), labels.tolist(), strict=True))
    raw = load_digits()
    expected = sorted((*np.round(x * 255 / 16).astype(int).tolist(), int(y)) for x, y in zip(raw.data, raw.target, strict=True))
    assert got == expected


def test_loading_is_repeatable_and_the_test_split_ignores_the_split_seed() -> None:
    first, again = load(DataConfig("digits")), load(DataConfig("digits"))
    other = load(DataConfig("digits", split_seed=1))
    assert torch.equal(first.val.images, again.val.images) and first.fingerprint == again.fingerprint
    assert not torch.equal(first.val.images, other.val.images) and first.fingerprint == other.fingerprint
    assert torch.equal(first.load_test().images, other.load_test().images)


def test_resolution_resizes_every_split() -> None:
    data = load(DataConfig("digits", resolution=16))
    assert data.resolution == 16
    assert {s.images.shape[1:] for s in (data.train, data.val, data.load_test())} == {(1, 16, 16)}
    assert data.fingerprint == load(DataConfig("digits")).fingerprint


def test_a_data_set_can_be_sent_to_another_process() -> None:
    data = load(DataConfig("digits"))
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(copy.train.images, data.train.images)
    assert torch.equal(copy.load_test().images, data.load_test().images)


# --- npz -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [0, 1, 3])
def test_npz_gives_back_what_was_written(npz, channels: int) -> None:
    content = arrays(channels=channels)
    config = npz(**content, class_names=np.array(["a", "bee", "c"]))
    data = load(config)
    assert data.class_names == ("a", "bee", "c") and data.channels == max(channels, 1) and data.flip is None
    rest, held_out = stratified_split(torch.from_numpy(content["train_labels"]), 0.1, 0)
    splits = ((data.train, "train", rest), (data.val, "train", held_out), (data.load_test(), "test", torch.arange(3)))
    for split, part, indices in splits:
        images, labels = next(split.batches([torch.arange(len(split))]))
        expected = content[f"{part}_images"].reshape(-1, 6, 6, max(channels, 1))[indices]
        assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), expected)
        assert np.array_equal(labels.numpy(), content[f"{part}_labels"][indices])


def test_statistics_are_those_of_the_train_split(npz) -> None:
    data = load(npz())
    pixels = data.train.images.numpy() / 255
    np.testing.assert_allclose(data.mean, pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(data.std, pixels.std((0, 2, 3)), rtol=1e-12)


def test_statistics_span_chunks_and_a_constant_channel_is_not_scaled() -> None:
    images = torch.randint(256, (700, 2, 3, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[:, 1] = 51
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, images.double().mean((0, 2, 3)) / 255, rtol=1e-12)
    assert std[0] == pytest.approx(float(images[:, 0].double().std(correction=0)) / 255) and std[1] == 1.0


def test_the_fingerprint_sees_training_images_and_labels_alone(npz) -> None:
    base, content = load(npz()).fingerprint, arrays()
    images, labels = content["train_images"].copy(), content["train_labels"].copy()
    images[0, 0, 0, 0] ^= 1
    labels[[0, np.flatnonzero(labels != labels[0])[0]]] = labels[[np.flatnonzero(labels != labels[0])[0], 0]]
    assert load(npz(test_images=content["test_images"] // 2)).fingerprint == base
    assert len({base, load(npz(train_images=images)).fingerprint, load(npz(train_labels=labels)).fingerprint}) == 3


def test_test_images_are_not_read_before_they_are_asked_for(npz, monkeypatch: pytest.MonkeyPatch) -> None:
    config, read = npz(), []
    original = nas.data.npz._array
    monkeypatch.setattr(nas.data.npz, "_array", lambda archive, name: read.append(name) or original(archive, name))
    data = load(config)
    assert read == ["train_images", "train_labels", "test_labels"]
    data.load_test()
    assert read[3:] == ["test_images", "test_labels"]


IMAGES = arrays()["train_images"]
LABELS = arrays()["train_labels"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_images": None, "train_labels": None}, "train_labels, test_images not found among the arrays ['test_labels', "),
        ({"train_images": IMAGES / 255}, "train_images is float64; expected uint8 in 0..255, so convert it"),
        ({"test_images": IMAGES[:3].astype(np.int32)}, "test_images is int32; expected uint8 in 0..255, so convert it"),
        ({"train_images": IMAGES[0, 0]}, "train_images has shape (6, 3); reshape it to (N, H, W, C) or (N, H, W)"),
        ({"train_images": IMAGES[:, :5]}, "train_images has shape (30, 5, 6, 3); expected square (N, H, W, C)"),
        ({"train_images": IMAGES.transpose(0, 3, 1, 2)}, "train_images has shape (30, 3, 6, 6); expected square (N, H, W, C)"),
        ({"train_images": IMAGES[:0], "train_labels": LABELS[:0]}, "train_images has shape (0, 6, 6, 3) and so no pixel"),
        ({"train_labels": LABELS[:-1]}, "there are 30 train_images and 29 train_labels; give one label an image"),
        ({"test_labels": LABELS}, "there are 3 test_images and 30 test_labels; give one label an image"),
        ({"train_labels": LABELS.astype(float)}, "train_labels is float64; expected integers 0..K-1"),
        ({"train_labels": np.eye(3, dtype=int)[LABELS]}, "train_labels has shape (30, 3); reshape it to (N,)"),
        ({"train_labels": LABELS - 1}, "a training label is -1; number the classes 0..K-1"),
        ({"train_labels": LABELS * 2}, "training labels go to 4, but no image has 1; number the classes 0..K-1"),
        ({"train_labels": LABELS + 1}, "training labels go to 3, but no image has 0; number the classes 0..K-1"),
        ({"train_labels": LABELS * 0}, "all training images are of one class; give at least two classes"),
        ({"train_labels": np.r_[[2], LABELS[1:] % 2]}, "class '2' has 1 training image; give at least 2"),
        (
            {"test_images": arrays(channels=1)["test_images"]},
            "train_images have 3 channels of 6x6 pixels, test_images 1 channels",
        ),
        ({"test_images": arrays(side=8)["test_images"]}, "test_images 3 channels of 8x8 pixels; bring them to one size"),
        ({"class_names": np.array(["a", "b"])}, "class_names has 2 names for 3 classes; name each class once"),
        ({"class_names": np.array(["a", None, "b"], dtype=object)}, "without Python objects"),
    ],
)
def test_unfit_arrays_are_refused(npz, changes: dict, message: str) -> None:
    config = npz(**changes)
    text = refused(config)
    assert message in text and "data.npz" in text


@pytest.mark.parametrize(("labels", "wrong"), [([0, 1, 3], 3), ([0, -1, 2], -1)])
def test_unknown_test_labels_are_refused_before_anything_is_trained(npz, labels: list[int], wrong: int) -> None:
    assert f"a test label is {wrong}; training has the classes 0..2: use the same" in refused(npz(test_labels=np.array(labels)))


def test_a_missing_or_unreadable_npz_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    config = DataConfig(f"npz:{path}")
    assert refused(config) == f"no file '{path}'; give the path of a file that numpy.savez wrote"
    path.write_bytes(b"not a zip file")
    assert f"cannot read '{path}' as .npz: File is not a zip file; write it with numpy.savez" in refused(config)
    np.savez(path, **arrays())
    content = bytearray(path.read_bytes())
    content[2000] ^= 255
    path.write_bytes(content)
    assert f"cannot read '{path}' as .npz: Bad CRC-32" in refused(config)
    assert "names no path; write it behind the colon, like npz:path/to/data" in refused(DataConfig("npz:"))


@pytest.mark.skipif(not SHARED_CIFAR.exists(), reason="../shared/data/cifar10.npz is not there")
def test_cifar10() -> None:
    data = load(DataConfig(f"npz:{SHARED_CIFAR}"))
    assert (len(data.train), len(data.val), data.classes, data.channels, data.resolution) == (45000, 5000, 10, 3, 32)
    assert torch.bincount(data.val.labels).tolist() == [500] * 10
    np.testing.assert_allclose(data.mean, (0.4914, 0.48216, 0.44653), atol=1e-3)
    np.testing.assert_allclose(data.std, (0.24703, 0.24349, 0.26159), atol=1e-3)
    assert data.class_names[0] == "airplane" and len(data.load_test()) == 10000


def test_classes_with_one_image_are_drawn_regardless_of_class(npz) -> None:
    labels = np.arange(30)
    config = npz(train_labels=labels, class_names=None)
    assert "class '0' has 1 training image; give at least 2" in refused(config)
    data = load(replace(config, least=1))
    assert (len(data.train), len(data.val), data.classes) == (27, 3, 30)
    assert sorted([*data.train.labels.tolist(), *data.val.labels.tolist()]) == list(range(30))
    assert data.notes == ("30 classes have one image: those for validation are drawn regardless of class, and may lack some",)
