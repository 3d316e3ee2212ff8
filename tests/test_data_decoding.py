"""Images of every kind: the pixels that are read are those that the file means, or the file is refused by name."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from nas.data.decoding import BACKGROUND, SUFFIXES, UNDECODABLE, check_images, decode
from nas.errors import InvalidData

SIDE = 12
RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (SIDE, SIDE), dtype=np.uint16)


def read(path: Path) -> np.ndarray:
    check_images([str(path)], 10)
    return decode(str(path), SIDE).astype(int)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm", "jp2"])
def test_sixteen_bits_are_read_rightly(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(DEEP).save(path)
    assert np.array_equal(read(path), np.round(DEEP / 257).astype(int)[:, :, None].repeat(3, 2))


def test_other_orders_of_bytes_and_of_white_are_read_rightly(tmp_path: Path) -> None:
    """TIFF as microscopes and scanners write it: big-endian, and with white as 0."""
    for name, order, photometric in (("big", ">", 1), ("white", "<", 0)):
        head = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(f"{order}I", 8)
        tags = [(256, SIDE), (257, SIDE), (258, 16), (259, 1), (262, photometric), (273, 8 + 2 + 9 * 12 + 4), (277, 1)]
        tags += [(278, SIDE), (279, 2 * SIDE * SIDE)]
        entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags)
        pixels = DEEP.astype(f"{order}u2").tobytes()
        path = tmp_path / f"{name}.tif"
        path.write_bytes(head + struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0) + pixels)
        expected = DEEP if photometric else FULL - DEEP.astype(int)
        assert np.array_equal(read(path)[:, :, 0], np.round(expected / 257).astype(int))


FULL = 65535


def test_sixteen_bits_of_colour_lose_at_most_one_level(tmp_path: Path) -> None:
    """A PNG of 16-bit RGB, put together here: Pillow does not write one."""
    import zlib

    deep = RNG.integers(0, 65536, (SIDE, SIDE, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", SIDE, SIDE, 16, 2, 0, 0, 0)
    path = tmp_path / "x.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    assert np.abs(read(path) - deep / 257).max() <= 1


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_that_are_not_understood_are_refused_by_name(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "x.tif"
    Image.fromarray(DEEP.astype(np.float32 if mode == "F" else np.int32)).save(path)
    kind = "floating point" if mode == "F" else "32-bit integers"
    with pytest.raises(InvalidData) as caught:
        read(path)
    reason = f"its pixels are {kind}; 8 and 16 bits are understood"
    assert str(caught.value) == f"cannot read the image {str(path)!r} ({reason}); convert, replace or remove it"
    with pytest.raises(UNDECODABLE, match=kind):
        decode(str(path), SIDE)


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_alpha_is_laid_on_white(tmp_path: Path, suffix: str) -> None:
    alpha = RNG.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    path = tmp_path / f"x.{suffix}"
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    Image.fromarray(np.dstack([RGB, alpha])).save(path, **options)
    share = alpha[:, :, None] / 255
    assert np.abs(read(path) - (share * RGB + (1 - share) * np.array(BACKGROUND))).max() <= 1


def test_transparent_colours_are_white_too(tmp_path: Path) -> None:
    gray = np.full((SIDE, SIDE), 40, dtype=np.uint8)
    gray[0] = 90
    Image.fromarray(gray).save(tmp_path / "gray.png", transparency=40)
    Image.fromarray(gray).convert("P").save(tmp_path / "palette.gif", transparency=40)
    Image.fromarray(gray.astype(np.uint16) * 257).save(tmp_path / "deep.png", transparency=40 * 257)
    Image.fromarray(np.dstack([gray, np.where(gray == 40, 0, 255).astype(np.uint8)])).save(tmp_path / "la.png")
    for path in sorted(tmp_path.iterdir()):
        got = read(path)
        assert (got[0] == 90).all() and (got[1:] == 255).all(), path.name


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_images_are_turned_as_their_metadata_say(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(RGB).save(path, exif=exif)
    with Image.open(path) as file:
        expected = np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
    assert np.array_equal(read(path), expected)
    if orientation == 6 and suffix == "png":  # written rotated to the left, shown to the right
        assert np.array_equal(expected, np.rot90(RGB, -1))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_metadata_that_cannot_be_read_turn_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    Image.fromarray(RGB).save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    with Image.open(path) as file:
        assert np.array_equal(read(path), np.asarray(file.convert("RGB")))


@pytest.mark.parametrize("suffix", ["jfif", "gif", "avif", "bmp", "jpe", "tga", "qoi", "pcx", "ppm", "webp"])
def test_usual_suffixes_are_images(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    kinds = {"jfif": "JPEG", "jpe": "JPEG"}
    Image.fromarray(RGB).save(path, format=kinds.get(suffix))
    with Image.open(path) as file:
        expected = np.asarray(file.convert("RGB")).astype(int)
    assert f".{suffix}" in SUFFIXES and np.array_equal(read(path), expected)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_other_kinds_of_pixels_are_converted(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("x.jpg" if mode in ("CMYK", "YCbCr") else "x.png")
    Image.fromarray(RGB).convert(mode).save(path)
    with Image.open(path) as file:
        assert np.array_equal(read(path), np.asarray(file.convert("RGB")))


def test_the_first_frame_counts(tmp_path: Path) -> None:
    black, white = (Image.new("L", (SIDE, SIDE), value) for value in (0, 255))
    for name in ("x.gif", "x.tif", "x.png", "x.webp"):
        black.save(tmp_path / name, save_all=True, append_images=[white])
        assert read(tmp_path / name).max() <= 2, name


def test_what_is_no_image_is_counted_and_named(tmp_path: Path) -> None:
    for name, data in (("a.jpg", b""), ("b.png", b"no image"), ("c.png", b"%!PS-Adobe-3.0 EPSF-3.0\n"), ("d.gif", b"GIF89a")):
        (tmp_path / name).write_bytes(data)
    Image.fromarray(RGB).save(tmp_path / "e.png")
    paths = [str(path) for path in sorted(tmp_path.iterdir())]
    with pytest.raises(InvalidData) as caught:
        check_images(paths, 10)
    text = str(caught.value)
    assert text.startswith(f"4 of 5 images cannot be read: {paths[0]!r} (cannot identify image file), {paths[1]!r} (")
    assert text.endswith("), ...; convert, replace or remove them") and "\n" not in text
    with pytest.raises(InvalidData, match="cannot read the image .*a.jpg"):
        check_images(paths, 1)  # evenly chosen: the first


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "tif", "webp", "bmp", "ppm", "tga", "qoi", "pcx", "jp2"])
def test_broken_files_raise_nothing_else(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(RGB).save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(len(whole))
    for _ in range(60):
        data = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        for place in rng.integers(0, len(data), 1 + rng.integers(8)):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        try:
            assert decode(str(path), SIDE).shape == (SIDE, SIDE, 3)
        except UNDECODABLE:
            pass
