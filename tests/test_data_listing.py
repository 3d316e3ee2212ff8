"""What lies in image folders: layouts, names, and what is left out."""

import os
import socket
from pathlib import Path

import pytest
import torch
from image_files import SIDE, loaded, named, refused, write_folder, write_image
from PIL import Image

from nas.data.config import DataConfig
from nas.data.listing import list_classes
from nas.data.load import load


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path)
    return tmp_path


def test_what_is_left_out_is_counted_and_said(folder: Path) -> None:
    cat = folder / "train" / "cat"
    for name in (".DS_Store", "._0.png", "Thumbs.db", "a.heic", "b.heic", "notes.txt", "none", "c.HEIC"):
        (cat / name).write_bytes(b"x")
    write_image(folder / "train" / ".ipynb_checkpoints" / "0.png", 1)
    write_image(cat / ".ipynb_checkpoints" / "0.png", 1)
    write_image(folder / "test" / "__MACOSX" / "0.png", 1)
    (folder / "train" / "README.md").write_text("x")
    (cat / "gone.png").symlink_to(cat / "nowhere.png")
    os.mkfifo(cat / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(cat / "socket.png"))
    data = loaded(folder)
    assert data.class_names == ("cat", "dog", "eel") and (len(data.train), len(data.val)) == (27, 3)
    assert data.fingerprint == whole_of_a_copy(folder)
    (note,) = data.notes
    assert note.startswith("15 files are left out: 5 hidden, 3 .heic, 2 no regular file")
    assert note.endswith(" of other kinds") and "train and test" not in note


def whole_of_a_copy(folder: Path) -> str:
    copy = folder / "copy"
    write_folder(copy)
    return loaded(copy).fingerprint


def test_images_of_other_suffixes_are_read(folder: Path) -> None:
    for name, kind in (("a.jfif", "JPEG"), ("b.GIF", None), ("c.avif", None), ("d.JPEG", None)):
        Image.new("RGB", (SIDE, SIDE)).save(folder / "train" / "cat" / name, kind)
    data = loaded(folder)
    assert len(data.train) + len(data.val) == 34 and data.notes == ()


def test_folders_in_folders_and_links_in_circles(folder: Path) -> None:
    cat = folder / "train" / "cat"
    write_image(cat / "more" / "deep" / "0.png", 50)
    (cat / "more" / "up").symlink_to(cat)
    (cat / "more" / "deep" / "self").symlink_to(cat / "more" / "deep")
    other = folder / "elsewhere"
    write_image(other / "0.png", 51)
    (cat / "linked").symlink_to(other)
    (cat / "link.png").symlink_to(other / "0.png")
    data = loaded(folder)
    assert len(data.train) + len(data.val) == 33
    assert data.notes == ("2 files are left out: 2 link to a folder that is listed already",)


def test_names_of_any_bytes(folder: Path) -> None:
    strange = os.fsdecode(b"c\xff")
    (folder / "train" / "cat").rename(folder / "train" / strange)
    (folder / "test" / "cat").rename(folder / "test" / strange)
    write_image(folder / "train" / "dog" / os.fsdecode(b"\xfe.png"), 3)
    data = loaded(folder)
    assert data.class_names == ("c\\xff", "dog", "eel") and len(data.train) + len(data.val) == 31
    data.class_names[0].encode()


def test_test_images_are_opened_before_anything_is_trained(folder: Path) -> None:
    broken = folder / "test" / "dog" / "0.png"
    broken.write_bytes(b"no image")
    assert (
        refused(folder) == f"cannot read the image {str(broken)!r} (cannot identify image file); convert, replace or remove it"
    )
    Image.new("F", (SIDE, SIDE)).save(broken.with_suffix(".tif"))
    broken.unlink()
    assert "(its pixels are floating point; 8 and 16 bits are understood)" in refused(folder)


@pytest.mark.parametrize("name", ["validation", "val", "Valid", "dev"])
def test_other_names_of_folders(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path, test=name)
    assert set(loaded(tmp_path).load_test().paths) == {str(p) for p in tmp_path.glob(f"{name}/*/*")}


def test_three_folders_are_the_three_splits(folder: Path) -> None:
    write_folder(folder, test="validation")
    data = loaded(folder)
    assert (len(data.train), len(data.val), len(data.load_test())) == (30, 3, 3)
    assert set(data.val.paths) == {str(p) for p in folder.glob("validation/*/*")}
    assert data.notes == ("validation images are the 3 of validation",)
    before = data.fingerprint
    write_image(folder / "validation" / "cat" / "1.png", 7)
    assert loaded(folder).fingerprint != before


@pytest.mark.parametrize("inner", ["", "train"])
def test_classes_alone_are_split_here(tmp_path: Path, inner: str) -> None:
    write_folder(tmp_path / "whole")
    (tmp_path / "whole" / "train").rename(tmp_path / "flat")
    root = tmp_path / "flat"
    if inner:
        (tmp_path / "outer").mkdir()
        root = (tmp_path / "flat").rename(tmp_path / "outer" / inner).parent
    data, again = loaded(root), loaded(root)
    parts = [named(split) for split in (data.train, data.val, data.load_test())]
    assert [len(part) for part in parts] == [21, 3, 6] and len(set().union(*parts)) == 30
    assert torch.bincount(data.load_test().labels).tolist() == [2, 2, 2]
    assert [named(split) for split in (again.train, again.val, again.load_test())] == parts
    assert data.notes == ("6 of 30 images, 20% of each class by a fixed draw, are kept for testing",)
    other = load(DataConfig(f"imagefolder:{root}", resolution=SIDE, split_seed=1))
    assert named(other.load_test()) == parts[2] and named(other.val) != parts[1]
    for number in range(3, 11):
        path = next(root.glob("**/eel")) / f"{number - 1}.png"
        path.unlink()
    assert "class 'eel' has 2 of 22 images, too few to train, validate and test on; give at least 3 of each" in refused(root)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("bus", "car", "train"):
        for number in range(5):
            write_image(tmp_path / name / f"{number}.png", number)
    assert loaded(tmp_path).class_names == ("bus", "car", "train")


def test_one_image_a_class_is_enough_where_nothing_is_trained(tmp_path: Path) -> None:
    for number in range(20):
        write_image(tmp_path / "train" / f"{number:02}" / "0.png", number)
        if number < 5:
            write_image(tmp_path / "test" / f"{number:02}" / "0.png", 100 + number)
    assert "class '00' has 1 training image; give at least 2" in refused(tmp_path)
    data = load(DataConfig(f"imagefolder:{tmp_path}", resolution=SIDE, least=1))
    assert (len(data.train), len(data.val), data.classes, len(data.load_test())) == (18, 2, 20, 5)
    assert not named(data.train) & named(data.val)
    assert data.notes == (
        "15 of 20 classes have no test image (05, 06, 07, ...): nothing is known of them there",
        "20 classes have one image: those for validation are drawn regardless of class, and may lack some",
    )


def test_many_files_are_listed_quickly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By counting work: one look at a folder, one at the size of each file, no look at what a name tells already."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(200):
            (tmp_path / name / f"{number}.png").write_bytes(b"x")
    seen, stat = [], os.stat
    monkeypatch.setattr(os, "stat", lambda path, **options: seen.append(path) or stat(path, **options))
    listing = list_classes(tmp_path)
    assert len(listing.paths) == 400 and listing.counts == (200, 200) and len(seen) == 2
