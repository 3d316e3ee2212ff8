"""The real spaces: the contract of all spaces, their sizes, and what their decisions mean."""

import json

import pytest
import torch
from contracts.space import SpaceContract, samples
from networks import images, randomize_norms, space_for

from nas.architecture import Architecture
from nas.budget import Budget
from nas.cost.counting import count
from nas.cost.recount import recount
from nas.cost.trace import trace
from nas.errors import InvalidSetting
from nas.supernet.supernet import Supernet
from nas.weights import to_bytes
from search_spaces import SPACES, sized
from search_spaces.staged import DataShape, block_active_when, depth_options, strides

SMALL_IMAGES = DataShape(3, 32, 10)
VARIANTS = {
    "mobilenet": ("mobilenet", {}),
    "mobilenet with squeeze-excite and resolutions": ("mobilenet", {"squeeze_excite": True, "resolutions": (24, 32)}),
    "resnet": ("resnet", {}),
    "resnet of bottlenecks": ("resnet", {"block": "bottleneck"}),
    "wide resnet": ("resnet", {"widen": 2.0}),
    "convnet": ("convnet", {}),
    "convnet of fused blocks": ("convnet", {"block": "fused", "kernels": (3, 5)}),
    "convnet of dense and depthwise blocks": ("convnet", {"mixed": True}),
    "convnet of fused and depthwise blocks": ("convnet", {"mixed": True, "block": "fused"}),
    "fbnet": ("fbnet", {}),
    "fbnet with resolutions": ("fbnet", {"width": 0.5, "resolutions": (24, 32)}),
}


@pytest.fixture(params=VARIANTS, scope="module")
def space(request):
    name, options = VARIANTS[request.param]
    return space_for(name, "20MFLOPs", SMALL_IMAGES, **options)


class TestContract(SpaceContract):
    """Every variant keeps the contract."""


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("budget", ["200kFLOPs", "3MFLOPs", "300MFLOPs"])
class TestContractAtAllSizes(SpaceContract):
    """So does every space from tiny to large, on small and large images."""

    @pytest.fixture
    def space(self, name, budget):
        return space_for(name, budget, DataShape(3, 224, 1000) if budget == "300MFLOPs" else DataShape(1, 8, 10))


def test_costs_are_fvcores(space):
    for arch in samples(space, 6):
        side = arch.choices["resolution"]
        module = space.network(arch)
        planned, counted = count(space.plan(arch)), recount(module, images(1, 3, side, side))
        for metric in ("macs", "params", "activations"):
            assert planned.value(metric) == counted.value(metric)
        assert not planned.uncounted and not counted.uncounted


def test_stored_size_is_the_files(space):
    for arch in samples(space, 3):
        assert count(space.plan(arch)).value("size_bytes") == len(to_bytes(space.network(arch).state_dict()))


def test_blocks_of_both_kinds_have_weights_of_their_own():
    space = space_for("convnet", "3MFLOPs", SMALL_IMAGES, mixed=True)
    supernet = Supernet(space, 0)
    kinds = [c.name for c in space.choices if c.name.endswith(".kind")]
    assert kinds and all(c.options == ("depthwise", "dense") for c in space.choices if c.name in kinds)
    dense = space.largest()
    depthwise = Architecture(space.id, {n: "depthwise" if n in kinds else v for n, v in dense.choices.items()})
    assert count(space.plan(depthwise)).value("macs") < count(space.plan(dense)).value("macs")
    x = images(2, 3, 32, 32)
    before = supernet(x, dense)
    with torch.no_grad():
        for name, parameter in supernet.shared.named_parameters():
            if ".depthwise." in name:
                parameter.mul_(2.0).add_(0.1)
    assert torch.equal(supernet(x, dense), before) and supernet(x, depthwise).shape == (2, 10)
    supernet(x, depthwise).sum().backward()
    moved = {n for n, p in supernet.shared.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert any(".depthwise." in n for n in moved) and not any(n.endswith("0.0.last.conv.weight") for n in moved)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize(("side", "budget"), [(8, 3e5), (20, 5e5), (28, 3e5), (28, 2e6), (32, 3e6), (32, 2e7)])
def test_a_space_has_networks_within_the_budget_where_any_has(name, side, budget):
    family, limit = SPACES[name], Budget("", "macs", budget)
    space = sized(family, DataShape(3, side, 10), [limit], family.options())
    narrowest = [family.make(DataShape(3, side, 10), m, 0.1, family.options()) for m in family.macros]
    least = min(count(s.plan(s.smallest())).value("macs") for s in narrowest)
    assert count(space.plan(space.smallest())).value("macs") <= max(budget, least)


def test_a_form_may_end_in_depthwise_stages():
    family = SPACES["convnet"]
    macro = next(m for m in family.macros if m.depthwise)
    space = family.make(SMALL_IMAGES, macro, 1.0, family.options())
    layers = space.plan(space.largest()).layers
    assert {x.name.split(".")[1] for x in layers if x.groups > 1} == {"2", "3"}
    assert space.from_settings(json.loads(json.dumps(space.settings))) == space


def test_plan_is_the_traced_module(space):
    for arch in samples(space, 6):
        side = arch.choices["resolution"]
        module = space.network(arch)
        assert trace(module, images(1, 3, side, side)).canonical() == space.plan(arch).canonical()


def test_parameters_are_slices_of_the_largest(space):
    largest = dict(space.shared_network().named_parameters())
    for arch in samples(space, 6):
        for name, parameter in space.network(arch).named_parameters():
            assert all(n <= m for n, m in zip(parameter.shape, largest[name].shape, strict=True))


def test_widths_are_multiples_of_eight_from_sixteen(space):
    widths = [o for c in space.choices if c.name.endswith(".width") for o in c.options]
    assert all(w >= 16 and w % 8 == 0 for w in widths)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize(
    ("shape", "budget"),
    [((1, 8, 10), "3MFLOPs"), ((3, 32, 10), "20MFLOPs"), ((3, 32, 10), "100kparams"), ((3, 224, 1000), "300MFLOPs")],
)
def test_the_space_is_sized_to_the_budget(name, shape, budget):
    limit = Budget.parse(budget)
    space = space_for(name, budget, DataShape(*shape))
    small, large = (count(space.plan(a)).value(limit.metric) for a in (space.smallest(), space.largest()))
    assert small <= 0.25 * limit.limit
    assert 1.6 * limit.limit <= large <= 2 * limit.limit


def test_the_tightest_of_several_budgets_sizes_the_space():
    budgets = [Budget.parse("300MFLOPs"), Budget.parse("50kparams")]
    space = sized(SPACES["resnet"], SMALL_IMAGES, budgets, SPACES["resnet"].options())
    assert count(space.plan(space.largest())).value("params") <= 100_000


def test_each_set_of_running_blocks_has_one_encoding():
    space = space_for("mobilenet", "3MFLOPs", DataShape(1, 8, 10))
    depths = depth_options(space.depth)
    seen = set()
    for arch in {space.sample(__import__("numpy").random.default_rng(i)) for i in range(300)}:
        running = tuple(b for b in range(space.depth) if f"s0.b{b}.expand" in arch.choices)
        assert running[0] == 0 and running[-1] == arch.choices["s0.depth"] - 1
        gates = tuple(arch.choices.get(f"s0.b{b}.gate") for b in range(1, space.depth - 1))
        seen.add((running, arch.choices["s0.depth"], gates))
    assert len(seen) == len({running for running, _, _ in seen}) == 2 ** (space.depth - 1)
    assert block_active_when(0, 0, depths) == ()


def test_a_skipped_block_leaves_its_input_unchanged():
    """Bypassing a block equals keeping it with a residual branch that adds nothing."""
    space = space_for("mobilenet", "3MFLOPs", DataShape(1, 8, 10))
    values = dict(space.largest().choices)
    with_block, without = space.architecture(values), space.architecture(_without_block(values, "s0.b1"))
    full, small = randomize_norms(space.network(with_block)).eval(), space.network(without).eval()
    torch.nn.init.zeros_(full.stages[0].get_submodule("1").project.norm.weight)
    torch.nn.init.zeros_(full.stages[0].get_submodule("1").project.norm.bias)
    small.load_state_dict({n: t for n, t in full.state_dict().items() if not n.startswith("stages.0.1.")})
    x = images(4, 1, 8, 8)
    assert torch.equal(full(x), small(x))


def _without_block(values, block):
    kept = {n: v for n, v in values.items() if not n.startswith(f"{block}.")}
    return {**kept, f"{block}.gate": "skip"}


def test_small_images_get_a_stem_of_stride_one():
    macro = SPACES["mobilenet"].macros[0]
    assert strides(8, macro) == (1, (1, 2, 1, 1, 1))
    assert strides(32, macro) == (1, (1, 2, 2, 1, 2))
    assert strides(224, macro) == (2, (2, 2, 2, 1, 2))


def test_kernels_do_not_exceed_the_map():
    space = space_for("mobilenet", "3MFLOPs", DataShape(1, 8, 10))
    assert [max(k) for k in space.kernels] == [7, 7, 3]


def test_options_are_ordered_and_distinct():
    space = space_for("mobilenet", "3MFLOPs", DataShape(1, 8, 10), kernels=(5, 3, 5), expansions=(4, 2), resolutions=(8, 6))
    assert space.kernels[0] == (3, 5) and space.expansions == (2, 4) and space.resolutions == (6, 8)
    assert space_for("mobilenet", "3MFLOPs", DataShape(1, 8, 10), kernels=(7,)).kernels[-1] == (7,)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("mobilenet", {"kernels": (3, 4)}, "kernels holds 4; choose positive odd numbers"),
        ("mobilenet", {"expansions": (1.5,)}, "expansions holds 1.5; choose positive whole numbers"),
        ("resnet", {"resolutions": (0,)}, "resolutions holds 0"),
        ("resnet", {"widen": 0.0}, "widen=0.0"),
        ("resnet", {"ratios": (-1.0,)}, "choose positive numbers"),
        ("fbnet", {"width": -1.0}, "width=-1.0 is negative"),
    ],
)
def test_numbers_out_of_range_are_refused(name, options, said):
    with pytest.raises(InvalidSetting, match=said):
        space_for(name, **options)


def test_an_unknown_block_type_is_refused():
    with pytest.raises(InvalidSetting, match="block='dense' is not known; choose one of basic, bottleneck"):
        space_for("resnet", block="dense")
