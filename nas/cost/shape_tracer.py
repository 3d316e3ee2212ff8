"""A torch.fx tracer that carries an example through the network as it traces: shapes are plain numbers, and work is counted.

The plain tracer stops where a forward asks for a shape and acts on it, as hybrid and windowed transformers do. A plan is of
one shape of images anyway. What depends on the values of tensors cannot be traced here either.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor, fx
from torch.fx.node import map_aggregate

from nas.cost.operations import Work, counting
from nas.cost.trace_draft import Shape

# what a tensor tells of itself without its values
ATTRIBUTES = frozenset({"shape", "ndim", "dtype", "device", "layout", "itemsize", "is_cuda", "is_meta", "requires_grad"})
QUESTIONS = frozenset(
    {
        "size",
        "dim",
        "ndimension",
        "numel",
        "nelement",
        "element_size",
        "stride",
        "is_contiguous",
        "is_floating_point",
        "get_device",
    }
)
_OF_VALUES = frozenset({"nonzero", "unique", "unique_consecutive", "masked_select", "argwhere", "bincount", "tolist", "item"})
_MASKS, _COUNTS = (torch.bool, torch.uint8), (torch.int32, torch.int64)
# what an argument of forward may be by default, to be taken as that and not as a tensor that is to be traced
_PLAIN = (type(None), bool, int, float, str)


def written(x: Any, index: Any, value: Any) -> Any:  # noqa: ANN401 - tensors
    """`x[index] = value` as an operation."""
    x[index] = value
    return x


class ShapedProxy(fx.Proxy):
    """A value of the network that is traced, with what it is for the example."""

    value: Any = None

    def __getattr__(self, k: str) -> Any:  # noqa: ANN401 - as of the tensor
        """Shapes as numbers; parts such as `x.T` and `x.max(1).values`, and methods, as values of the network."""
        attribute = getattr(self.value, k)
        if isinstance(self.value, Tensor) and k in ATTRIBUTES | QUESTIONS:
            return attribute
        if callable(attribute) and not isinstance(attribute, Tensor):
            return super().__getattr__(k)
        return self.tracer.create_proxy("call_function", getattr, (self, k), {})

    def __setitem__(self, index: Any, value: Any) -> None:  # noqa: ANN401 - as of the tensor
        """What is read from now on is the tensor with what was written into it."""
        new = self.tracer.create_proxy("call_function", written, (self, index, value), {})
        self.node, self.value = new.node, new.value

    def __len__(self) -> int:
        """Of the first axis, or of a tuple."""
        return len(self.value)

    def __bool__(self) -> bool:
        """Whether a tuple or a dict is empty; of what depends on values, the plain proxy refuses to tell."""
        return bool(self.value) if isinstance(self.value, tuple | list | dict) else super().__bool__()


class ShapeTracer(fx.Tracer):
    """Traces a module for one image (1, C, H, W).

    `shapes` are those of the tensors of its nodes, the first of several; `works` what torch computes at each of them.
    """

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.image, self.shapes = image, dict[fx.Node, Shape]()
        self.works = dict[fx.Node, Work]()
        self._started = False
        self._unpatched = (nn.Module.__call__, nn.Module.__getattr__)

    def traced(self, module: nn.Module) -> fx.GraphModule:
        """The graph of `module`, which may be changed: tensors that the forward makes, and what it keeps for later, stay in it.

        Raises what the tracer and the module raise.
        """
        return fx.GraphModule(module, self.trace(module, _defaults(module)), type(module).__name__)

    def proxy(self, node: fx.Node) -> ShapedProxy:
        """The value of a node, which `create_proxy` fills in."""
        return ShapedProxy(node, self)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **more: Any) -> Any:  # noqa: ANN401
        """Note an operation, and carry it out on the example."""
        proxy: Any = super().create_proxy(kind, target, args, kwargs, *rest, **more)
        given = _values(args)
        if kind in ("call_function", "call_method"):
            _refuse_values(target, args, kwargs)
        with counting() as counted:
            proxy.value = self._carried_out(kind, target, given, _values(kwargs))
        self.works[proxy.node] = counted.work
        self._note(proxy.node, proxy.value)
        # what is nothing, and what is read of arguments by name, is known and no value of the network
        known = proxy.value is None or (kind == "call_method" and isinstance(given[0], dict))
        return proxy.value if known and kind != "placeholder" and _first_tensor(proxy.value) is None else proxy

    def create_node(self, kind: str, target: Any, *rest: Any, **more: Any) -> fx.Node:  # noqa: ANN401
        """Note what no proxy is asked for: buffers that are read, and what the network puts out."""
        node = super().create_node(kind, target, *rest, **more)
        if kind == "get_attr":
            self._note(node, self._carried_out(kind, target, (), {}))
        if kind == "output" and (given := [n for n in node.all_input_nodes if n in self.shapes]):
            self.shapes[node] = self.shapes[given[0]]
        return node

    def iter(self, obj: Any) -> Iterator[Any]:  # noqa: ANN401 - a proxy, as the tracer has it
        """The parts of a tensor or of a tuple, whose number is known here."""
        return iter([obj[index] for index in range(len(obj.value))])

    def _note(self, node: fx.Node, value: object) -> None:
        if (first := _first_tensor(value)) is not None:
            self.shapes[node] = tuple(first.shape)

    def _carried_out(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:  # noqa: ANN401
        with self._as_without_tracing():
            return _KINDS[kind](self, target, args, kwargs)

    @contextmanager
    def _as_without_tracing(self) -> Iterator[None]:
        """Call modules as they are: while it traces, torch.fx notes every call of a module, and gives proxies of parameters."""
        patched = nn.Module.__call__, nn.Module.__getattr__
        nn.Module.__call__, nn.Module.__getattr__ = self._unpatched  # type: ignore[method-assign]
        try:
            yield
        finally:
            nn.Module.__call__, nn.Module.__getattr__ = patched  # type: ignore[method-assign]

    def _input(self, name: str, args: tuple) -> Any:  # noqa: ANN401
        """The image is the first argument of forward; the others have their defaults."""
        if not self._started:
            self._started = True
            image = self.image.clone()  # the network may work in place
            return (image,) if name.startswith("*") else image
        if name.startswith("*"):
            return {} if name.startswith("**") else ()
        if not args:
            raise TypeError(f"its forward needs {name!r} besides the images")
        return args[0]

    def _attribute(self, name: str) -> Any:  # noqa: ANN401
        *path, attribute = name.split(".")
        return getattr(self.root.get_submodule(".".join(path)), attribute)


_KINDS: Mapping[str, Callable[[ShapeTracer, Any, Any, Any], Any]] = {
    "placeholder": lambda tracer, name, args, kwargs: tracer._input(str(name), args),
    "get_attr": lambda tracer, name, args, kwargs: tracer._attribute(str(name)),
    "call_function": lambda tracer, function, args, kwargs: function(*args, **kwargs),
    "call_method": lambda tracer, name, args, kwargs: getattr(args[0], name)(*args[1:], **kwargs),
    "call_module": lambda tracer, name, args, kwargs: tracer.root.get_submodule(name)(*args, **kwargs),
}


def _values(arguments: Any) -> Any:  # noqa: ANN401
    """The arguments with what proxies stand for in their place."""
    return map_aggregate(arguments, lambda x: x.value if isinstance(x, ShapedProxy) else x)


def _refuse_values(target: Any, args: Any, kwargs: Any) -> None:  # noqa: ANN401
    """Raise TraceError for what gives tensors whose shapes, or numbers that, depend on the values of the example.

    What the network holds itself, such as a mask in a buffer, is no proxy and may tell.
    """
    name = target if isinstance(target, str) else getattr(target, "__name__", "")
    telling = {"getitem": args[1:], "repeat_interleave": (*args[1:], *kwargs.values())}.get(name, ())
    parts = [part for x in telling for part in (x if isinstance(x, tuple) else (x,))]
    kinds = _MASKS if name == "getitem" else _COUNTS
    proxies = [x for x in parts if isinstance(x, ShapedProxy) and isinstance(x.value, Tensor) and x.value.dtype in kinds]
    if name in _OF_VALUES or proxies or (name == "where" and len(args) + len(kwargs) == 1):
        raise fx.proxy.TraceError(f"what {name} gives depends on the values of tensors")


def _defaults(module: nn.Module) -> dict[str, Any]:
    """The arguments of forward but for the first that have a plain default."""
    rest = list(inspect.signature(module.forward).parameters.values())[1:]
    return {p.name: p.default for p in rest if p.default is not p.empty and isinstance(p.default, _PLAIN)}


def _first_tensor(value: object) -> Tensor | None:
    """The first tensor in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return value
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else ()
    return next((found for found in map(_first_tensor, parts) if found is not None), None)
