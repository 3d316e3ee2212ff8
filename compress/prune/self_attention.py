"""Self-attention and encoders of torch as plain layers, which can be counted and cut.

nn.MultiheadAttention insists on heads that are together as wide as the sequence, so none of its heads could be cut;
nn.TransformerEncoderLayer reads the weights of its layers past their forward.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.errors import InvalidSetting


class SelfAttention(nn.Module):
    """nn.MultiheadAttention, (N, L, C) -> (N, L, C), with any number of heads of any width."""

    def __init__(self, source: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads, self.head_dim = source.num_heads, source.head_dim
        self.dropout, self.batch_first = source.dropout, source.batch_first
        self.in_proj = _linear(source.in_proj_weight, source.in_proj_bias)
        self.out_proj = _linear(source.out_proj.weight, source.out_proj.bias)

    @staticmethod
    def takes(source: nn.MultiheadAttention) -> bool:
        """Whether `source` has queries, keys and values of one width and nothing added to them."""
        return source._qkv_same_embed_dim and source.bias_k is None and not source.add_zero_attn

    def forward(  # noqa: PLR0913 - as nn.MultiheadAttention has them
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:
        """Attend; weights are never returned. Masks as nn.MultiheadAttention has them, `attn_mask` (L, L).

        Raises InvalidSetting for a mask of each head.
        """
        q, k, v = self._projected(query, key, value)
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, _mask(attn_mask, key_padding_mask, q), dropout_p=dropout)
        y = self.out_proj(y.transpose(1, 2).flatten(2))
        return (y if self.batch_first else y.transpose(0, 1)), None

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> Sequence[Tensor]:
        """Queries, keys and values, (N, heads, L, width): of one sequence by one matrix, of several by its three parts."""
        if query is key and query is value:
            x = self.in_proj(query if self.batch_first else query.transpose(0, 1))
            return x.reshape(*x.shape[:2], 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        inputs = [x if self.batch_first else x.transpose(0, 1) for x in (query, key, value)]
        weights, bias = self.in_proj.weight.chunk(3), self.in_proj.bias
        biases = [None] * 3 if bias is None else bias.chunk(3)
        found = [F.linear(x, weight, b) for x, weight, b in zip(inputs, weights, biases, strict=True)]
        return [x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2) for x in found]


class EncoderLayer(nn.Module):
    """nn.TransformerEncoderLayer as its layers one after the other, (N, L, C) -> (N, L, C)."""

    def __init__(self, source: nn.TransformerEncoderLayer) -> None:
        super().__init__()
        self.norm_first, self.activation = source.norm_first, source.activation
        self.self_attn = SelfAttention(source.self_attn)
        self.linear1, self.dropout, self.linear2 = source.linear1, source.dropout, source.linear2
        self.norm1, self.norm2, self.dropout1, self.dropout2 = source.norm1, source.norm2, source.dropout1, source.dropout2

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """As nn.TransformerEncoderLayer; `is_causal` only describes the mask and has no effect."""
        if self.norm_first:
            x = src + self._attended(self.norm1(src), src_mask, src_key_padding_mask)
            return x + self._transformed(self.norm2(x))
        x = self.norm1(src + self._attended(src, src_mask, src_key_padding_mask))
        return self.norm2(x + self._transformed(x))

    def _attended(self, x: Tensor, mask: Tensor | None, padding: Tensor | None) -> Tensor:
        return self.dropout1(self.self_attn(x, x, x, key_padding_mask=padding, attn_mask=mask)[0])

    def _transformed(self, x: Tensor) -> Tensor:
        return self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(x)))))


class Encoder(nn.Module):
    """nn.TransformerEncoder as its layers one after the other, (N, L, C) -> (N, L, C)."""

    def __init__(self, source: nn.TransformerEncoder, layers: list[EncoderLayer]) -> None:
        super().__init__()
        self.layers, self.norm = nn.ModuleList(layers), source.norm

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        """As nn.TransformerEncoder; padding is computed like anything else."""
        for layer in self.layers:
            src = layer(src, src_mask=mask, src_key_padding_mask=src_key_padding_mask)
        return src if self.norm is None else self.norm(src)


def plain_encoder(module: nn.Module) -> nn.Module | None:
    """The plain form of an encoder of torch or of one of its layers; None for anything else, and where a layer has none."""
    if type(module) is nn.TransformerEncoderLayer and SelfAttention.takes(module.self_attn):
        return EncoderLayer(module)
    if type(module) is not nn.TransformerEncoder:
        return None
    layers = [plain_encoder(layer) for layer in module.layers]
    found = [layer.train(module.training) for layer in layers if isinstance(layer, EncoderLayer)]
    return Encoder(module, found) if len(found) == len(layers) else None


def _mask(attention: Tensor | None, padding: Tensor | None, like: Tensor) -> Tensor | None:
    """Both masks of nn.MultiheadAttention as one that is added to (N, heads, L, L); True is what is left out."""
    if attention is not None and attention.dim() != 2:  # noqa: PLR2004 - (L, L)
        raise InvalidSetting(f"a mask of {attention.dim()} dimensions, one of each head, cannot be pruned; give one of (L, L)")
    masks = [attention, None if padding is None else padding[:, None, None, :]]
    added = [_added(mask, like) for mask in masks if mask is not None]
    return sum(added[1:], added[0]) if added else None


def _added(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros(mask.shape, dtype=like.dtype, device=mask.device).masked_fill(mask, float("-inf"))


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight, weight.requires_grad)
    if bias is not None:
        layer.bias = nn.Parameter(bias, bias.requires_grad)
    return layer
