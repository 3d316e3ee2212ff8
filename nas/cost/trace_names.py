"""Modules and functions by name: activations, arithmetic on single values, and what only moves or looks at its input."""

from __future__ import annotations

import torch.nn as nn

ACTS: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.Hardtanh: "hardtanh",
    nn.Hardswish: "hardswish",
    nn.Hardsigmoid: "hardsigmoid",
    nn.SiLU: "silu",
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
    nn.GELU: "gelu",
    nn.ELU: "elu",
    nn.LeakyReLU: "leaky_relu",
    nn.Mish: "mish",
    nn.Softplus: "softplus",
}
# no runtime builds these from a plan: a network with them is timed as a file
OTHER_ACTS: dict[type[nn.Module], str] = {
    nn.PReLU: "prelu",
    nn.SELU: "selu",
    nn.CELU: "celu",
    nn.RReLU: "rrelu",
    nn.LogSigmoid: "logsigmoid",
    nn.Softsign: "softsign",
    nn.Hardshrink: "hardshrink",
    nn.Softshrink: "softshrink",
    nn.Tanhshrink: "tanhshrink",
    nn.Threshold: "threshold",
}
SOFTMAX_MODULES = (nn.Softmax, nn.LogSoftmax, nn.Softmin, nn.Softmax2d)
SOFTMAX_FUNCTIONS = ("softmax", "log_softmax", "softmin")
VIEW_MODULES = (
    *(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout),
    *(nn.Flatten, nn.Unflatten),
)
ZERO_PADS = (nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d)
VIEW_FUNCTIONS = (
    "flatten unflatten view view_as reshape reshape_as permute transpose swapaxes movedim squeeze unsqueeze expand expand_as "
    "contiguous clone to float detach chunk split unbind getitem dropout dropout2d stochastic_depth "
    "type_as type narrow select getattr"
).split()
ELEMENTWISE = (
    "neg abs pow exp sqrt rsqrt clamp clamp_min clamp_max rsub addcmul sin cos log square reciprocal sign floor ceil round "
    "maximum minimum where masked_fill written cumsum normalize"
).split()
REDUCTIONS = "sum amax amin max min std var fold".split()
MOVES = "roll flip repeat repeat_interleave tile gather index_select pixel_shuffle pixel_unshuffle unfold".split()
