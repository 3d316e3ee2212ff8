import pytest
import torch
import torch.nn as nn
import torchvision.models as tv
from networks import images

from compress.prune.attention import SelfAttention, prepare
from compress.prune.dependencies import analyse, cut, remove
from compress.prune.groups import IN, OUT, Cut, Member
from compress.prune.slices import silenced
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
    with pytest.raises(InvalidSetting, match="another sequence"):
        holder["attention"](x, x + 1, x + 1)


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
