"""Fashion-MNIST from idx files, and what is downloaded; nothing here touches the network."""

import gzip
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision.datasets

from nas.data import fashion_mnist
from nas.data.config import DataConfig
from nas.data.fashion_mnist import read_idx
from nas.data.load import load
from nas.errors import InvalidData


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, dtype=">u4").tobytes() + array.tobytes()


def write_fashion(folder: Path, suffix: str = "") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "train-images-idx3-ubyte": rng.integers(0, 256, (40, 28, 28), dtype=np.uint8),
        "train-labels-idx1-ubyte": np.repeat(np.arange(10, dtype=np.uint8), 4),
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (10, 28, 28), dtype=np.uint8),
        "t10k-labels-idx1-ubyte": np.arange(10, dtype=np.uint8),
    }
    for name, array in content.items():
        (folder / (name + suffix)).write_bytes(gzip.compress(idx(array)) if suffix else idx(array))
    return content


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(self: object) -> None:
        raise URLError("Name or service\nnot known")

    for kind in (torchvision.datasets.CIFAR10, torchvision.datasets.FashionMNIST):
        monkeypatch.setattr(kind, "download", unreachable)
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", Path("/nonexistent"))


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("folder", [".", "FashionMNIST/raw"])
def test_fashion_mnist_is_read_from_its_idx_files(tmp_path: Path, suffix: str, folder: str) -> None:
    content = write_fashion(tmp_path / folder, suffix)
    data = load(DataConfig("fashion-mnist", tmp_path))
    assert (data.classes, data.channels, data.resolution, data.flip) == (10, 1, 28, True)
    assert (len(data.train), len(data.val)) == (30, 10) and data.class_names[9] == "Ankle boot"
    test, labels = next(data.load_test().batches([torch.arange(10)]))
    assert np.array_equal(test[:, 0].numpy(), content["t10k-images-idx3-ubyte"])
    assert labels.tolist() == list(range(10))


def test_fashion_mnist_is_found_where_debian_puts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "debian")
    monkeypatch.setenv("HOME", str(tmp_path))
    write_fashion(tmp_path / "debian", ".gz")
    assert len(load(DataConfig("fashion-mnist")).train) == 30


def test_fashion_mnist_is_downloaded_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(self: torchvision.datasets.FashionMNIST) -> None:
        write_fashion(Path(self.raw_folder))

    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "download", download)
    assert len(load(DataConfig("fashion-mnist", tmp_path)).train) == 30


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x1f\x8b", "is no idx file of unsigned bytes; fetch it again"),
        (bytes((0, 0, 13, 1)) + bytes(8), "is no idx file of unsigned bytes; fetch it again"),
        (idx(np.zeros(7, dtype=np.uint8))[:-2], "holds 5 bytes of 7; fetch it again"),
        (b"", "is no idx file of unsigned bytes; fetch it again"),
    ],
)
def test_broken_idx_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(InvalidData) as caught:
        read_idx(tmp_path / "x")
    assert str(caught.value) == f"'{tmp_path / 'x'}' {message}"


@pytest.mark.parametrize("damage", [slice(0, 40), slice(3, None)])
def test_broken_gzip_files_are_refused(tmp_path: Path, damage: slice) -> None:
    (tmp_path / "x.gz").write_bytes(gzip.compress(idx(np.arange(100, dtype=np.uint8)))[damage])
    with pytest.raises(InvalidData, match="cannot read .*x.gz.*; fetch it again"):
        read_idx(tmp_path / "x.gz")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("cifar10", "give the folder with its files as --data-dir, or another copy as --data npz:FILE"),
        ("cifar100", "give the folder with its files as --data-dir, or another copy as --data npz:FILE"),
        ("fashion-mnist", "install Debian's dataset-fashion-mnist, or give the folder of its files as --data-dir"),
    ],
)
def test_without_a_network_the_message_tells_what_to_do(tmp_path: Path, name: str, remedy: str) -> None:
    with pytest.raises(InvalidData) as caught:
        load(DataConfig(name, tmp_path))
    reason = "<urlopen error Name or service not known>"
    assert str(caught.value) == f"cannot download {name} to '{tmp_path}': {reason}; {remedy}"


@pytest.mark.parametrize(("name", "kind", "classes"), [("cifar10", "CIFAR10", 10), ("cifar100", "CIFAR100", 100)])
def test_cifar_is_taken_from_torchvision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str, classes: int
) -> None:
    def fake(root: str, train: bool, download: bool) -> SimpleNamespace:
        assert root == str(tmp_path) and download
        targets = [*range(classes)] * (3 if train else 1)
        names = [f"class {number}" for number in range(classes)]
        return SimpleNamespace(data=np.full((len(targets), 32, 32, 3), 7 + train, np.uint8), targets=targets, classes=names)

    monkeypatch.setattr(torchvision.datasets, kind, fake)
    data = load(DataConfig(name, tmp_path))
    assert (data.classes, data.channels, data.resolution, data.flip) == (classes, 3, 32, True)
    assert (len(data.train), len(data.val), data.class_names[1]) == (2 * classes, classes, "class 1")
    (test, labels), *_ = data.load_test().batches([torch.arange(classes)])
    assert int(test.min()) == int(test.max()) == 7 and labels.tolist() == [*range(classes)]
