"""Format `executorch`: programs (.pte) for phones and other edge devices. The only file that imports executorch."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # noqa: F401 - registers torch.ops.quantized_decomposed
from torch import Tensor, fx, nn

from compress.quantize.graph import FUSED, MOVES, WEIGHTED
from compress.quantize.rewrites import is_zero_padding
from nas.errors import MissingPackage

aten, ops = torch.ops.aten, torch.ops.quantized_decomposed
_ROUNDING = (ops.quantize_per_tensor.default, ops.dequantize_per_tensor.default)
_SIGN = 128  # from unsigned to signed bytes


def write_executorch(module: nn.Module, example: Tensor, path: Path) -> None:
    """Write a program for one image at a time; what XNNPACK has kernels for runs in them. Raises MissingPackage."""
    image = torch.zeros(1, *example.shape[1:], dtype=example.dtype)
    suited = for_xnnpack(module) if isinstance(module, fx.GraphModule) else module
    with _quiet():
        lower, partitioner = _exporter()
        program = torch.export.export(suited, (image,))
        path.write_bytes(lower(program, partitioner=[partitioner()]).to_executorch().buffer)


def load_executorch(path: Path) -> Callable[[Tensor], Tensor]:
    """Open a program on this machine's processor; images (N, C, H, W) are run one by one. Raises MissingPackage."""
    with _quiet():
        program = _runtime().get().load_program(path)
        method = program.load_method("forward")

    def run(images: Tensor) -> Tensor:
        # what comes back lies in memory of the program, which the next image overwrites
        return torch.cat([method.execute([image.contiguous()])[0].clone() for image in images.split(1)])

    return run


def for_xnnpack(module: fx.GraphModule) -> fx.GraphModule:
    """A copy of a network of integers that computes exactly the same, in the words that XNNPACK's kernels know.

    Activations are signed bytes, biases floats (which the kernels round to nearly the same integers), zero points of weights
    long integers, and each reader has a dequantize operation of its own, so that they fuse. What was moved between its
    rounding and a layer of integers is rounded again, to what it is; a layer that puts out floats has float weights. With
    these two left out, executorch 1.5 answers wrongly.
    """
    found = copy.deepcopy(module)
    for node in list(found.graph.nodes):
        if node.target in _ROUNDING and node.args[-1] == torch.uint8:
            value, scale, zero, low, high, _ = node.args
            node.args = (value, scale, zero - _SIGN, low - _SIGN, high - _SIGN, torch.int8)
    for node in list(found.graph.nodes):
        if node.target is ops.dequantize_per_channel.default:
            (reader,) = node.users
            _long_zeros(found, node) if reader.args[1] is node and _is_rounded(reader) else _as_floats(found, node)
        elif node.target in WEIGHTED and _is_rounded(node):
            _round_again(found, node)
    for node in list(found.graph.nodes):
        if node.target in (ops.dequantize_per_tensor.default, ops.dequantize_per_channel.default):
            _one_for_each_reader(found, node)
    found.graph.eliminate_dead_code()
    read = {str(node.target) for node in found.graph.nodes if node.op == "get_attr"}
    for name, _ in list(found.named_buffers(recurse=False)):
        if name not in read:  # it would be written into the file
            delattr(found, name)
    found.graph.lint()
    found.recompile()
    return found


def _is_rounded(node: fx.Node) -> bool:
    """Whether what a layer puts out is rounded, behind its activation."""
    quantize = ops.quantize_per_tensor.default
    return all(user.target is quantize or (user.target in FUSED and _is_rounded(user)) for user in node.users)


def _as_floats(module: fx.GraphModule, node: fx.Node) -> None:
    integers, scales = (module.get_buffer(str(given.target)) for given in node.args[:2])  # type: ignore[union-attr]
    name = f"{node.name}_float"
    module.register_buffer(name, integers.float() * scales.reshape(-1, *(1 for _ in integers.shape[1:])))
    with module.graph.inserting_before(node):
        node.replace_all_uses_with(module.graph.get_attr(name))
    module.graph.erase_node(node)


def _long_zeros(module: fx.GraphModule, node: fx.Node) -> None:
    name = str(node.args[2].target)  # type: ignore[union-attr]
    module.register_buffer(name, module.get_buffer(name).long())


def _round_again(module: fx.GraphModule, layer: fx.Node) -> None:
    """Round what `layer` reads once more if it was moved. An image is moved before: as bytes, XNNPACK moves it wrongly."""
    movers: list[fx.Node] = []
    source: Any = layer.args[0]
    while source.target in MOVES or is_zero_padding(source):
        movers.append(source)
        source = source.args[0]
    if not movers or source.target is not ops.dequantize_per_tensor.default:
        return
    unrounded = source.args[0].args[0]
    with module.graph.inserting_before(layer):
        given = movers[0]
        if _is_image(unrounded):
            given = _moved(module, unrounded, movers)
        stored = module.graph.call_function(ops.quantize_per_tensor.default, (given, *source.args[1:]))
        back = module.graph.call_function(ops.dequantize_per_tensor.default, (stored, *source.args[1:]))
    layer.replace_input_with(movers[0], back)


def _is_image(node: fx.Node) -> bool:
    """Whether it is the network's input, within the bounds of its format at most."""
    while node.target is aten.clamp.default:
        node = node.args[0]  # type: ignore[assignment]
    return node.op == "placeholder"


def _moved(module: fx.GraphModule, value: fx.Node, movers: Sequence[fx.Node]) -> fx.Node:
    """`value` moved as by `movers`, the last of which is the first."""
    for mover in reversed(movers):
        value = module.graph.call_function(mover.target, (value, *mover.args[1:]), mover.kwargs)  # type: ignore[arg-type]
    return value


def _one_for_each_reader(module: fx.GraphModule, node: fx.Node) -> None:
    for reader in list(node.users)[1:]:
        with module.graph.inserting_before(reader):
            twin = module.graph.node_copy(node)
        reader.replace_input_with(node, twin)


def _quiet() -> warnings.catch_warnings:
    """Executorch warns of deprecated names that it uses itself."""
    return warnings.catch_warnings(action="ignore")


def _exporter() -> tuple[Any, Any]:
    try:  # optional: the package may not be there, or not for this torch
        import executorch.kernels.quantized  # noqa: F401 - registers what rounds outside of XNNPACK
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower
    except ImportError as error:
        raise _missing(error) from error
    return to_edge_transform_and_lower, XnnpackPartitioner


def _runtime() -> Any:  # noqa: ANN401
    try:
        import executorch.kernels.quantized  # noqa: F401 - as above
        from executorch.runtime import Runtime
    except ImportError as error:
        raise _missing(error) from error
    return Runtime


def _missing(error: ImportError) -> MissingPackage:
    return MissingPackage(f"format 'executorch' needs the package executorch ({error}); pip install netcarver[executorch]")
