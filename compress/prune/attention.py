"""Attention heads as units: self-attention whose heads can be cut, and the groups that its heads make.

The number of heads is read from the attribute `num_heads` that timm, torchvision and torch all use. That a group is what it
seems is proven afterwards by cutting it (see compress.prune.proof).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

from torch import Tensor, nn

from compress.prune.constant_weights import with_constant_weights
from compress.prune.execution import reason
from compress.prune.groups import IN, OUT, Group, Member
from compress.prune.self_attention import SelfAttention, plain_encoder
from compress.prune.slices import last_dim
from nas.errors import InvalidSetting

# read the weights of their attention past its forward; those of the first kind are prepared, but for classes derived from it
FUSED = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
__all__ = ["FUSED", "SelfAttention", "attentions", "head_group", "narrow", "prepare"]


def prepare(module: nn.Module) -> nn.Module:
    """A copy that computes the same in evaluation, in which each nn.MultiheadAttention is a SelfAttention, so that its heads
    can be cut, each nn.TransformerEncoder a plain one, and each convolution with computed weights
    (compress.prune.constant_weights), too.

    Groups name the layers of the prepared network. What is prepared already is only copied. Raises InvalidSetting for a module
    that cannot be copied.
    """
    try:
        network = copy.deepcopy(module)
    except Exception as error:  # parts of the user's own can raise anything
        raise InvalidSetting(f"{type(module).__name__} cannot be copied ({reason(error)}); {_remedy(module)}") from error
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if not isinstance(parent, FUSED) and (plain := _plain(child)) is not None:
                setattr(parent, name, plain.train(child.training))
    return with_constant_weights(_plain(network) or network)


def _plain(module: nn.Module) -> nn.Module | None:
    """What computes the same as an attention or encoder of torch, and can be cut; None for anything else."""
    if type(module) is nn.MultiheadAttention:
        return SelfAttention(module) if SelfAttention.takes(module) else None
    return plain_encoder(module)


def _remedy(module: nn.Module) -> str:
    """What to do about a module that cannot be copied: mostly it keeps a tensor that was computed with gradients."""
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            if isinstance(value, Tensor) and value.grad_fn is not None:
                return (
                    f"{f'{path}.{name}'.lstrip('.')} was computed with gradients: store it detached, or compute it in forward"
                )
    return "give a module that copy.deepcopy copies"


def attentions(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All modules that have heads, and their names."""
    for name, part in module.named_modules():
        heads = getattr(part, "num_heads", None)
        if isinstance(heads, int) and heads > 0 and len(_linears(part)) > 1:
            yield name, part


def head_group(name: str, attention: nn.Module) -> Group | None:
    """The group of the heads of `attention`, of which unit h is head h; None if its layers are not understood.

    The last linear layer reads the heads; the others write them, some of them (queries, keys, values) one after the other.
    """
    *writers, (reader, last) = _linears(attention).items()
    heads = attention.num_heads
    assert isinstance(heads, int)
    width = last.in_features
    sizes = {part: layer.out_features for part, layer in writers}
    norms = {part: x.normalized_shape for part, x in attention.named_children() if isinstance(x, nn.LayerNorm)}
    sizes |= {part: width for part, shape in norms.items() if shape == (width,)}
    sizes |= {part: p.shape[last_dim(p)] for part, p in attention.named_parameters(recurse=False) if p.dim()}
    members = {part: _by_head(size, heads, width) for part, size in sizes.items()}
    # position biases, one number a head, may come from a small network
    deep = {part: x for part, x in attention.named_modules() if "." in part and isinstance(x, nn.Linear)}
    members |= {part: tuple((h,) for h in range(heads)) for part, x in deep.items() if x.out_features == heads}
    if width % heads or not all(members[part] for part, _ in writers):
        return None
    written = [Member(_join(name, part), OUT, units) for part, units in members.items() if units]
    units = _by_head(width, heads, width)
    return Group(_join(name, writers[0][0]), heads, (*written, Member(_join(name, reader), IN, units)))


def narrow(attention: nn.Module, heads: int) -> None:
    """Tell `attention` how many heads it is left with, in place."""
    plain = attention.__dict__
    if "attn_dim" in plain:  # timm's channels of all heads together
        plain["attn_dim"] = plain["attn_dim"] // plain["num_heads"] * heads
    plain["num_heads"] = heads


def _by_head(size: int, heads: int, width: int) -> tuple[tuple[int, ...], ...]:
    """The indices of each head among `size` channels: blocks of `width`, or one number a head; empty for anything else."""
    if size == heads:
        return tuple((h,) for h in range(heads))
    if size % width:
        return ()
    each = width // heads
    return tuple(tuple(start + h * each + i for start in range(0, size, width) for i in range(each)) for h in range(heads))


def _linears(module: nn.Module) -> dict[str, nn.Linear]:
    return {name: child for name, child in module.named_children() if isinstance(child, nn.Linear)}


def _join(name: str, part: str) -> str:
    return f"{name}.{part}" if name else part
