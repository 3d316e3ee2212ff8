"""How training images are varied, in every command that trains: own data are not mirrored unless that is asked for."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from nas.cli import telling
from nas.cli.job import configuration, make_job
from nas.cli.main import app
from nas.cli.pruning import flow as pruning
from nas.cli.pruning.job import make_prune_job, prune_configuration
from nas.cli.pruning.settings import PruneSettings
from nas.cli.quantizing import flow as quantizing
from nas.cli.quantizing.job import make_quantize_job, quantize_configuration
from nas.cli.quantizing.settings import QuantizeSettings
from nas.cli.recipe import read_recipe
from nas.cli.settings import Settings, of_run
from nas.cli.telling import augmentation_line
from nas.rundir import RunDir

NETWORK = "cifar-resnet20"
REMEDY = "; --flip if a mirrored image keeps its class"


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Own data of 32 pixels, two classes."""
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(40) % 2
    np.savez("own.npz", train_images=images, train_labels=labels, test_images=images[:4], test_labels=labels[:4])
    return "npz:own.npz"


def searched(data, **wanted):
    chosen = {"space": "convnet", "epochs": 1}  # nothing is trained for the choice
    job = make_job(Settings(budget=("3MFLOPs",), data=data, device="cpu", threads=1, **chosen, **wanted))
    return job, configuration(job, "search")


def pruned(data, **wanted):
    settings = PruneSettings(network=NETWORK, budget=("50%",), data=data, device="cpu", threads=1, **wanted)
    job = make_prune_job(settings)
    return job, prune_configuration(job)


def quantized(data, **wanted):
    settings = QuantizeSettings(network=NETWORK, method="qat", data=data, device="cpu", threads=1, **wanted)
    job = make_quantize_job(settings)
    return job, quantize_configuration(job)


@pytest.mark.parametrize("made", [searched, pruned, quantized])
def test_own_data_are_mirrored_only_where_that_is_asked_for(own, made):
    job, config = made(own)
    shift = 2 if made is searched else 4  # a search trains for a shorter time
    assert config["augmentation"] == {"crop_padding": shift, "flip": False, "cutout": 0, "mixup": 0.0, "classes": 2}
    expected = f"training images: shifted by up to {shift} pixels, no mirroring"
    assert augmentation_line(job.data, job.augmentation, job.settings.flip) == expected + REMEDY
    job, config = made(own, flip=True, crop=2, cutout=8)
    assert config["augmentation"] == {"crop_padding": 2, "flip": True, "cutout": 8, "mixup": 0.0, "classes": 2}
    line = augmentation_line(job.data, job.augmentation, job.settings.flip)
    assert line == "training images: shifted by up to 2 pixels, mirrored at random, a square of 8 pixels hidden"
    job, _ = made(own, flip=False)
    assert augmentation_line(job.data, job.augmentation, job.settings.flip) == expected


@pytest.mark.parametrize(("made", "flow"), [(pruned, pruning), (quantized, quantizing)])
def test_it_is_said_first_where_something_is_trained(own, made, flow, monkeypatch):
    said = []
    monkeypatch.setattr(telling, "log", said.append)
    job, _ = made(own)
    flow.describe(job)
    assert sum(line.startswith("training images: ") for line in said) == 1
    untrained = {"method": "ptq"} if made is quantized else {"finetune_epochs": 0}
    flow.describe(replace(job, settings=replace(job.settings, **untrained)))
    assert sum(line.startswith("training images: ") for line in said) == 1


def test_the_options_are_those_of_every_command_that_trains():
    for command in ("search", "train", "prune", "quantize"):
        shown = CliRunner().invoke(app, [command, "--help"]).output
        assert all(option in shown for option in ("--flip", "--no-flip", "--crop", "--cutout", "--mixup")), command


def test_a_recipe_says_it_too(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('network = "resnet18"\nflip = true\ncrop = 3\n[[pass]]\nname = "prune"\nbudget = "50%"\n')
    settings = read_recipe(path).steps[0].settings("resnet18", None)
    assert settings.flip is True and settings.crop == 3


def test_a_run_of_before_there_were_the_options_goes_on_as_it_was(own):
    _, config = searched(own, flip=True)
    for name in ("flip", "crop"):
        del config["options"][name]
    Path("old").mkdir()
    Path("old/config.json").write_text(json.dumps(config))
    settings = of_run(RunDir.read(Path("old")), Settings)
    assert settings.flip is True and settings.crop == 2
