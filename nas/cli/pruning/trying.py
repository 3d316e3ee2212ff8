"""One run of a network that a user brought, before anything else: what it gives, and what to mend if it does not run."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

import torch
from torch import Tensor, nn

from compress.agreement import check_batches, noise_of
from compress.prune.adapting import chosen_logits, outputs_of
from compress.prune.pipeline import example_of
from nas.cost.trace import trace
from nas.cost.users_code import place_of
from nas.data.dataset import Dataset
from nas.errors import InvalidSetting

LINE = 200


def output_of(name: str, module: nn.Module, shape: tuple[int, int, int], data: Dataset | None) -> tuple[int | str | None, str]:
    """Which output of `module` are the logits (None if it has one alone), and all of its outputs in words.

    Raises InvalidSetting if the network does not run on images of `shape`, or if no output can be told to be the logits.
    """
    example = example_of(shape)
    output = _run(name, module, example, data)
    if isinstance(output, Tensor):
        return None, ""
    chosen = chosen_logits(module, example, data.classes if data is not None else None)
    if chosen.key is None:
        first = next(iter(outputs_of(output)), 0)
        raise InvalidSetting(
            f"{name} gives {chosen.shapes} for two images, and which of them are the logits (2, classes) is not known; "
            f"give a module around it with: def forward(self, x): return self.network(x)[{first!r}]"
        )
    return chosen.key, chosen.shapes


def check_logits(name: str, module: nn.Module, shape: tuple[int, int, int], data: Dataset | None) -> None:
    """Run a network once. Raises InvalidSetting if it cannot be run, gives no logits, or other classes than the data have."""
    logits = _run(name, module, example_of(shape), data)
    if not (isinstance(logits, Tensor) and logits.ndim == 2 and len(logits) == 2):
        kind = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InvalidSetting(f"{name} gives {kind} for two images; expected logits (2, classes): {_shaped(logits)}")
    try:
        check_batches(name, module, noise_of(shape))
    except InvalidSetting:
        trace(module, example_of(shape))  # a branch on values of tensors answers so, too, and is named with its line
        raise
    if data is not None and logits.shape[1] != data.classes:
        raise InvalidSetting(
            f"{name} tells {logits.shape[1]} classes apart, and {data.name} has {data.classes} "
            f"({', '.join(data.class_names[:3])}, ...); give the data that it was trained on"
        )


# -- parts


def _run(name: str, module: nn.Module, example: Tensor, data: Dataset | None) -> object:
    try:
        with torch.no_grad():
            return module(example)
    except Exception as error:  # the user's code can raise anything
        first = str(error).strip().partition("\n")[0][:LINE] or type(error).__name__
        shape = "x".join(map(str, example.shape[1:]))
        remedy = next(known for test, known in REMEDIES if test(module, example, error))
        if remedy == OTHER_SHAPE and data is not None:
            remedy = f"{data.name} has such images: give others, or a --resolution"
        raise InvalidSetting(f"{name} does not run on images of {shape} ({first}{place_of(error)}); {remedy}") from error


def _shaped(logits: object) -> str:
    """How an output that is no logits could become them."""
    if isinstance(logits, Tensor) and logits.ndim > 2 and logits.shape[2:].numel() == 1:
        return "end it with a flatten: y.flatten(1)"
    if isinstance(logits, Tensor) and logits.ndim > 2:
        return "give a classifier; maps of pixels, boxes and sequences are not judged"
    if isinstance(logits, Tensor) and logits.ndim == 1:
        return "give two columns, one a class, for a decision between two"
    return "give a classifier"


# -- remedies: the first whose test holds


def _needs_more(module: nn.Module, example: Tensor, error: Exception) -> bool:
    return isinstance(error, TypeError) and bool(_further_inputs(module))


def _further_inputs(module: nn.Module) -> list[str]:
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p.name for p in parameters if p.default is p.empty and p.kind in plain]
    return needed[1:]


def _of_precision(module: nn.Module, example: Tensor, error: Exception) -> bool:
    return re.search(r"dtype|scalar type|\b(Half|Double|BFloat16|Float)\b", str(error)) is not None


def _of_device(module: nn.Module, example: Tensor, error: Exception) -> bool:
    return re.search(r"same device|cuda|CUDA|NVIDIA", str(error)) is not None


def _of_batch(module: nn.Module, example: Tensor, error: Exception) -> bool:
    try:
        with torch.no_grad():
            module(example[:1])
    except Exception:  # noqa: BLE001 - whatever it is, one image is no remedy
        return False
    return True


def _of_shape(module: nn.Module, example: Tensor, error: Exception) -> bool:
    words = r"shape|size|channel|dimension|mat1|height|width|resolution|image|view|broadcast|too small|\[.*\d.*\]"
    return re.search(words, str(error), re.IGNORECASE) is not None


def _any(module: nn.Module, example: Tensor, error: Exception) -> bool:
    return True


OTHER_SHAPE = "choose another --shape"
REMEDIES: tuple[tuple[Callable[[nn.Module, Tensor, Exception], bool], str], ...] = (
    (
        _needs_more,
        "its forward takes more than images: give a module that holds the other inputs as constants and takes the images alone",
    ),
    (_of_precision, "make and convert tensors in its forward in the type of the images, which are fp32: x.dtype, not .half()"),
    (_of_device, "make tensors in its forward on the device of the images: x.device"),
    (_of_batch, "it runs on one image, not on two: let its forward take any number of images, x.shape[0]"),
    (_of_shape, OTHER_SHAPE),
    (_any, "mend its forward, which is run on a batch of images (N, C, H, W) in fp32"),
)
