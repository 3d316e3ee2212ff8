"""Image files as RGB of 8 bits: what is read, how it is brought to that, and what is refused by name."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from nas.errors import InvalidData

# Pillow would also hand files to other programs (EPS to Ghostscript), whatever their name ends in
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM", "TGA", "QOI", "PCX")
SUFFIXES = frozenset(
    (
        ".jpg .jpeg .jpe .jfif .png .apng .gif .bmp .dib .tif .tiff .webp .avif .jp2 .j2k .jpx "
        ".ppm .pgm .pbm .pnm .tga .qoi .pcx"
    ).split()
)
# alpha is laid on this, which most programs show it on
BACKGROUND = (255, 255, 255)
EIGHT_BITS = frozenset("1 L LA P PA RGB RGBA RGBa RGBX CMYK YCbCr HSV".split())
SIXTEEN_BITS = frozenset(("I;16", "I;16L", "I;16B", "I;16N"))
# their gray values of more than 8 bits come as 32, scaled to 16
WIDENED = frozenset(("PNG", "PPM"))
FULL = 65535
# Pillow raises all of these for broken files
UNDECODABLE = (
    OSError, SyntaxError, ValueError, EOFError, ArithmeticError, LookupError, TypeError, AttributeError, RuntimeError,
    MemoryError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
_ORIENTATION, _PHOTOMETRIC, _WHITE_IS_ZERO = 0x0112, 262, 0
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_NAMED = 3


def decode(path: str, resolution: int) -> np.ndarray:
    """Read an image upright as RGB, bring its shorter side to `resolution`, cut out the centre: uint8 (H, W, 3).

    Of several frames or pages it is the first. Raises one of UNDECODABLE.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on metadata, in the words of Pillow's developers
        with Image.open(path, formats=FORMATS) as file:
            _check_mode(file)
            file.load()  # before its metadata: a TIFF is turned by that
            image = _turned(_to_rgb(file), _orientation(file))
    width, height = (max(resolution, int(side * resolution / min(image.size))) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - resolution) / 2), round((height - resolution) / 2)
    return np.asarray(image.crop((left, top, left + resolution, top + resolution)))


def check_images(paths: Sequence[str], most: int) -> None:
    """Open images without decoding them, evenly chosen ones where there are more than `most`.

    Raises InvalidData that counts and names what is no image, or has pixels that are not understood.
    """
    wrong = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for index in _evenly(len(paths), most):
            if reason := _unreadable(paths[index]):
                wrong.append(f"{paths[index]!r} ({reason})")
    if len(wrong) == 1:
        raise InvalidData(f"cannot read the image {wrong[0]}; convert, replace or remove it")
    if wrong:
        few = ", ".join(wrong[:_NAMED]) + (", ..." if len(wrong) > _NAMED else "")
        count = f"{len(wrong)} of {min(len(paths), most)} images"
        raise InvalidData(f"{count} cannot be read: {few}; convert, replace or remove them")


def reason_of(error: BaseException) -> str:
    """What an error of Pillow says, in one line, without the path, which is said beside it."""
    text = " ".join(str(error).split()).partition(": '/")[0]
    return text.partition(" '")[0] if text.startswith("cannot identify") else text or type(error).__name__


def _unreadable(path: str) -> str:
    try:
        with Image.open(path, formats=FORMATS) as file:
            _check_mode(file)
    except UNDECODABLE as error:
        return reason_of(error)
    return ""


def _evenly(count: int, most: int) -> Sequence[int]:
    return range(count) if count <= most else [i * count // most for i in range(most)]


def _check_mode(file: Image.Image) -> None:
    """Raise ValueError for pixels whose black and white are not known."""
    if file.mode in EIGHT_BITS or file.mode in SIXTEEN_BITS or (file.mode == "I" and file.format in WIDENED):
        return
    kinds = {"F": "floating point", "I": "32-bit integers"}
    raise ValueError(f"its pixels are {kinds.get(file.mode, f'of mode {file.mode}')}; 8 and 16 bits are understood")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in SIXTEEN_BITS or image.mode == "I":
        return Image.fromarray(_sixteen_to_eight(image)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    behind = Image.new("RGBA", image.size, BACKGROUND)
    return Image.alpha_composite(behind, image.convert("RGBA")).convert("RGB")


def _sixteen_to_eight(image: Image.Image) -> np.ndarray:
    """Gray values of 0..65535 as uint8 (H, W), rounded; the transparent one is the background."""
    values = np.asarray(image).astype(np.int64)
    shade = ((values * 255 + FULL // 2) // FULL).clip(0, 255).astype(np.uint8)
    if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        shade = 255 - shade
    clear = image.info.get("transparency")
    return np.where(values == clear, np.uint8(BACKGROUND[0]), shade) if isinstance(clear, int) else shade


def _orientation(image: Image.Image) -> object:
    """What the metadata say of turning; None where they cannot be read: other programs then turn nothing, either."""
    try:
        return image.getexif().get(_ORIENTATION)
    except UNDECODABLE:
        return None


def _turned(image: Image.Image, orientation: object) -> Image.Image:
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)
