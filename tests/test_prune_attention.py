import pytest
import torch
import torch.nn as nn
import torchvision.models as tv
from networks import images

from compress.prune.attention import SelfAttention, prepare
from compress.prune.dependencies import analyse, cut, remove
from compress.prune.groups import IN, OUT, Cut, Member
from compress.prune.slices import silenced
from nas.cost.counting import count
from nas.cost.recount import recount
from nas.cost.trace import trace
from nas.errors import InvalidSetting
from nas.torch_seeding import generator


def build():
    """Two blocks, three heads of 16."""
    return tv.VisionTransformer(32, 8, 2, 3, 48, 96, num_classes=10).eval(), images(2, 3, 32, 32)


def test_unit_of_attention_is_a_head():
    module, x = build()
    groups = {group.name: group for group in analyse(module, x)}
    block = "encoder.layers.encoder_layer_1"
    heads = groups[f"{block}.self_attention.in_proj"]
    rows = tuple(tuple(part * 48 + head * 16 + i for part in range(3) for i in range(16)) for head in range(3))
    columns = tuple(tuple(head * 16 + i for i in range(16)) for head in range(3))
    assert heads.members == (
        Member(f"{block}.self_attention.in_proj", OUT, rows),
        Member(f"{block}.self_attention.out_proj", IN, columns),
    )
    assert groups[f"{block}.mlp.0"].width == 96 and groups["conv_proj"].width == 48
    smaller = cut(module, [Cut(heads.name, (1,)), Cut("conv_proj", (0, 7))], x)
    attention = smaller.get_submodule(f"{block}.self_attention")
    assert (attention.num_heads, attention.head_dim, attention.in_proj.weight.shape) == (2, 16, (96, 46))
    assert smaller(x).shape == (2, 10)


@pytest.mark.parametrize("batch_first", [True, False])
def test_self_attention_is_torchs(batch_first):
    torch_s = nn.MultiheadAttention(12, 3, batch_first=batch_first)
    nn.init.normal_(torch_s.in_proj_bias, generator=generator(0))
    holder = prepare(nn.ModuleDict({"attention": torch_s}))
    x = images(2, 5, 12)
    assert type(holder["attention"]) is SelfAttention and type(torch_s) is nn.MultiheadAttention
    torch.testing.assert_close(holder["attention"](x, x, x)[0], torch_s(x, x, x, need_weights=False)[0])
    other, padding = images(2, 7, 12, seed=1), torch.tensor([[False] * 4 + [True]] * 2)
    if not batch_first:
        x, other = x.transpose(0, 1), other.transpose(0, 1)
    for inputs, masks in (
        ((other, x, x), {"key_padding_mask": padding}),
        ((x, x, x), {"attn_mask": torch.ones(5, 5, dtype=torch.bool).triu(1), "key_padding_mask": padding}),
        ((x, x, x), {"attn_mask": torch.randn(5, 5, generator=generator(1))}),
    ):
        expected = torch_s(*inputs, need_weights=False, **masks)[0]
        torch.testing.assert_close(holder["attention"](*inputs, **masks)[0], expected)
    with pytest.raises(InvalidSetting, match="one of each head"):
        holder["attention"](x, x, x, attn_mask=torch.zeros(6, 5, 5))


class Encoded(nn.Module):
    """Patches through torch's encoder, as strangers write it."""

    def __init__(self, batch_first=True, **options):
        super().__init__()
        layer = nn.TransformerEncoderLayer(48, 3, 96, batch_first=batch_first, **options)
        self.patches, self.head = nn.Conv2d(3, 48, 8, 8), nn.Linear(48, 10)
        self.encoder = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(48), enable_nested_tensor=False)
        self.batch_first = batch_first

    def forward(self, x):
        x = self.patches(x).flatten(2).permute(*((0, 2, 1) if self.batch_first else (2, 0, 1)))
        return self.head(self.encoder(x).mean(1 if self.batch_first else 0))


@pytest.mark.parametrize(
    "options", [{}, {"norm_first": True, "activation": "gelu"}, {"batch_first": False, "activation": nn.SiLU(), "bias": False}]
)
def test_heads_and_widths_of_torchs_encoder(options):
    torch.manual_seed(0)
    module, x = Encoded(**options).eval(), images(2, 3, 32, 32)
    prepared = prepare(module)
    torch.testing.assert_close(prepared(x), module(x))
    agreed = count(trace(prepared, x))
    assert agreed.value("macs") == count(trace(module, x)).value("macs") == recount(prepared, x).value("macs")
    groups = analyse(module, x)
    block = {"self_attn.in_proj": 3, "linear1": 96}
    assert {g.name: g.width for g in groups} == {
        "patches": 48,
        **{f"encoder.layers.{i}.{name}": width for i in range(2) for name, width in block.items()},
    }
    chosen = [(group, (0, 2)) for group in groups if group.name != "patches"]
    smaller = remove(prepared, groups, [Cut(group.name, units) for group, units in chosen])
    torch.testing.assert_close(smaller(x), torch.func.functional_call(prepared, silenced(prepared, chosen), (x,)))
    assert prepare(module).training is module.training and prepare(module.train()).encoder.layers[1].dropout1.training


def test_attention_to_another_sequence_is_cut_in_heads():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.head = nn.Conv2d(3, 48, 8, 8), nn.Linear(48, 10)
            self.attention, self.query = nn.MultiheadAttention(48, 4, batch_first=True), nn.Parameter(torch.ones(1, 1, 48))

        def forward(self, x):
            x = self.patches(x).flatten(2).transpose(1, 2)
            return self.head(self.attention(self.query.expand(len(x), -1, -1), x, x, need_weights=False)[0][:, 0])

    module, x = Pooled().eval(), images(2, 3, 32, 32)
    torch.testing.assert_close(prepare(module)(x), module(x))
    heads = next(group for group in analyse(module, x) if group.name == "attention.in_proj")
    smaller = cut(module, [Cut(heads.name, (1,))], x)
    assert smaller.attention.num_heads == 3 and smaller(x).shape == (2, 10)


def test_heads_and_widths_of_timm():
    timm = pytest.importorskip("timm")
    options = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 48, "num_heads": 3, "num_classes": 10}
    module, x = timm.create_model("vit_tiny_patch16_224", **options).eval(), images(2, 3, 32, 32)
    groups = analyse(module, x)
    assert {g.name: g.width for g in groups} == {
        **{"patch_embed.proj": 48, "blocks.0.attn.qkv": 3, "blocks.0.mlp.fc1": 192},
        **{"blocks.1.attn.qkv": 3, "blocks.1.mlp.fc1": 192},
    }
    chosen = [(group, (0, 2)) for group in groups[1:]]
    smaller = remove(module, groups, [Cut(group.name, units) for group, units in chosen])
    torch.testing.assert_close(smaller(x), torch.func.functional_call(module, silenced(module, chosen), (x,)))
    assert cut(module, [Cut("patch_embed.proj", (0, 1))], x)(x).shape == (2, 10)
