"""Networks of the user's own code: what `python:MODULE:NAME` takes, and what is said where one does not run."""

import pytest
import torch
from typer.testing import CliRunner

from nas.cli.main import app
from nas.cli.pruning.original import read_original
from nas.cli.pruning.settings import PruneSettings
from nas.cli.sources import build, module_of
from nas.errors import InvalidSetting

OWN = """
import torch
import torch.nn as nn

def body(classes=10):
    convolution = nn.Sequential(nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU())
    return nn.Sequential(*convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes))

network = body()

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = body()

class Two(Net):
    def forward(self, x, table):
        return self.body(x) + table

class Half(Net):
    def forward(self, x):
        return self.body(x.half())

class Single(Net):
    def forward(self, x):
        return self.body(x.view(1, 1, 8, 8))

class Broken(Net):
    def forward(self, x):
        return self.nothing(x)

class Large(Net):
    def forward(self, x):
        return self.body(x[:, :, :4, :4].reshape(-1, 3, 8, 8))

class Cached(Net):
    def __init__(self):
        super().__init__()
        self.cache = self.body[0].weight * 2

    def forward(self, x):
        return self.body(x)

class Pair(Net):
    def forward(self, x):
        y = self.body(x)
        return y, y.relu(), self.body(-x)

class Map(Net):
    def forward(self, x):
        return self.body(x)[:, :, None, None]

class Several(Net):
    def forward(self, x):
        f = self.body[:5](x)
        return {"features": f, "scores": self.body[5](f)}

def wrapped():
    return nn.DataParallel(body())

def lazy():
    return nn.Sequential(nn.LazyConv2d(16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(10))

def trained():
    module = body()
    for name, p in module.named_parameters():
        nn.init.constant_(p, 0.1 + len(name))
    return module
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_net.py").write_text(OWN)
    return tmp_path


def original(name):
    return read_original(PruneSettings(network=f"python:own_net:{name}", shape="1x8x8"), None)


def refusal(name):
    with pytest.raises(InvalidSetting) as caught:
        original(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_module_object_is_taken_and_left_as_it_is(folder):
    first, second = module_of("python:own_net:network"), module_of("python:own_net:network")
    assert first is not second and torch.equal(first[0].weight, second[0].weight)
    first[0].weight.data.zero_()
    assert module_of("python:own_net:network")[0].weight.any()


def test_names_that_are_not_there_have_the_nearest(folder):
    assert "own_net has no 'boddy'; it has body" in refusal("boddy")
    (folder / "script.py").write_text("import argparse\nargparse.ArgumentParser().parse_args(['--x'])\n")
    with pytest.raises(InvalidSetting, match="cannot be made .SystemExit: 2 at "):
        module_of("python:script:net")


@pytest.mark.parametrize("name", ["wrapped", "lazy", "network"])
def test_networks_are_the_same_when_they_are_built_again(folder, name):
    made = original(name)
    again = build(made.source)
    assert {n: t.shape for n, t in again.state_dict().items()} == {n: t.shape for n, t in made.module.state_dict().items()}


def test_one_of_several_outputs_is_taken(folder, capsys):
    made = original("Several")
    assert "of its outputs (features: (2, 16), scores: (2, 10)) 'scores' is taken for the logits" in capsys.readouterr().err
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(made.module(x), made.module.network(x)["scores"])
    assert build(made.source)(x).shape == (2, 10)


def test_a_network_that_brings_its_weights_is_trained(folder):
    made = original("trained")
    assert made.trained and torch.equal(made.module[1].running_mean, torch.zeros(16))
    assert not original("body").trained


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("Two", "'table'); its forward takes more than images: give a module that holds the other inputs"),
        ("Half", "in the type of the images, which are fp32: x.dtype, not .half()"),
        ("Single", "it runs on one image, not on two: let its forward take any number of images, x.shape[0]"),
        ("Broken", "no attribute 'nothing' at "),
        ("Broken", "mend its forward"),
        ("Large", "choose another --shape"),
        ("Cached", "cache was computed with gradients: store it detached, or compute it in forward"),
        ("Pair", "which of them are the logits (2, classes) is not known; give a module around it with"),
        ("Map", "gives (2, 10, 1, 1) for two images; expected logits (2, classes): end it with a flatten: y.flatten(1)"),
    ],
)
def test_remedies_fit_what_is_wrong(folder, name, remedy):
    said = refusal(name)
    assert remedy in said
    assert ("--shape" in said) == (name == "Large")


def test_costs_of_lazy_and_wrapped_networks(folder):
    for name in ("lazy", "wrapped", "network"):
        result = CliRunner().invoke(app, ["cost", f"python:own_net:{name}", "--shape", "1x8x8", "--json"])
        assert result.exit_code == 0 and '"macs"' in result.stdout, result.output
