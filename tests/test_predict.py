"""The script that is delivered beside a network: images as they were in training, and the accuracy that the card tells."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import torch.ao.quantization.fx._decomposed  # noqa: F401 - its operators, before the exporter's are read once for all tests
from networks import images as noise
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from compress import predict
from compress.deployment import preprocessing_of
from compress.export import write_files
from nas.cli.main import app
from nas.data import decoding, listing
from nas.data.augment import normalize, resize
from nas.seeding import numpy_rng

DATA = {"class_names": ["a cat", "a\ndog"], "channels": 3, "resolution": 12, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}
HOW = preprocessing_of(DATA, 12)
NETWORK = """
from torch import nn

def net():
    layers = [nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1, bias=False)]
    return nn.Sequential(*layers, nn.BatchNorm2d(12), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 3))
"""
QUICK = ("--resolution", "20", "--device", "cpu", "--threads", "1")
TRAINED = ("--epochs", "1", "--trials", "2", "--finetune-epochs", "0", "--batch-size", "16", "--budget", "0.5MFLOPs")


def pattern(shape: tuple[int, ...], full: int = 255) -> np.ndarray:
    return numpy_rng(0, "pattern").integers(0, full + 1, shape)


def saved(path: Path, values: np.ndarray, **options: object) -> Path:
    Image.fromarray(values).save(path, **options)
    return path


# -- pixels


@pytest.mark.parametrize("shape", [(12, 12, 3), (30, 17, 3), (13, 40, 3), (7, 9, 3), (25, 25)])
def test_pixels_are_the_resized_centre(shape, tmp_path):
    values = pattern(shape).astype(np.uint8)
    found = predict.pixels(saved(tmp_path / "x.png", values), HOW)
    image = Image.fromarray(values).convert("RGB")
    width, height = (max(12, int(side * 12 / min(image.size))) for side in image.size)
    left, top = round((width - 12) / 2), round((height - 12) / 2)
    wanted = image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + 12, top + 12))
    assert found.shape == (12, 12, 3) and np.array_equal(found, np.asarray(wanted))


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [(1, lambda x: x), (2, np.fliplr), (3, lambda x: np.rot90(x, 2)), (6, lambda x: np.rot90(x, -1)), (8, np.rot90)],
)
def test_images_are_upright(orientation, turned, tmp_path):
    values, exif = pattern((12, 12, 3)).astype(np.uint8), Image.Exif()
    exif[0x0112] = orientation
    found = predict.pixels(saved(tmp_path / "x.png", values, exif=exif), HOW)
    assert np.array_equal(found, turned(values))


def test_what_is_transparent_is_white_and_16_bits_keep_their_gray(tmp_path):
    clear = np.zeros((12, 12, 4), np.uint8)
    assert (predict.pixels(saved(tmp_path / "clear.png", clear), HOW) == 255).all()
    deep = pattern((12, 12), 65535).astype(np.uint16)
    found = predict.pixels(saved(tmp_path / "deep.png", deep), HOW)
    assert np.abs(found[..., 0] - deep / 257).max() <= 0.51
    with pytest.raises(ValueError, match="pixels are of mode F"):
        predict.pixels(saved(tmp_path / "f.tiff", np.zeros((12, 12), np.float32)), HOW)


def odd_images(folder: Path) -> list[Path]:
    """Images of all kinds that are read: gray, palette, alpha of both kinds, CMYK, 16 bits, turned, a few pixels."""
    colors, exif = Image.fromarray(pattern((19, 26, 3)).astype(np.uint8)), Image.Exif()
    exif[0x0112] = 5
    clear = colors.copy()
    clear.putalpha(Image.fromarray(pattern((19, 26)).astype(np.uint8)))
    kinds = {
        "plain.jpg": (colors, {"quality": 80}),
        "turned.jpg": (colors, {"exif": exif}),
        "gray.png": (colors.convert("L"), {}),
        "gray-alpha.png": (clear.convert("LA"), {}),
        "alpha.png": (clear, {}),
        "alpha.webp": (clear, {"lossless": True}),
        "palette.gif": (colors.convert("P"), {}),
        "palette.png": (colors.convert("P"), {"transparency": 7}),
        "bits.png": (colors.convert("1"), {}),
        "ink.tif": (colors.convert("CMYK"), {}),
        "turned.tif": (colors, {"exif": exif}),
        "deep.png": (Image.fromarray(pattern((19, 26), 65535).astype(np.uint16)), {}),
        "deep.tif": (Image.fromarray(pattern((19, 26), 65535).astype(np.uint16)), {}),
        "small.bmp": (colors.crop((0, 0, 1, 5)), {}),
    }
    for name, (image, options) in kinds.items():
        image.save(folder / name, **options)
    return [folder / name for name in kinds]


def test_pixels_are_those_of_training(tmp_path):
    assert tuple(HOW["background"]) == decoding.BACKGROUND
    assert (predict.SUFFIXES, predict.FOREIGN) == (decoding.SUFFIXES, listing.FOREIGN)
    for path in odd_images(tmp_path):
        assert np.array_equal(predict.pixels(path, HOW), decoding.decode(str(path), 12)), path.name


@pytest.mark.parametrize("side", [12, 9, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_prepared_is_what_networks_are_trained_on(side, channels):
    how = {**HOW, "channels": channels, "mean": [0.4] * channels, "std": [0.2] * channels, "side": side}
    pixels = pattern((5, 12, 12, channels)).astype(np.uint8)
    wanted = resize(normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2), how["mean"], how["std"], "cpu"), side)
    assert np.allclose(predict.prepared(pixels, how), wanted.numpy(), atol=2e-5)
    larger = pattern((3, 30, 30, channels)).astype(np.uint8)  # arrays that --resolution made smaller
    first = resize(torch.from_numpy(larger).permute(0, 3, 1, 2), 12)
    wanted = resize(normalize(first, how["mean"], how["std"], "cpu"), side)
    difference = np.abs(predict.prepared(larger, how) - wanted.numpy())
    assert difference.max() <= 1 / 255 / 0.2 + 1e-4 and (difference > 1e-4).mean() < 0.01  # where halves are rounded


# -- beside a network


@pytest.fixture
def best(tmp_path):
    """A folder with a network of two classes that is told its data."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    write_files(tmp_path / "best", module, {"data": DATA}, noise(1, 3, 12, 12))
    return tmp_path / "best"


def test_the_metadata_say_all(best):
    notes = onnxruntime.InferenceSession(best / "model.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(notes["preprocessing"]) == HOW and json.loads(notes["labels"]) == DATA["class_names"]
    assert (json.loads(notes["mean"]), json.loads(notes["std"])) == (DATA["mean"], DATA["std"])
    assert (best / "labels.txt").read_text() == "a cat\na dog\n"


def test_images_and_folders_are_told(best, tmp_path, capsys):
    for name in ("x/1.png", "x/y/2.PNG", "x/.hidden/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        saved(tmp_path / name, pattern((20, 15, 3)).astype(np.uint8))
    (tmp_path / "x/notes.md").write_text("no image")
    run = runpy.run_path(str(best / "predict.py"))["main"]
    run([str(tmp_path / "x"), "--top", "2"])
    rows = [line.split("\t") for line in capsys.readouterr().out.replace("a\ndog", "a dog").splitlines()]
    assert [Path(path).name for path, _ in rows] == ["1.png", "2.PNG"] and rows[0][1] == rows[1][1]
    assert sum(float(share) for share in re.findall(r"([\d.]+)%", rows[0][1])) == pytest.approx(100, abs=0.2)


def test_errors_are_one_line(best, tmp_path):
    (tmp_path / "broken.png").write_text("no image")
    main = runpy.run_path(str(best / "predict.py"))["main"]
    for arguments, words in (
        ([str(tmp_path / "broken.png")], "error: cannot read the image"),
        ([str(tmp_path / "none.png")], "error: cannot read the image"),
        (["--score", str(tmp_path)], "error: .* is no folder of a class"),
    ):
        with pytest.raises(SystemExit, match=words):
            main(arguments)


# -- the numbers of the card


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with images of three classes, of colors that are told apart with some mistakes, and a network."""
    folder = tmp_path_factory.mktemp("deployed")
    (folder / "own_net.py").write_text(NETWORK)
    for part, count in (("train", 24), ("test", 16)):
        for place, name in enumerate(("red", "green", "blue")):
            (folder / "photos" / part / name).mkdir(parents=True)
            for number in range(count):
                rng = numpy_rng(0, part, name, number)
                values = rng.integers(0, 200, (21 + number % 3, 24, 3))
                values[..., place] += int(rng.integers(0, 25))
                suffix = "png" if number % 4 else "jpg"
                saved(folder / "photos" / part / name / f"{number}.{suffix}", values.astype(np.uint8))
    return folder


COMMANDS = {
    "search": ("search", "--space", "convnet", "--no-baseline", *TRAINED),
    "prune": ("prune", "python:own_net:net", "--budget", "70%", "--finetune-epochs", "1"),
    "quantize": ("quantize", "python:own_net:net", "--images", "32", "--calibration", "min-max"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_following_the_card_gives_its_accuracy(command, home, monkeypatch):
    monkeypatch.chdir(home)
    data = ("--data", f"imagefolder:{home / 'photos'}", "--out", command)
    result = CliRunner().invoke(app, [*COMMANDS[command], *QUICK, *data, "--json"])
    assert result.exit_code == 0, result.stderr
    claimed = json.loads(result.stdout)["best"]["metrics"]["test_accuracy"]
    card = (home / command / "best" / "README.md").read_text()
    (line,) = re.findall(r"^python predict.py --score .*$", card, re.M)
    code = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__'); "
    code += "assert not {'torch', 'nas', 'compress'} & set(sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", code, *line.split()[1:]], cwd=home / command / "best", capture_output=True, text=True, check=True
    )
    right = round(claimed * 48)
    assert ran.stdout == f"accuracy {claimed:.2%}: {right} of 48 images\n"
