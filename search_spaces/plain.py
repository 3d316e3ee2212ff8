"""The plain networks that a searched one has to beat: what one writes down in ten minutes, scaled to the budget.

Each family is a space whose largest network is the plain one: as in the papers at the data's own resolution, every stage of
the same depth, all widths multiplied by one number.
"""

from __future__ import annotations

from dataclasses import replace

from search_spaces import SPACES, Family
from search_spaces.convnet import ConvNetOptions
from search_spaces.mobilenet import MobileNetOptions
from search_spaces.resnet import ResNetOptions
from search_spaces.staged import Macro

# one convolution a stage at full, half and quarter resolution: 16, 32, 64 channels on small images, as in many tutorials
_CNN = (
    Macro((32, 64, 128, 256), depth=1, halving=(0, 1, 2, 3), stem=32, name="dense CNN"),
    Macro((32, 64), depth=1, halving=(0, 1), stem=16, name="dense CNN"),
)
# ResNet-18 and, for small images, ResNet-20, -14 and -8 (He et al. 2016)
_RESNET = (
    Macro((64, 128, 256, 512), depth=2, name="ResNet-18"),
    Macro((16, 32, 64), depth=3, name="ResNet-20"),
    Macro((16, 32, 64), depth=2, name="ResNet-14"),
    Macro((16, 32, 64), depth=1, name="ResNet-8"),
)
_MOBILENET = (
    Macro((24, 32, 64, 96, 160), depth=3, stem=32, name="MobileNetV2"),
    Macro((24, 40, 80), depth=2, name="MobileNetV2"),
    Macro((24, 40, 80), depth=1, name="MobileNetV2"),
)
# for small images, plain networks have a stem of stride 2 only if no other form meets the budget
_SPARE = {
    "cnn": (Macro((32, 64), depth=1, early_stride=True, halving=(0, 1), stem=16, name="dense CNN, stem of stride 2", least=8),),
    "resnet": (
        Macro((16, 32, 64), depth=2, early_stride=True, stem=16, name="ResNet-14, stem of stride 2"),
        Macro((16, 32, 64), depth=1, early_stride=True, stem=16, name="ResNet-8, stem of stride 2", least=8),
    ),
    "mobilenet": (Macro((16, 24, 48), depth=1, early_stride=True, stem=16, name="MobileNetV2, stem of stride 2", least=8),),
}
PLAIN: dict[str, Family] = {
    "cnn": replace(SPACES["convnet"], macros=_CNN, spare=_SPARE["cnn"]),
    "resnet": replace(SPACES["resnet"], macros=_RESNET, spare=_SPARE["resnet"]),
    "mobilenet": replace(SPACES["mobilenet"], macros=_MOBILENET, spare=_SPARE["mobilenet"]),
}
OPTIONS = {
    "cnn": ConvNetOptions(),
    "resnet": ResNetOptions(ratios=(1.0,)),
    "mobilenet": MobileNetOptions(expansions=(6,), kernels=(3,)),
}
