from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import SIDE, loaded, refused, write_folder, write_image
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from nas.data.config import DataConfig
from nas.data.dataset import epoch_batches
from nas.data.decoding import decode
from nas.data.load import load
from nas.errors import InvalidData


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path)
    return tmp_path


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
