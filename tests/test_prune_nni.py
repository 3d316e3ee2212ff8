import sys
import warnings
from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor, nn

from compress.prune.evidence import Evidence
from compress.prune.groups import IN, OUT, Group, Member
from compress.prune.importance import score
from compress.prune.nni_pruners import LEVELS
from nas.errors import InvalidSetting, MissingPackage
from nas.torch_seeding import generator

needs_nni = pytest.mark.skipif(find_spec("nni") is None, reason="needs nni, which is an extra: pip install 'netcarver[nni]'")
NAMES = ("nni-l1", "nni-l2", "nni-fpgm")
METRICS: dict[str, Callable[[Tensor], Tensor]] = {
    "nni-l1": lambda filters: filters.abs().sum(1),
    "nni-l2": lambda filters: filters.square().sum(1).sqrt(),
    "nni-fpgm": lambda filters: (filters[:, None] - filters).square().sum(2).sqrt().sum(1),
}
CHANNELS = tuple((i,) for i in range(10))
PAIRS = tuple((i, i + 5) for i in range(5))


def survived(metric: Tensor) -> Tensor:
    """At how many levels a unit is kept, by its place among all."""
    width = len(metric)
    cuts = [max(1, width * level // (LEVELS + 1)) for level in range(1, LEVELS + 1)]
    places = metric.argsort().argsort()
    return torch.tensor([float(sum(int(place) >= cut for cut in cuts)) for place in places])


def network(*layers: nn.Module) -> nn.Module:
    module = nn.Sequential(*layers)
    for number, parameter in enumerate(module.parameters()):
        nn.init.normal_(parameter, generator=generator(number))
    return module


def group_of(*writers: str, units: tuple[tuple[int, ...], ...] = CHANNELS) -> Group:
    return Group(writers[0], len(units), tuple(Member(name, OUT, units) for name in writers))


# -- without nni


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_package_is_named(name, monkeypatch):
    if find_spec("nni"):
        monkeypatch.setitem(sys.modules, "nni.compression", None)
    with pytest.raises(MissingPackage, match=r"nni.* pip install 'netcarver\[nni\]'"):
        score(name, network(nn.Conv2d(3, 10, 3)), group_of("0"), Evidence())


# -- with nni


@pytest.fixture(scope="module")
def nni_pruning():
    with warnings.catch_warnings(action="ignore"):  # what nni and its dependencies import is not ours to mend
        from nni.compression import pruning
    return pruning


@needs_nni
@pytest.mark.usefixtures("nni_pruning")
@pytest.mark.parametrize("width", [2, 10, 49])  # 49 * (16 / 49) is less than 16
@pytest.mark.parametrize("name", NAMES)
def test_scores_count_the_levels_that_filters_survive(name, width):
    module = network(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, 4, 1))
    units = tuple((i,) for i in range(width))
    group = Group("0", width, (Member("0", OUT, units), Member("1", OUT, units), Member("2", IN, units)))
    metric = METRICS[name](module[0].weight.detach().flatten(1))
    scores = score(name, module, group, Evidence())
    assert torch.equal(scores, survived(metric))
    assert scores.min() == 0 and scores.max() == LEVELS
    assert scores[metric.argsort()].diff().min() >= 0  # their order is that of the metric
    with torch.no_grad():
        module[1].weight.mul_(torch.arange(width))
        module[2].weight.mul_(7)
    assert torch.equal(scores, score(name, module, group, Evidence())), "only what writes the units counts"


@needs_nni
@pytest.mark.usefixtures("nni_pruning")
@pytest.mark.parametrize("name", NAMES)
def test_layers_that_write_a_group_are_ranked_together(name):
    module = network(nn.Conv2d(2, 10, 3, bias=False), nn.Conv2d(5, 10, 1))
    metric = sum(METRICS[name](layer.weight.detach().flatten(1)) for layer in module)
    assert torch.equal(score(name, module, group_of("0", "1"), Evidence()), survived(metric))


@needs_nni
@pytest.mark.usefixtures("nni_pruning")
@pytest.mark.parametrize("layer", [nn.Linear(6, 10), nn.Conv2d(3, 10, 3), nn.ConvTranspose2d(4, 10, 2)])
@pytest.mark.parametrize("name", NAMES)
def test_units_of_several_channels_are_one_filter(name, layer):
    module = network(layer)
    weight = layer.weight.detach().movedim(int(isinstance(layer, nn.ConvTranspose2d)), 0).flatten(1)
    metric = METRICS[name](torch.cat([weight[:5], weight[5:]], dim=1))
    assert torch.equal(score(name, module, group_of("0", units=PAIRS), Evidence()), survived(metric))


@needs_nni
@pytest.mark.parametrize(("name", "pruner"), [*zip(NAMES, ("L1NormPruner", "L2NormPruner", "FPGMPruner"), strict=True)])
def test_masks_are_those_of_nni_on_the_network_itself(name, pruner, nni_pruning):
    module = network(nn.Conv2d(2, 10, 3), nn.Conv2d(10, 5, 3), nn.Conv2d(5, 10, 1))
    scores = score(name, module, group_of("0", "2"), Evidence())
    config = {"op_names": ["0", "2"], "sparse_ratio": 0.4, "dependency_group_id": "group"}
    _, masks = getattr(nni_pruning, pruner)(module, [config]).compress()
    best = set(scores.topk(6).indices.tolist())
    assert sorted(masks) == ["0", "2"]
    for mask in masks.values():
        assert set(mask["weight"][:, 0, 0, 0].nonzero().flatten().tolist()) == best


@needs_nni
@pytest.mark.usefixtures("nni_pruning")
def test_nothing_is_left_behind():
    module = network(nn.Conv2d(3, 10, 3))
    before, state = module[0].weight.detach().clone(), torch.get_rng_state()
    first = score("nni-l1", module, group_of("0"), Evidence())
    assert torch.equal(first, score("nni-l1", module, group_of("0"), Evidence()))
    assert torch.equal(module[0].weight, before) and torch.equal(torch.get_rng_state(), state)
    assert set(vars(module[0])) == set(vars(nn.Conv2d(3, 10, 3))) and module[0].weight.requires_grad


@needs_nni
@pytest.mark.usefixtures("nni_pruning")
@pytest.mark.parametrize("name", NAMES)
def test_bad_input(name):
    module = network(nn.BatchNorm2d(10), nn.Conv2d(3, 10, 3))
    with pytest.raises(InvalidSetting, match="need a convolution or linear layer that writes group '0'; choose l2"):
        score(name, module, group_of("0"), Evidence())
    nn.init.constant_(module[1].weight[3], float("nan"))
    with pytest.raises(InvalidSetting, match=f"importance '{name}' is not finite on group '1'"):
        score(name, module, group_of("1"), Evidence())
