"""The normalization of networks that users bring: who says what it is, and a warning where the images tell otherwise."""

import pytest
import torch
from torch import nn

from compress.prune.cifar_resnet import MEAN, STD
from nas.cli.existing import data_for
from nas.cli.normalization import Normalization, advice, better, expected, fitting, given
from nas.cli.pruning.original import Original
from nas.cli.pruning.settings import PruneSettings
from nas.data.dataset import ArraySplit, Dataset
from nas.errors import InvalidSetting

CPU = torch.device("cpu")


class Threshold(nn.Module):
    """Tells bright images from dark ones by a threshold that holds for one normalization alone."""

    def __init__(self, mean, std):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.threshold = (0.5 - mean) / std

    def forward(self, x):
        y = (x.mean((1, 2, 3)) - self.threshold) * self.weight
        return torch.stack([-y, y], 1)


def dataset(number=300, channels=3):
    """Images that are bright or dark about 0.5; the data's own mean is far from that."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(number) % 2
    images = (119 + 13 * labels)[:, None, None, None] + torch.randint(0, 6, (number, channels, 4, 4), generator=draw)
    split = ArraySplit(images.to(torch.uint8), labels)
    three, names = (0.6,) * channels, ("dark", "bright")
    return Dataset("npz:own.npz", split, split, lambda: split, names, channels, 4, three, (0.2,) * channels, False, "f")


def settings(**values):
    return PruneSettings(network="x", **values)


def test_what_is_given_is_read():
    assert given(settings(), 3) is None
    found = given(settings(mean="0.5", std="0.1,0.2,0.3"), 3)
    assert (found.mean, found.std, found.origin) == ((0.5, 0.5, 0.5), (0.1, 0.2, 0.3), "--mean and --std")


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ("0.5", None, "--mean and --std go together"),
        (None, "0.5", "--mean and --std go together"),
        ("a,b", "1", "--mean 'a,b': expected numbers between commas"),
        ("0.1,0.2", "1", "--mean '0.1,0.2': expected one number, or 3 for the channels"),
        ("0", "nan", "--std 'nan': expected one number"),
        ("0", "0", "--std '0': expected positive numbers"),
    ],
)
def test_what_cannot_be_is_refused(mean, std, message):
    with pytest.raises(InvalidSetting, match=message.replace("(", r"\(")):
        given(settings(mean=mean, std=std), 3)


def test_networks_say_what_they_expect():
    module = nn.Identity()
    assert expected("python:a:b", module) is None
    assert expected("torchvision:resnet18", module).mean == MEAN and expected("cifar-resnet20", module).std == STD
    module.pretrained_cfg = {"mean": [0.5], "std": (0.25,), "url": ""}
    assert expected("python:a:b", module) == Normalization((0.5,), (0.25,), "the network's pretrained_cfg")
    module.pretrained_cfg = {"mean": "none", "std": (0.25,)}
    with pytest.raises(InvalidSetting, match="pretrained_cfg has mean 'none'"):
        expected("python:a:b", module)


def test_other_channels_take_the_data_s_own():
    data = dataset(channels=1)
    assert fitting(Normalization(MEAN, STD, ""), data).origin == fitting(None, data).origin == "the data's own"


@pytest.mark.parametrize(
    ("mean", "std", "origin"),
    [(sum(MEAN) / 3, sum(STD) / 3, "ImageNet's"), (0.5, 0.5, "pixels in -1..1"), (0.0, 1.0, "pixels in 0..1")],
)
def test_a_clearly_better_normalization_is_found(mean, std, origin):
    data = dataset()
    used = fitting(None, data)
    other, before, after = better(Threshold(mean, std).eval(), data, used, 1e3)
    assert other.origin == origin and after > 0.95 and before < 0.6
    assert f"give --mean {','.join(f'{v:.6g}' for v in other.mean)} --std " in advice("net", used, (other, before, after))


def test_no_warning_where_it_fits_or_nothing_does():
    data = dataset()
    used = Normalization((0.5,) * 3, (0.5,) * 3, "--mean and --std")
    assert better(Threshold(0.5, 0.5).eval(), data, used, 1e3) is None
    assert better(Threshold(100.0, 1.0).eval(), data, used, 1e12) is None


def test_it_is_said_and_obeyed(capsys):
    module = Threshold(0.5, 0.5).eval()
    original = Original("python:own:net", module, (3, 4, 4), {}, None, trained=True)
    data = data_for(original, dataset(), CPU)
    said = capsys.readouterr().err
    assert "images are normalized with mean 0.6, 0.6, 0.6 and deviation 0.2, 0.2, 0.2 (the data's own)" in said
    assert "warning: python:own:net is 5" in said and "give --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5" in said
    assert data.mean == (0.6,) * 3
    used = Normalization((0.5,) * 3, (0.5,) * 3, "--mean and --std")
    data = data_for(Original("python:own:net", module, (3, 4, 4), {}, used, trained=True), dataset(), CPU)
    assert data.mean == (0.5,) * 3 and "warning" not in capsys.readouterr().err
