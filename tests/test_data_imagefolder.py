import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from nas.data.config import DataConfig
from nas.data.dataset import Dataset, epoch_batches
from nas.data.decoding import decode
from nas.data.listing import list_classes
from nas.data.load import load
from nas.errors import InvalidData

SIDE = 10


def write_image(path: Path, number: int, mode: str = "RGB") -> None:
    rng = np.random.default_rng(number)
    size = (SIDE + number % 3, SIDE + number % 5)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).convert(mode).save(path)


def write_folder(root: Path, test: str = "test", classes: tuple[str, ...] = ("cat", "dog", "eel")) -> None:
    for c, name in enumerate(classes):
        for number in range(10):
            write_image(root / "train" / name / f"{number}.png", 100 * c + number, "L" if number == 3 else "RGB")
        write_image(root / test / name / "0.png", 1000 + c)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path)
    return tmp_path


def loaded(folder: Path, workers: int = 0) -> Dataset:
    return load(DataConfig(f"imagefolder:{folder}", resolution=SIDE, workers=workers))


def refused(folder: Path) -> str:
    with pytest.raises(InvalidData) as caught:
        loaded(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def direct(folder: Path, part: str) -> dict[bytes, str]:
    """Pixels -> class of all images of a part, as torchvision's own transforms see them."""
    transform = Compose([Resize(SIDE, InterpolationMode.BILINEAR), CenterCrop(SIDE)])
    paths = (folder / part).glob("*/*.png")
    return {np.asarray(transform(Image.open(p).convert("RGB"))).tobytes(): p.parent.name for p in paths}


def test_images_equal_those_decoded_directly(folder: Path) -> None:
    data = loaded(folder)
    assert (data.classes, data.channels, data.resolution, data.flip) == (3, 3, SIDE, None)
    assert (len(data.train), len(data.val)) == (27, 3) and sorted(data.val.labels.tolist()) == [0, 1, 2]
    got = {}
    for split in (data.train, data.val):
        ((images, labels),) = split.batches([torch.arange(len(split))])
        assert torch.equal(labels, split.labels) and images.dtype == torch.uint8
        got.update({x.permute(1, 2, 0).numpy().tobytes(): data.class_names[y] for x, y in zip(images, labels, strict=True)})
    assert len(got) == 30 and got == direct(folder, "train")
    ((images, labels),) = data.load_test().batches([torch.arange(3)])
    pixels = [x.permute(1, 2, 0).numpy().tobytes() for x in images]
    assert dict(zip(pixels, [data.class_names[y] for y in labels], strict=True)) == direct(folder, "test")


@pytest.mark.parametrize("size", [(30, 20), (20, 31), (17, 17), (5, 9), (11, 10), (64, 3)])
@pytest.mark.parametrize("resolution", [10, 15])
def test_decoding_is_resize_and_centre_crop(tmp_path: Path, size: tuple[int, int], resolution: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    expected = CenterCrop(resolution)(Resize(resolution, InterpolationMode.BILINEAR)(Image.fromarray(pixels)))
    assert np.array_equal(decode(str(tmp_path / "x.png"), resolution), np.asarray(expected))


def test_an_image_that_fits_keeps_its_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    assert np.array_equal(decode(str(tmp_path / "x.png"), 12), pixels)


def test_workers_yield_what_the_main_process_yields_in_the_same_order(folder: Path) -> None:
    batches = epoch_batches(27, 5, seed=0, epoch=0)
    state = torch.get_rng_state()
    alone, together = (list(loaded(folder, workers).train.batches(batches)) for workers in (0, 2))
    assert len(alone) == len(together) == 5
    for (images, labels), (other_images, other_labels) in zip(alone, together, strict=True):
        assert torch.equal(images, other_images) and torch.equal(labels, other_labels)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_default_resolution_is_224(folder: Path) -> None:
    data = load(DataConfig(f"imagefolder:{folder}"))
    assert data.resolution == 224
    ((images, _),) = data.val.batches([torch.arange(1)])
    assert images.shape == (1, 3, 224, 224)


def test_test_comes_before_val_and_val_serves_without_it(tmp_path: Path) -> None:
    write_folder(tmp_path, test="val")
    assert set(loaded(tmp_path).load_test().paths) == {str(p) for p in tmp_path.glob("val/*/*")}
    write_folder(tmp_path, test="test")
    assert set(loaded(tmp_path).load_test().paths) == {str(p) for p in tmp_path.glob("test/*/*")}


def test_the_fingerprint_sees_names_and_sizes_of_training_files(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    base = loaded(folder).fingerprint
    copy = tmp_path_factory.mktemp("copy")
    write_folder(copy)
    assert loaded(copy).fingerprint == base
    write_image(copy / "test" / "cat" / "1.png", 7)
    assert loaded(copy).fingerprint == base
    write_image(copy / "train" / "cat" / "new.png", 7)
    assert loaded(copy).fingerprint != base


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_named(folder: Path, workers: int) -> None:
    broken = folder / "train" / "dog" / "4.png"
    broken.write_bytes(broken.read_bytes()[:60])
    train = loaded(folder, workers).train
    with pytest.raises(InvalidData) as caught:
        list(train.batches([batch for batch in torch.arange(27).split(9)]))
    assert str(caught.value).startswith(f"cannot decode the image '{broken}': ") and "\n" not in str(caught.value)
    assert str(caught.value).endswith("; replace it or remove it")


def test_unfit_folders_are_refused(folder: Path) -> None:
    layout = "train/CLASS/*.jpg and test/CLASS/*.jpg, or CLASS/*.jpg alone"
    assert refused(folder / "no") == f"no folder '{folder / 'no'}'; give one that holds {layout}"
    (folder / "train" / "fox").mkdir()
    assert refused(folder) == f"{folder / 'train'}: no images in fox; add some or remove the folder"
    write_image(folder / "train" / "fox" / "0.png", 5)
    assert (
        refused(folder)
        == f"{folder}: class 'fox' has 1 training image; give at least 2, one to train on and one to validate on"
    )
    write_image(folder / "train" / "fox" / "1.png", 6)
    assert "1 of 4 classes have no test image (fox)" in loaded(folder).notes[0]
    (folder / "test" / "fox").mkdir()
    assert refused(folder) == f"{folder / 'test'}: no images in fox; add some or remove the folder"
    write_image(folder / "test" / "fox" / "0.png", 6)
    write_image(folder / "test" / "gnu" / "0.png", 6)
    assert refused(folder) == (
        f"{folder}: test has the class folders gnu, and train does not; it may have fewer classes, but no others"
    )


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, classes=("cat",))
    assert refused(tmp_path) == f"{tmp_path}: all training images are of one class; give at least two classes"
    expected = f"{tmp_path / 'train'}: no class folders found; put the images in {tmp_path / 'train'}/CLASS/"
    (tmp_path / "train").rename(tmp_path / "elsewhere")
    assert "has test and no folder train; put the images to train on in" in refused(tmp_path)
    (tmp_path / "train").mkdir()
    assert refused(tmp_path) == expected
    with pytest.raises(InvalidData, match="names no path; write it behind the colon, like imagefolder:path/to/data"):
        load(DataConfig("imagefolder:"))


# --- what lies in folders --------------------------------------------------------------------------------------------------


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
    assert note.startswith(f"{folder}: 15 files are left out: 5 hidden, 3 .heic, 2 no regular file")
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
    assert data.notes == (f"{folder}: 2 files are left out: 2 link to a folder that is listed already",)


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


def named(split) -> set[str]:
    """The paths of a view of files."""
    return {split.base.paths[i] for i in split.indices.tolist()}


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


# --- CSV -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path: Path):
    """Writes photos/0.png ... and a list of them."""
    for number in range(30):
        write_image(tmp_path / "photos" / f"{number}.png", number)

    def write(text: str) -> DataConfig:
        (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
        return DataConfig(f"csv:{tmp_path / 'labels.csv'}", resolution=SIDE, workers=0)

    return write


def rows(line: str = "photos/{i}.png,{label}", count: int = 30) -> str:
    return "\n".join(line.format(i=i, label="xyz"[i % 3]) for i in range(count)) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        "file,label\n" + rows(),
        rows(),
        "\ufefffile_name;Label\r\n" + rows("photos/{i}.png;{label}").replace("\n", "\r\n"),
        "label\timage\n" + rows("{label}\tphotos/{i}.png"),
        "id,path,note,class\n" + rows('{i},"photos/{i}.png","a, b",{label}'),
    ],
)
def test_a_table_of_files_and_labels(table, text: str) -> None:
    data = load(table(text))
    assert data.class_names == ("x", "y", "z") and data.channels == 3 and data.flip is None
    parts = [named(split) for split in (data.train, data.val, data.load_test())]
    assert [len(part) for part in parts] == [21, 3, 6] and len(set().union(*parts)) == 30
    for split in (data.train, data.val, data.load_test()):
        numbers = [int(Path(split.base.paths[i]).stem) for i in split.indices.tolist()]
        assert split.labels.tolist() == [number % 3 for number in numbers]
        images, _ = next(split.batches([torch.arange(1)]))
        assert np.array_equal(images[0].permute(1, 2, 0), decode(split.base.paths[int(split.indices[0])], SIDE))


def test_a_table_may_name_the_parts(table) -> None:
    lines = [f"photos/{i}.png,{i % 3},{('train', 'train', 'validation', 'test')[i // 8]}" for i in range(30)]
    data = load(table("file,label,split\n" + "\n".join(lines)))
    assert (len(data.train), len(data.val), len(data.load_test())) == (16, 8, 6) and data.class_names == ("0", "1", "2")
    before = data.fingerprint
    assert load(table("file,label,split\n" + "\n".join(lines))).fingerprint == before
    lines[0] = lines[0].replace(",0,", ",1,")
    assert load(table("file,label,split\n" + "\n".join(lines))).fingerprint != before


def test_classes_of_a_table_that_are_numbers_are_sorted_as_such(table) -> None:
    text = "\n".join(f"photos/{i}.png,{(2, 10, 100)[i % 3]}" for i in range(30))
    assert load(table(text)).class_names == ("2", "10", "100")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no images; write one row for each, with file and label"),
        ("a,b\nc,d\n", "has the columns a, b; expected file and label in a first line"),
        ("file,label\nphotos/0.png\n", "line 2 has 1 columns ('photos/0.png'); expected file and label"),
        ("file,label\nphotos/0.png,\n", "line 2 has no label; complete it or remove it"),
        ("file,label\n" + rows() + "gone.png,x\n", "1 of 31 rows name no file ('{folder}/gone.png'); paths are relative to"),
        ("file,label\n" + rows() + "photos\0.png,x\n", "1 of 31 rows name no file"),
        ("file,label\n" + rows() + "pipe.png,x\n", "1 of 31 rows name no file ('{folder}/pipe.png')"),
        ("file,label,split\nphotos/0.png,x,holdout\n", "line 2 has the split 'holdout'; expected train, val or test"),
        ("file,label,split\n" + rows("photos/{i}.png,{label},test"), "no row is for training; write train in the column"),
        (
            "file,label,split\n" + rows("photos/{i}.png,{label},train", 9) + "photos/9.png,w,test\n",
            "no training row has the class 'w'",
        ),
    ],
)
def test_unfit_tables_are_refused(table, tmp_path: Path, text: str, message: str) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InvalidData) as caught:
        load(table(text))
    assert message.format(folder=tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="no file .*no.csv'; give a CSV file with the columns file and label"):
        load(DataConfig(f"csv:{tmp_path / 'no.csv'}"))
    (tmp_path / "x.csv").write_bytes(b"file,label\n\xff\xfe,x\n")
    with pytest.raises(InvalidData, match="cannot read .* as CSV .*; write it in UTF-8"):
        load(DataConfig(f"csv:{tmp_path / 'x.csv'}"))
    with pytest.raises(InvalidData, match=r"has no class folders \(is --data csv:.*/x.csv meant\?\)"):
        load(DataConfig(f"imagefolder:{tmp_path}"))
