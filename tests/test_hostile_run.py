"""A run directory of a stranger, hostile in every file, opened by every command: nothing is executed or written outside."""

import hashlib
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
from test_cli import run, save_npz
from test_pt2 import Touch

SEARCH = ("search", "--budget", "300kFLOPs", "--space", "resnet", "--data", "npz:tiny.npz", "--epochs", "1", "--trials", "3")
COMMANDS = {
    "verify": ("verify", "run"),
    "verify without scores": ("verify", "run", "--no-score"),
    "extract": ("extract", "run", "../../x"),
    "extract a path": ("extract", "run", "escaped", "--out", "there"),
    "report": ("report", "run"),
    "watch": ("watch", "run", "--once"),
    "diff": ("diff", "run", "run"),
    "cost": ("cost", "run"),
    "cost of a trial": ("cost", "run:escaped"),
    "export": ("export", "run", "--out", "x.onnx"),
    "resume": ("search", "--resume", "--out", "run"),
    "prune": ("prune", "run", "--budget", "50%", "--data", "npz:tiny.npz", "--out", "cut"),
    "supernet": ("search", "--budget", "300kFLOPs", "--supernet", "run", "--out", "again"),
}


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A run of a stranger."""
    home = tmp_path_factory.mktemp("searched")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        save_npz("tiny.npz")
        assert run(*SEARCH, "--finetune-epochs", "0", "--no-baseline", "--out", "run").exit_code == 0
    return home


def edited(path, change):
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    values = [json.loads(line) for line in lines]
    for value in values:
        change(value)
    path.write_text("\n".join(map(json.dumps, values)) + "\n")


def keys_lead_out(folder):
    for name in ("trials.jsonl", "summary.json", "best/architecture.json"):
        text = (folder / name).read_text()
        key = json.loads((folder / "best/architecture.json").read_text())["key"]
        if name != "best/architecture.json":
            (folder / name).write_text(text.replace(key, "../../escaped"))
    edited(folder / "best/architecture.json", lambda value: value.update(key="../../escaped"))


def data_are_elsewhere(folder):
    def change(value):
        value["options"].update(data="npz:../outside.npz", data_dir="../made")

    edited(folder / "config.json", change)


def network_is_code(folder):
    (folder / "source.json").write_text(json.dumps({"network": "python:hostile:net", "classes": 3, "shape": [1, 8, 8]}))
    edited(folder / "config.json", lambda value: value["options"].update(space="python:hostile:net"))


def archive_unpickles(folder):
    path = folder / "best/model.pt2"
    with zipfile.ZipFile(path) as content:
        members = {info.filename: content.read(info) for info in content.infolist()}
    first = next(iter(members)).partition("/")[0]
    members[f"{first}/data/sample_inputs/model.pt"] = pickle.dumps(Touch(folder.parents[1] / "executed"))
    with zipfile.ZipFile(path, "w") as content:
        for name, data in members.items():
            content.writestr(name, data)
    digests = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (folder / "best").iterdir()}

    def change(value):
        value["files"] = {name: digests[name] for name in value["files"]}

    edited(folder / "best/verify.json", change)


def checkpoint_leads_out(folder):
    pointer = next((folder / "checkpoint").glob("*.json"))
    edited(pointer, lambda value: value.update(file="../../../outside.safetensors"))


def links_lead_out(folder):
    (folder / "report.html").unlink()
    (folder / "report.html").symlink_to(folder.parents[1] / "outside.html")


# with the commands that come near to what it attacks; all commands were run on all of them when this was written
ATTACKS = {
    keys_lead_out: ("extract", "extract a path", "cost of a trial", "report"),
    data_are_elsewhere: ("verify", "resume"),
    network_is_code: ("cost", "resume"),
    archive_unpickles: ("verify",),
    checkpoint_leads_out: ("supernet", "resume"),
    links_lead_out: ("report", "watch"),
}


@pytest.fixture
def hostile(searched, tmp_path, monkeypatch):
    """Where the run lies, beside code that its files name."""
    shutil.copytree(searched, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    Path("hostile.py").write_text("open('executed', 'w')\ndef net():\n    raise SystemExit\n")
    return tmp_path / "work"


def outside(home):
    """All files beside the run and what commands were told to write."""
    own = ("run", "x.onnx", "cut", "again", "there")
    found = (p.relative_to(home.parent) for p in home.parent.rglob("*"))
    return {p for p in found if p.parts[:2] not in {("work", name) for name in own} and "__pycache__" not in p.parts}


@pytest.mark.parametrize(("attack", "name"), [(a, name) for a, names in ATTACKS.items() for name in names])
def test_no_command_executes_or_writes_outside(hostile, attack, name):
    attack(hostile / "run")
    before = outside(hostile)
    result = run(*COMMANDS[name])
    assert result.exit_code in (0, 2, 4, 5), (result.output, result.exception)
    assert "Traceback" not in result.output
    assert outside(hostile) == before
