"""Which operation of ATen does what to the labels of channels, in one visible dict."""

from __future__ import annotations

from functools import partial

import torch

from compress.prune.operations import (
    Found,
    Rule,
    along,
    concat,
    copied,
    halves,
    moved,
    multiplied,
    nothing,
    pointwise,
    reshaped,
    restrided,
    same,
    spatial,
    split,
    statistic,
    unfolded,
    unknown,
)
from compress.prune.tracking import Call, Tracker, tensors_of

MOVES = (
    *("permute", "transpose", "t", "numpy_T", "movedim", "swapaxes", "unsqueeze", "squeeze", "expand", "slice", "select"),
    *("split_with_sizes", "unbind", "repeat", "roll", "flip", "rot90", "index_select", "index", "gather", "unfold", "diagonal"),
    *(
        "pixel_shuffle",
        "pixel_unshuffle",
        "channel_shuffle",
        "narrow",
        "constant_pad_nd",
        "take_along_dim",
        "repeat_interleave",
    ),
    *("split_with_sizes_copy", "split_copy"),
)
RESHAPES = (
    "view",
    "_unsafe_view",
    "reshape",
    "_reshape_alias",
    "view_copy",
    "flatten",
    "unflatten",
    "alias",
    "detach",
    "lift_fresh",
)
POINTWISE = (
    *(
        "hardswish",
        "rrelu_with_noise",
        "log_sigmoid_forward",
        "softshrink",
        "hardshrink",
        "native_dropout",
        "clone",
        "_to_copy",
    ),
    *(
        "contiguous",
        "threshold",
        "celu",
        "silu",
        "prelu",
        "_prelu_kernel",
        "lerp",
        "addcmul",
        "addcdiv",
        "masked_fill",
        "isnan",
    ),
)
SAME = ("tril", "triu")
# of which one over all channels is taken for one of a norm (see compress.prune.proof)
STATISTICS = ("mean", "var", "std", "var_mean", "std_mean", "amax", "amin", "max", "min")
REDUCTIONS = (
    *(
        "sum",
        "aminmax",
        "prod",
        "logsumexp",
        "median",
    ),
    *(
        "argmax",
        "argmin",
        "_softmax",
        "_log_softmax",
        "softmax",
        "log_softmax",
        "cumsum",
        "cumprod",
        "sort",
        "argsort",
        "nanmean",
    ),
    *("logcumsumexp", "cummax", "count_nonzero"),
)
BRANCHES = ("any", "all", "is_nonzero", "_local_scalar_dense", "equal", "item")
FACTORIES = (
    *(
        "empty_like",
        "zeros_like",
        "ones_like",
        "full_like",
        "rand_like",
        "randn_like",
        "randint_like",
        "new_empty",
        "new_zeros",
    ),
    *("new_ones", "new_full", "new_empty_strided", "bernoulli"),
)

RULES: dict[str, Rule] = {
    **dict.fromkeys(MOVES, moved),
    **dict.fromkeys(RESHAPES, reshaped),
    **dict.fromkeys(POINTWISE, pointwise),
    **dict.fromkeys(SAME, same),
    **dict.fromkeys(REDUCTIONS, along),
    **dict.fromkeys(STATISTICS, statistic),
    **dict.fromkeys((*BRANCHES, *FACTORIES), nothing),
    "as_strided": restrided,
    "norm": partial(statistic, places=(2,)),
    "linalg_vector_norm": partial(statistic, places=(2,)),
    "topk": partial(along, places=(2,)),
    "kthvalue": partial(along, places=(2,)),
    "split": split,
    "cat": concat,
    "stack": partial(moved, inputs=None),
    "glu": halves,
    "im2col": unfolded,
    "copy": copied,
    "mm": multiplied,
    "bmm": multiplied,
    "matmul": multiplied,
    "addmm": partial(multiplied, first=1),
    "baddbmm": partial(multiplied, first=1),
    **{
        f"{name}{n}d": partial(spatial, sides=n)
        for n in (1, 2, 3)
        for name in ("avg_pool", "_adaptive_avg_pool", "adaptive_avg_pool")
    },
    **{f"{name}_pool{n}d": partial(spatial, sides=n) for n in (1, 2, 3) for name in ("max", "adaptive_max")},
    **{f"{name}_pool{n}d_with_indices": partial(spatial, sides=n) for n in (1, 2, 3) for name in ("max", "fractional_max")},
    **{f"{name}_pad{n}d": partial(spatial, sides=n) for n in (1, 2, 3) for name in ("reflection", "replication")},
    **{
        f"upsample_{name}": partial(spatial, sides=int(name[-2]))
        for name in (*("nearest1d", "nearest2d", "nearest3d", "linear1d", "bilinear2d", "trilinear3d", "bicubic2d"),)
    },
    **{f"_upsample_{name}": partial(spatial, sides=2) for name in ("bilinear2d_aa", "bicubic2d_aa")},
    "_upsample_nearest_exact2d": partial(spatial, sides=2),
    "grid_sampler_2d": partial(spatial, sides=2),
}


def follow(tracker: Tracker, call: Call) -> Found:
    """The labels of all outputs of an operation."""
    if all(tracker.of(tensor) is None for tensor in tensors_of((call.args, call.kwargs))):
        return [None for _ in tensors_of(call.output)]
    name = call.function._schema.name.removeprefix("aten::").rstrip("_")
    rule = RULES.get(name) or (pointwise if torch.Tag.pointwise in call.function.tags else unknown)
    return rule(tracker, call)
