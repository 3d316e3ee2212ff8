"""Data as strangers have them: images in odd modes and formats, and classes that are mirror images of each other.

Each function of DATA writes a data set of two classes into a folder and gives the text for --data. All can be learned.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

SIDE, TRAINING, TESTING = 24, 400, 120
Save = Callable[[Image.Image, Path], object]


def halves(rng: np.random.Generator, label: int) -> np.ndarray:
    """Noise with a bright left (0) or right (1) half, (SIDE, SIDE, 3)."""
    pixels = rng.integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8)
    half = slice(None, SIDE // 2) if label == 0 else slice(SIDE // 2, None)
    pixels[:, half] += 150
    return pixels


def letters(rng: np.random.Generator, label: int) -> np.ndarray:
    """A b (0) or a d (1) of some size, somewhere, (SIDE, SIDE)."""
    pixels = rng.integers(0, 40, (SIDE, SIDE), dtype=np.uint8)
    ink, size = rng.integers(140, 255), int(rng.integers(4, 7))
    top, left = int(rng.integers(1, SIDE - 2 * size - 1)), int(rng.integers(2, SIDE - size - 2))
    pixels[top + size : top + 2 * size, left : left + size] = ink
    pixels[top + size + 1 : top + 2 * size - 1, left + 1 : left + size - 1] = 0
    pixels[top : top + 2 * size, left if label == 0 else left + size - 1] = ink
    return pixels


def _turned(image: Image.Image, path: Path) -> None:
    """Stored on its side, with the EXIF orientation that says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)


def _deep(image: Image.Image, path: Path) -> None:
    """16 bits of grey."""
    Image.fromarray(np.asarray(image.convert("L"), dtype=np.uint16) * 257).save(path)


FORMATS: tuple[tuple[str, Save], ...] = (
    (".png", lambda image, path: image.convert("P", palette=Image.Palette.ADAPTIVE).save(path)),
    (".png", lambda image, path: image.convert("P", palette=Image.Palette.ADAPTIVE, colors=255).save(path, transparency=255)),
    (".jpg", lambda image, path: image.convert("CMYK").save(path, quality=95)),
    (".png", lambda image, path: image.convert("1").save(path)),
    (".tif", lambda image, path: image.convert("1").save(path, compression="group4")),
    (".gif", lambda image, path: image.save(path, save_all=True, append_images=[Image.new("RGB", image.size)] * 2)),
    (".png", lambda image, path: image.convert("LA").save(path)),
    (".png", lambda image, path: image.convert("RGBA").save(path)),
    (".png", _deep),
    (".jpg", _turned),
    (".JPEG", lambda image, path: image.convert("L").save(path, format="JPEG", progressive=True)),
    (".webp", lambda image, path: image.save(path, lossless=True)),
    (".bmp", lambda image, path: image.convert("P").save(path)),
    (".jpg", lambda image, path: image.save(path, format="PNG")),
)


def _each(number: int, seed: int) -> Iterator[tuple[int, int, np.random.Generator]]:
    """Numbers of images, their labels, and what they are drawn with."""
    rng = np.random.default_rng(seed)
    return ((i, i % 2, rng) for i in range(number))


def odd_formats(folder: Path) -> str:
    """Palettes, CMYK, one bit, animations, alpha, 16 bits, EXIF: all in the same folders."""
    for split, number, seed in (("train", TRAINING, 0), ("test", TESTING, 1)):
        for i, label, rng in _each(number, seed):
            suffix, save = FORMATS[i // 2 % len(FORMATS)]
            path = folder / split / ("left", "right")[label] / f"{i}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            save(Image.fromarray(halves(rng, label)), path)
    return f"imagefolder:{folder}"


def flat_letters(folder: Path) -> str:
    """One folder a letter, and nothing set aside for testing."""
    for i, label, rng in _each(TRAINING + TESTING, 2):
        path = folder / "bd"[label] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(letters(rng, label)).save(path)
    return f"imagefolder:{folder}"


def listed_letters(folder: Path) -> str:
    """A list of files and labels, with the split."""
    (folder / "images").mkdir(parents=True)
    with (folder / "list.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "label", "split"])
        for i, label, rng in _each(TRAINING + TESTING, 3):
            Image.fromarray(letters(rng, label)).save(folder / "images" / f"{i}.png")
            rows.writerow([f"images/{i}.png", "bd"[label], "train" if i < TRAINING else "test"])
    return f"csv:{folder / 'list.csv'}"


def grey_letters(folder: Path) -> str:
    """Arrays of grey images without a dimension of channels."""
    folder.mkdir(parents=True)
    arrays: dict[str, np.ndarray] = {}
    for split, number, seed in (("train", 2 * TRAINING, 4), ("test", TESTING, 5)):
        drawn = [(letters(rng, label), label) for _, label, rng in _each(number, seed)]
        arrays |= {f"{split}_images": np.stack([x for x, _ in drawn]), f"{split}_labels": np.array([y for _, y in drawn])}
    np.savez(folder / "grey.npz", **arrays)
    return f"npz:{folder / 'grey.npz'}"


def truncated(folder: Path) -> str:
    """A training image whose end is missing: to be refused by its name."""
    source = odd_formats(folder)
    path = folder / "train" / "left" / "broken.jpg"
    noise = np.random.default_rng(6).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-20_000])
    return source


DATA: dict[str, Callable[[Path], str]] = {
    write.__name__: write for write in (odd_formats, flat_letters, listed_letters, grey_letters, truncated)
}
