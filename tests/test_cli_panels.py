"""Help by subject, its short form, completion, and `python -m nas`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from nas.cli.main import app
from nas.cli.panels import FEW, OTHERS, PANELS

COMMANDS = typer.main.get_command(app).commands
NAS = Path(sys.executable).with_name("nas")


def shown(name):
    result = CliRunner().invoke(app, [name, "-h"], terminal_width=140)
    assert result.exit_code == 0
    return result.output


def test_every_name_of_a_panel_is_an_option_of_some_command():
    known = {param.name for command in COMMANDS.values() for param in command.params}
    assert {name for names in PANELS.values() for name in names} <= known
    assert len({name for names in PANELS.values() for name in names}) == sum(map(len, PANELS.values()))


@pytest.mark.parametrize("name", COMMANDS)
def test_all_options_are_shown_once_under_their_headings(name):
    text = shown(name)
    lines = [line.split() for line in text.splitlines() if line.startswith("  -")]
    first = [words[0].strip(",") for words in lines]
    options = [param for param in COMMANDS[name].params if param.param_type_name == "option"]
    for param in options:
        assert sum(option.split("/")[0] in param.opts for option in first) == 1, param.name
    headings = [line[:-1] for line in text.splitlines() if line[:1].isalpha() and line.endswith(":")]
    assert [h for h in headings if h in PANELS] == [h for h in PANELS if h in headings]
    assert (OTHERS in headings) and (len(options) < FEW or len([h for h in headings if h in PANELS]) > 1)


def test_the_short_form_says_the_same():
    run = CliRunner().invoke
    assert run(app, ["prune", "-h"]).output == run(app, ["prune", "--help"]).output
    assert run(app, ["-h"]).output == run(app, ["--help"]).output


def test_python_m_nas_is_nas():
    result = subprocess.run([sys.executable, "-m", "nas", "cost", "-h"], capture_output=True, text=True, check=True)
    assert "Usage: " in result.stdout and "--shape" in result.stdout and not result.stderr


@pytest.mark.skipif(not NAS.is_file(), reason="the command nas is not installed beside this Python")
@pytest.mark.parametrize(("words", "expected"), [("nas pr", {"prune", "profile"}), ("nas prune --bud", {"--budget"})])
def test_the_shell_completes_commands_and_options(words, expected):
    env = {**os.environ, "_NAS_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    result = subprocess.run([str(NAS)], env=env, capture_output=True, text=True, check=True)
    assert set(result.stdout.split()) == expected
