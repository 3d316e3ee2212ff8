"""Small networks as strangers write them: ties between channels, norms, paddings, activations and heads of public code.

Each function builds one with 10 classes and random weights. NETWORKS has all by name, as `python:` takes them; QUANTIZED
has the names of those that are rounded to integers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn as nn

from benchmarks import strange_heads, strange_norms, strange_ties

SHAPE = "3x32x32"
_BUILDERS: tuple[Callable[[], nn.Module], ...] = (
    strange_ties.shuffle_v2,
    strange_ties.csp,
    strange_ties.ghost,
    strange_ties.hrnet,
    strange_ties.pyramid,
    strange_ties.siamese,
    strange_ties.elan,
    strange_ties.res2net,
    strange_ties.selective_kernel,
    strange_ties.pooled_pyramid,
    strange_ties.octave,
    strange_ties.mixed_kernels,
    strange_ties.partial,
    strange_ties.permuted,
    strange_ties.unet,
    strange_ties.stem_slices,
    strange_ties.gated,
    strange_ties.bilinear_pooling,
    strange_norms.response_norm,
    strange_norms.rms_norm,
    strange_norms.dynamic_tanh,
    strange_norms.sync_norm,
    strange_norms.instance_norm,
    strange_norms.convnext_v2,
    strange_norms.paddings,
    strange_norms.circular,
    strange_norms.snake,
    strange_norms.maxout,
    strange_norms.spectral,
    strange_heads.cbam,
    strange_heads.channel_conv,
    strange_heads.position_attention,
    strange_heads.attention_pooling,
    strange_heads.encoder,
    strange_heads.window_attention,
    strange_heads.rows,
    strange_heads.two_poolings,
    strange_heads.coordinates,
    strange_heads.unfolded,
    strange_heads.cosine_head,
    strange_heads.early_exits,
)
NETWORKS = {make.__name__: f"{make.__module__}:{make.__name__}" for make in _BUILDERS}
QUANTIZED = (
    "shuffle_v2",
    "ghost",
    "hrnet",
    "res2net",
    "gated",
    "response_norm",
    "convnext_v2",
    "paddings",
    "circular",
    "spectral",
    "cbam",
    "encoder",
    "window_attention",
    "rows",
    "two_poolings",
    "unfolded",
    "cosine_head",
)
