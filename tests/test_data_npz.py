"""Hostile and broken npz files: each is refused in one line before its arrays are read."""

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from nas.data import memory, npz
from nas.data.config import DataConfig
from nas.data.load import load
from nas.errors import InvalidData

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), dtype=np.uint8)
LABELS = np.arange(12) % 3
ARRAYS = {"train_images": IMAGES, "train_labels": LABELS, "test_images": IMAGES[:3], "test_labels": LABELS[:3]}


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=True)
    return file.getvalue()


def claiming(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """An npy file with a header of its own."""
    text = header.encode("latin1")
    return b"\x93NUMPY" + version + struct.pack("<H" if version[0] == 1 else "<I", len(text)) + text + data


def described(shape: str, dtype: str = "'|u1'") -> str:
    return f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}\n"


def write(path: Path, compression: int = zipfile.ZIP_DEFLATED, **members: bytes) -> DataConfig:
    content = {**{name: npy(array) for name, array in ARRAYS.items()}, **members}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(f"{name}.npy", data)
    return DataConfig(f"npz:{path}")


def refused(config: DataConfig) -> str:
    with pytest.raises(InvalidData) as caught:
        load(config)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 1000
    return text


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_all_compressions_are_read(tmp_path: Path, compression: int) -> None:
    names = npy(np.array([b"cat", b"dog", b"\xff"]))
    data = load(write(tmp_path / "x.npz", compression, class_names=names))
    assert len(data.train) + len(data.val) == 12 and data.class_names == ("cat", "dog", "\\xff")


@pytest.mark.parametrize(
    ("member", "content", "message"),
    [
        ("train_images", claiming(described("(1000000000000, 4, 4, 3)")), "train_images claims the shape (1000000000000, 4, 4"),
        ("test_images", claiming(described("(3, 4, 4, 3)"), b"x" * 100), "(3, 4, 4, 3) of uint8, 144 bytes, and 100 are"),
        ("train_labels", claiming(described("(12,)", "'<i8'"), b"x" * 97), "12"),
        ("train_images", claiming(described("(-1, 4, 4, 3)")), "claims the shape (-1, 4, 4, 3)"),
        ("train_images", claiming(described("(1" + "0" * 4200 + ",)")), "cannot read"),
        ("train_labels", claiming(described("(12,)", "'|O'"), b"x" * 96), "train_labels holds Python objects"),
        ("class_names", npy(np.array(["a", None, "b"], dtype=object)), "class_names holds Python objects"),
        ("train_labels", b"no array at all", "cannot read"),
        ("train_labels", b"", "cannot read"),
        ("train_labels", b"\x93NUMPY\x09\x00", "cannot read"),
        ("train_labels", claiming("(" * 5000), "cannot read"),
        ("train_labels", claiming("{'descr': '<i8'"), "cannot read"),
        ("train_labels", claiming("[1, 2]\n"), "cannot read"),
        ("train_labels", claiming("\xff\xfe{}", version=b"\x03\x00"), "cannot read"),
        ("train_labels", claiming(described("(12,)", "'<q99999999999'")), "cannot read"),
        ("train_labels", claiming(described("(12,)", "[('a', '<i8'), ('a', '<i8')]")), "cannot read"),
        ("train_labels", claiming(" " * 9 + "\n" + described("12")), "cannot read"),
        ("train_labels", npy(LABELS.astype("timedelta64[s]")), "train_labels is timedelta64[s]; expected integers"),
        ("train_labels", npy(LABELS.astype("<M8[D]")), "train_labels is datetime64[D]; expected integers"),
        ("train_labels", npy(LABELS.astype(bool)), "train_labels is bool; expected integers"),
        ("train_labels", npy(np.array(3)), "train_labels has shape (); reshape it to (N,)"),
        ("train_labels", npy(LABELS.astype(np.uint64) + np.uint64(2**63)), "a training label is -"),
        ("train_images", npy(np.array(3, dtype=np.uint8)), "train_images has shape ()"),
        ("train_images", npy(IMAGES.view([("r", "u1"), ("g", "u1"), ("b", "u1")])), "expected uint8"),
        ("class_names", npy(np.array("abc")), "class_names has the shape () of <U3; give a list of texts (K,)"),
        ("class_names", npy(np.array([["a", "b", "c"]])), "class_names has the shape (1, 3) of <U1; give a list"),
        ("class_names", npy(np.arange(3)), "class_names has the shape (3,) of int64; give a list of texts"),
        ("class_names", claiming(described("(300000000,)", "'<U0'")), "class_names has 300000000 names of up to 0 bytes for"),
        ("class_names", npy(np.array(["a", "b", "c" * 5000])), "in at most 1000 characters"),
        ("class_names", npy(np.array(["a", "b", "a"])), "class_names has 'a' twice; name each class once"),
    ],
)  # fmt: skip
def test_what_is_claimed_wrongly_is_refused(tmp_path: Path, member: str, content: bytes, message: str) -> None:
    assert message in refused(write(tmp_path / "x.npz", **{member: content}))


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = np.zeros((2000, 64, 64), dtype=np.uint8)
    labels = np.arange(2000) % 2
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, train_images=bomb, train_labels=labels, test_images=bomb[:2], test_labels=labels[:2])
    assert path.stat().st_size < 30_000
    config = DataConfig(f"npz:{path}")
    assert len(load(config).val) == 200
    monkeypatch.setattr(memory, "available", lambda: 2e7)
    monkeypatch.setattr(npz, "_read", None)
    expected = "train_images of the shape (2000, 64, 64) needs 24.62 MB of memory, and 20 MB are free; give fewer or smaller"
    assert expected in refused(config)
    monkeypatch.setattr(memory, "available", lambda: 1e8)
    assert "needs" in refused(DataConfig(config.name, resolution=512))


def test_what_is_there_is_known() -> None:
    assert 1e6 < memory.available() < 1e15


@pytest.mark.parametrize("kind", ["encrypted", "method", "version", "lzma", "cut", "names"])
def test_broken_archives_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.npz"
    config = write(path, zipfile.ZIP_LZMA if kind == "lzma" else zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    local, central = data.index(b"PK\x03\x04"), data.index(b"PK\x01\x02")
    if kind == "encrypted":
        data[local + 6] |= 1
        data[central + 8] |= 1
    elif kind == "method":
        data[local + 8] = data[central + 10] = 97
    elif kind == "version":
        data[central + 6] = 250
    elif kind == "lzma":
        data[local + 60 : local + 160] = bytes(100)
    elif kind == "cut":
        data = data[: len(data) // 2]
    path.write_bytes(data)
    if kind == "names":
        with zipfile.ZipFile(path, "w") as archive:
            for number in range(2000):
                archive.writestr(f"array{number:04}" + "x" * 300, b"")
    text = refused(config)
    assert text.startswith((f"cannot read {str(path)!r} as .npz: ", f"{path}: train_images, "))


def test_mutations_of_a_file_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    config = write(path, class_names=npy(np.array(["a", "b", "c"])))
    whole, rng = path.read_bytes(), np.random.default_rng(1)
    for number in range(400):
        data = bytearray(whole if number % 4 else whole[: rng.integers(1, len(whole))])
        for place in rng.integers(0, len(data), 1 + rng.integers(4)):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        try:
            load(config).load_test()
        except InvalidData as error:
            assert "\n" not in str(error) and len(str(error)) < 1000
