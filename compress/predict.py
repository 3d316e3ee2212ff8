"""Tell the classes of images with the model.onnx beside this file; needs onnxruntime, numpy and Pillow alone.

python predict.py photo.jpg folder/ ...   the most probable classes of each image
python predict.py --score DATA            the accuracy on DATA/test/CLASS/*, DATA/CLASS/*, or the test images of a .npz

How images are prepared, and what the classes are called, is in the metadata of model.onnx.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

SUFFIXES = frozenset(
    (
        ".jpg .jpeg .jpe .jfif .png .apng .gif .bmp .dib .tif .tiff .webp .avif .jp2 .j2k .jpx "
        ".ppm .pgm .pbm .pnm .tga .qoi .pcx"
    ).split()
)
# in any case of letters; the first one that is there
TEST_FOLDERS = ("test", "testing", "val", "validation", "valid", "dev", "eval")
# folders that are no one's class
FOREIGN = frozenset(("__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"))
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N", "I")
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
AT_ONCE = 64
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


@dataclass(frozen=True)
class Model:
    """A network as a file; `prepared_as` says what its images go through, `labels` are its classes in order."""

    session: onnxruntime.InferenceSession
    prepared_as: dict[str, Any]
    labels: tuple[str, ...]

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits (N, classes) of prepared images (N, C, H, W)."""
        given = {self.session.get_inputs()[0].name: images}
        return np.asarray(self.session.run(None, given)[0])


def opened(path: Path) -> Model:
    """Open a file that has its preprocessing and labels in its metadata. Raises ValueError for another one."""
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    notes = session.get_modelmeta().custom_metadata_map
    if not {"preprocessing", "labels"} <= set(notes):
        raise ValueError(f"{path} does not say how images are prepared; give the model.onnx of a run")
    return Model(session, json.loads(notes["preprocessing"]), tuple(json.loads(notes["labels"])))


def pixels(path: Path, how: dict[str, Any]) -> np.ndarray:
    """Read an image file upright, its shorter side at `how["shorter_side"]`, the centre cut out: uint8 (H, W, C)."""
    with Image.open(path) as file:
        if file.mode == "F" or (file.mode == "I" and file.format not in ("PNG", "PPM")):
            raise ValueError(f"its pixels are of mode {file.mode}; 8 and 16 bits are understood")
        file.load()  # before its metadata: a TIFF is turned by that
        image = _turned(_rgb(file, tuple(how["background"])), _orientation(file))
    side = how["shorter_side"]
    width, height = (max(side, int(length * side / min(image.size))) for length in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - side) / 2), round((height - side) / 2)
    cut = np.asarray(image.crop((left, top, left + side, top + side)).convert(how["color"]))
    return cut.reshape(side, side, how["channels"])


def prepared(images: np.ndarray, how: dict[str, Any]) -> np.ndarray:
    """Pixels uint8 (N, H, W, C) as the network reads them: float32 (N, C, H, W), normalized, and resized if it reads others."""
    images = images.transpose(0, 3, 1, 2)
    if images.shape[2:] != (how["shorter_side"],) * 2:
        images = np.clip(np.round(_resized(images, how["shorter_side"])), 0, 255).astype(np.uint8)
    mean, std = (np.array(how[name], np.float64).reshape(-1, 1, 1) for name in ("mean", "std"))
    scale, shift = (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)
    return np.ascontiguousarray(_resized(images * scale + shift, how["side"]), dtype=np.float32)


def predict(model: Model, paths: Sequence[Path], top: int) -> Iterator[tuple[Path, list[tuple[str, float]]]]:
    """The `top` most probable classes of each image file, with their probabilities."""
    for start in range(0, len(paths), AT_ONCE):
        some = paths[start : start + AT_ONCE]
        logits = model.logits(prepared(np.stack([_read(path, model.prepared_as) for path in some]), model.prepared_as))
        chances = np.exp(logits - logits.max(1, keepdims=True))
        chances /= chances.sum(1, keepdims=True)
        for path, row in zip(some, chances, strict=True):
            best = np.argsort(-row, kind="stable")[:top]
            yield path, [(model.labels[place], float(row[place])) for place in best]


def score(model: Model, data: Path) -> tuple[int, int]:
    """How many images of a test set are told rightly, and how many there are."""
    right = done = 0
    for images, labels in _npz(data) if data.suffix == ".npz" else _folder(model, data):
        found = model.logits(prepared(images, model.prepared_as)).argmax(1)
        right, done = right + int((found == labels).sum()), done + len(labels)
    return right, done


def image_files(given: Path) -> list[Path]:
    """The file itself, or the images below a folder, hidden ones left out."""
    if not given.is_dir():
        return [given]
    below = (path for path in sorted(given.rglob("*")) if path.suffix.lower() in SUFFIXES)
    return [path for path in below if not any(_is_hidden(part) for part in path.relative_to(given).parts)]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="*", type=Path, help="image files, and folders of them")
    parser.add_argument("--score", type=Path, metavar="DATA", help="tell the accuracy on test images instead")
    parser.add_argument("--top", type=int, default=3, help="classes that are told (default: 3)")
    parser.add_argument("--model", type=Path, default=Path(__file__).with_name("model.onnx"), help="another model.onnx")
    asked = parser.parse_args(arguments)
    try:
        model = opened(asked.model)
        if asked.score is not None:
            right, done = score(model, asked.score)
            print(f"accuracy {right / done:.2%}: {right} of {done} images")
            return
        files = [path for given in asked.images for path in image_files(given)]
        if not files:
            parser.error("no images were given; name image files or folders, or --score DATA")
        for path, found in predict(model, files, asked.top):
            print(f"{path}\t" + ", ".join(f"{label} {chance:.1%}" for label, chance in found))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


# -- parts


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in FOREIGN


def _rgb(image: Image.Image, background: tuple[int, ...]) -> Image.Image:
    """As 8 bits of red, green and blue, what is transparent on `background`."""
    if image.mode in SIXTEEN_BITS:
        values = np.asarray(image).astype(np.int64)
        shade = ((values * 255 + 32767) // 65535).clip(0, 255).astype(np.uint8)
        white_is_zero = getattr(image, "tag_v2", {}).get(262) == 0
        shade = 255 - shade if white_is_zero else shade
        clear = image.info.get("transparency")
        shade = np.where(values == clear, np.uint8(background[0]), shade) if isinstance(clear, int) else shade
        return Image.fromarray(shade).convert("RGB")
    if image.has_transparency_data:
        behind = Image.new("RGBA", image.size, background)
        return Image.alpha_composite(behind, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int | None:
    """What the metadata say of turning; None where they cannot be read."""
    try:
        return image.getexif().get(0x0112)
    except (*UNREADABLE, ArithmeticError, LookupError, TypeError, AttributeError, struct.error):
        return None


def _turned(image: Image.Image, orientation: int | None) -> Image.Image:
    turn = TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _resized(images: np.ndarray, side: int) -> np.ndarray:
    """Images (N, C, H, W) at side x side: bilinear, antialiased; as they are if they have that size."""
    if images.shape[2:] == (side, side):
        return images
    planes = images.reshape(-1, *images.shape[2:]).astype(np.float32)
    small = [np.asarray(Image.fromarray(plane).resize((side, side), Image.Resampling.BILINEAR)) for plane in planes]
    return np.stack(small).reshape(*images.shape[:2], side, side)


def _read(path: Path, how: dict[str, Any]) -> np.ndarray:
    try:
        return pixels(path, how)
    except UNREADABLE as error:
        raise ValueError(f"cannot read the image {str(path)!r}: {error}") from error


def _npz(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    with np.load(path, allow_pickle=False) as arrays:
        images, labels = arrays["test_images"], arrays["test_labels"]
    images = images.reshape(*images.shape[:3], -1)
    for start in range(0, len(images), AT_ONCE):
        yield images[start : start + AT_ONCE], labels[start : start + AT_ONCE]


def _folder(model: Model, folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The images of folders named after their classes, in `folder` or in its test folder."""
    by_lower = {path.name.lower(): path for path in sorted(folder.iterdir(), reverse=True) if path.is_dir()}
    folder = next((by_lower[name] for name in TEST_FOLDERS if name in by_lower and name not in model.labels), folder)
    known = {name: place for place, name in enumerate(model.labels)}
    classes = [path for path in sorted(folder.iterdir()) if path.is_dir() and not _is_hidden(path.name)]
    unknown = [path.name for path in classes if path.name not in known]
    if unknown or not classes:
        raise ValueError(f"{folder}: {unknown[0] if unknown else 'it'} is no folder of a class; name them {', '.join(known)}")
    files = [(path, known[one.name]) for one in classes for path in image_files(one)]
    for start in range(0, len(files), AT_ONCE):
        some = files[start : start + AT_ONCE]
        yield np.stack([_read(path, model.prepared_as) for path, _ in some]), np.array([label for _, label in some])


if __name__ == "__main__":
    main()
