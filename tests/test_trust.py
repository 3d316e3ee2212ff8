"""Code that the files of a run name is imported only if the user named it, confirmed it, or ran it before."""

import json
import os
import shutil
from pathlib import Path

import pytest
from own_network import QUICK, TINY
from typer.testing import CliRunner

from nas.cli import trust
from nas.cli.main import app
from nas.errors import UntrustedCode

EVIL = "open('executed', 'w')\nimport torch.nn as nn\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"


def nas(*args):
    return CliRunner().invoke(app, list(map(str, args)))


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """An empty state folder."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """A run of a stranger, and the file that it names."""
    home = tmp_path_factory.mktemp("pruned")
    (home / "strange_net.py").write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("XDG_STATE_HOME", str(home / "stranger"))
        result = nas("prune", "python:strange_net:tiny", "--budget", "50%", *QUICK, "--out", "run")
        assert result.exit_code == 0, result.stderr
    return home


@pytest.fixture
def hostile(pruned, tmp_path, monkeypatch):
    """A copy of the run whose function executes something when it is imported."""
    shutil.copytree(pruned / "run", tmp_path / "work/run")
    monkeypatch.chdir(tmp_path / "work")
    Path("hostile_net.py").write_text(EVIL + TINY)
    for path in Path("run").rglob("*.json"):
        path.write_text(path.read_text().replace("strange_net", "hostile_net"))
    return tmp_path / "work"


def key_of(run):
    return json.loads((run / "summary.json").read_text())["best"]["key"]


@pytest.mark.parametrize(
    "args",
    [
        ("cost", "run"),
        ("verify", "run"),
        ("verify", "run", "--no-score"),
        ("export", "run", "--out", "x.onnx"),
        ("prune", "--resume", "--out", "run"),
        ("prune", "run", "--budget", "50%", "--data", "digits", "--out", "other"),
        ("quantize", "run", "--data", "digits", "--out", "other"),
    ],
)
def test_no_command_imports_what_the_files_of_a_run_name(hostile, args):
    # the digests of files that were changed by the stranger are the stranger's, too
    verdict = json.loads(Path("run/best/verify.json").read_text())
    verdict.pop("files")
    Path("run/best/verify.json").write_text(json.dumps(verdict))
    result = nas(*args)
    assert result.exit_code == 2 and "--trust-code hostile_net:tiny" in result.stderr, result.output
    assert not Path("executed").exists()


def test_report_and_extract_execute_nothing(hostile):
    Path("run/layers.json").unlink()
    assert nas("report", "run").exit_code == 0
    for args in (("watch", "run", "--once"), ("diff", "run", "run"), ("extract", "run", key_of(Path("run")))):
        nas(*args)
    assert not Path("executed").exists()


def test_what_is_confirmed_is_imported_and_remembered(pruned, tmp_path, monkeypatch):
    shutil.copytree(pruned, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    assert nas("cost", "run").exit_code == 2
    assert nas("cost", "run", "--trust-code", "strange_net:tiny").exit_code == 0
    assert nas("cost", "run").exit_code == 0
    assert nas("verify", "run", "--no-score").exit_code == 0
    Path("strange_net.py").write_text(TINY + "\n# another file\n")
    changed = nas("cost", "run")
    assert changed.exit_code == 2 and "--trust-code strange_net:tiny" in changed.stderr
    assert nas("cost", "run", "--trust-code", "strange_net:wide").exit_code == 2


def test_another_function_of_the_same_file_is_another_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("two_nets.py").write_text(TINY)
    assert nas("cost", "python:two_nets:tiny", "--shape", "1x8x8").exit_code == 0
    trust.require("two_nets:tiny")
    with pytest.raises(UntrustedCode):
        trust.require("two_nets:wide")


def test_a_helper_that_changed_is_asked_for_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("helped_net.py").write_text("import own_helper\n" + TINY)
    Path("own_helper.py").write_text("x = 1\n")
    assert nas("cost", "python:helped_net:tiny", "--shape", "1x8x8").exit_code == 0
    trust.require("helped_net:tiny")
    Path("own_helper.py").write_text("open('executed', 'w')\n")
    with pytest.raises(UntrustedCode):
        trust.require("helped_net:tiny")


def test_modules_are_found_without_being_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.makedirs("pack/inner")
    for path in ("pack/__init__.py", "pack/inner/__init__.py", "pack/inner/net.py"):
        Path(path).write_text("open('executed', 'w')\n")
    assert trust.file_of("pack.inner.net") == tmp_path / "pack/inner/net.py"
    assert trust.file_of("no_such_module") is None and trust.file_of("sys") is None
    assert not Path("executed").exists()


@pytest.mark.parametrize("content", [b"", b"[1, {}]", b'{"a": 1}', b'[{"a": 1}]', b"\xff"])
def test_a_spoiled_state_file_trusts_nothing(content):
    trust.state_file().parent.mkdir(parents=True)
    trust.state_file().write_bytes(content)
    with pytest.raises(UntrustedCode):
        trust.require("a:b")
