"""A run's data are found from another folder, and where the user says that they were moved to."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from nas.cli.job import configuration, make_job
from nas.cli.main import app
from nas.cli.places import moved, places, require_data, stored_places
from nas.cli.pruning.job import make_prune_job, prune_configuration
from nas.cli.pruning.settings import PruneSettings
from nas.cli.recipe import at_places, read_recipe, recipe_places
from nas.cli.running import data_of, refuse_changes
from nas.cli.settings import Settings, of_run
from nas.errors import InvalidData, InvalidSetting
from nas.rundir import RunDir


@pytest.fixture
def made(tmp_path, monkeypatch):
    """The runs `search` and `prune` of here/own.npz, as they are at their start; the working folder is then another one."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(40) % 2
    np.savez("own.npz", train_images=images, train_labels=labels, test_images=images[:4], test_labels=labels[:4])
    data = {"data": "npz:own.npz", "device": "cpu", "threads": 1}
    job = make_job(Settings(budget=("3MFLOPs",), **data))
    RunDir.create("search", configuration(job, "search"), Path("search")).close()
    pruned = make_prune_job(PruneSettings(network="cifar-resnet20", budget=("50%",), finetune_epochs=0, **data))
    RunDir.create("prune", prune_configuration(pruned), Path("prune")).close()
    monkeypatch.chdir(tmp_path / "there")
    return tmp_path


def test_data_are_found_from_another_folder(made):
    search, prune = (RunDir.read(made / "here" / name) for name in ("search", "prune"))
    assert search.config["places"] == {"data": str(made / "here" / "own.npz")}
    job = make_job(of_run(search, Settings), search.path)
    assert job.data.name == "npz:own.npz" and configuration(job, "search")["places"] == search.config["places"]
    refuse_changes(search, configuration(job, "search"))
    refuse_changes(prune, prune_configuration(make_prune_job(of_run(prune, PruneSettings))))
    assert data_of(prune.config).fingerprint == job.data.fingerprint
    told = json.dumps({**search.config, "places": None, "argv": None})
    assert str(made) not in told  # what reports and cards are made of


def test_data_that_were_moved_are_read_where_the_user_says(made):
    run = RunDir.read(made / "here" / "search")
    (made / "here" / "own.npz").rename(made / "there" / "new.npz")
    with pytest.raises(InvalidData, match="'npz:own.npz' of the run are neither here nor where they were.*--data npz:PATH"):
        make_job(of_run(run, Settings), run.path)
    job = make_job(of_run(run, Settings, data="npz:new.npz"), run.path)
    refuse_changes(run, configuration(job, "search"))
    assert data_of(run.config, "npz:new.npz").fingerprint == job.data.fingerprint
    # a run that was moved with its data finds them as they were typed
    (made / "there" / "new.npz").rename(made / "there" / "own.npz")
    assert data_of(run.config).fingerprint == job.data.fingerprint


def test_other_data_are_refused(made):
    run = RunDir.read(made / "here" / "search")
    with np.load(made / "here" / "own.npz") as arrays:
        np.savez(made / "there" / "other.npz", **{**arrays, "train_labels": arrays["train_labels"][::-1]})
    job = make_job(of_run(run, Settings, data="npz:other.npz"), run.path)
    with pytest.raises(InvalidSetting, match="the data of .* changed since it was started"):
        refuse_changes(run, configuration(job, "search"))
    for args in (("search", "--resume", "--out", str(run.path)), ("extract", str(run.path), "0")):
        result = CliRunner().invoke(app, [*args, "--data", "imagefolder:photos"])
        assert result.exit_code == 2 and "Traceback" not in result.output
    result = CliRunner().invoke(app, ["search", "--resume", "--out", str(run.path), "--data", "npz:other.npz"])
    assert result.exit_code == 2 and "changed since it was started" in result.stderr


def test_what_is_no_place_is_refused():
    assert moved("npz:a.npz", "npz:/b.npz") == "/b.npz"
    for given in ("imagefolder:x", "digits", "npz:"):
        with pytest.raises(
            InvalidSetting, match="the run was made with 'npz:a.npz'; say where they are now, as --data npz:PATH"
        ):
            moved("npz:a.npz", given)
    with pytest.raises(InvalidSetting, match="the run was made with 'digits'; drop --data"):
        moved("digits", "cifar10")


def test_paths_as_they_were_typed_come_first_and_data_where_they_were(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("w.pt").touch()
    Path("x.npz").touch()
    options = {"weights": "w.pt", "data": "npz:x.npz", "data_dir": None, "table": "pixel3"}
    stored = places(options)
    assert stored == {"weights": str(tmp_path / "here" / "w.pt"), "data": str(tmp_path / "here" / "x.npz")}
    assert stored_places(options, stored) == {"data_at": stored["data"]}
    monkeypatch.chdir(tmp_path)
    assert stored_places(options, stored) == {"weights": stored["weights"], "data_at": stored["data"]}
    for damaged in (None, [], {"weights": 3, "data": None}):
        assert stored_places(options, damaged) == {}


def test_a_chain_is_resumed_from_another_folder_and_with_data_that_were_moved(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in ("w.pt", "x.npz"):
        Path(name).touch()
    passes = "".join(f'[[pass]]\nname = "{name}"\n{rest}\n' for name, rest in [("prune", 'budget = "50%"'), ("fine-tune", "")])
    Path("recipe.toml").write_text(f'network = "n"\nweights = "w.pt"\ndata = "npz:x.npz"\n{passes}')
    recipe = read_recipe(Path("recipe.toml"))
    stored = recipe_places(recipe)
    monkeypatch.chdir(tmp_path)
    there = at_places(recipe, stored, None)
    assert there.weights == str(tmp_path / "here" / "w.pt")
    assert there.steps[0].options["data_at"] == str(tmp_path / "here" / "x.npz")
    assert there.steps[1] == recipe.steps[1]  # which has the data of the prune before it
    assert at_places(recipe, stored, "npz:/y.npz").steps[0].options["data_at"] == "/y.npz"
    with pytest.raises(InvalidSetting, match="the run was made with 'npz:x.npz'"):
        at_places(recipe, stored, "csv:y.csv")
    assert at_places(recipe, "spoiled", None) == recipe
    result = CliRunner().invoke(app, ["compress", "--recipe", "here/recipe.toml", "--data", "npz:y.npz"])
    assert result.exit_code == 2 and "--data 'npz:y.npz' is for --resume" in result.stderr


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion-mnist"])
def test_a_file_of_a_run_alone_makes_no_download(tmp_path, name):
    with pytest.raises(InvalidData, match="nothing is downloaded that only a file of a run names"):
        require_data({"data": name, "data_dir": str(tmp_path)})
    assert not list(tmp_path.iterdir())
