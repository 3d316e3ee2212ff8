"""What is passed on has no absolute paths of the user's machine, and the key of a network no path at all."""

from pathlib import Path

import pytest
import report_run
import torch

from nas.cli.deliver import write_card
from nas.cli.pruning.original import Original
from nas.report.contents import read_contents
from nas.report.portable import near, near_values, without_paths
from nas.report.write import report_files

FOLDER = Path("/home/somebody/work/run/best")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("npz:/home/somebody/work/data.npz", "npz:../../data.npz"),
        ("/home/somebody/runs/search-1", "../../../runs/search-1"),
        ("/mnt/secret/project/data.npz", "data.npz"),
        ("--out=/mnt/secret/run", "--out=run"),
        ("python:net:make", "python:net:make"),
        ("runs/search-1", "runs/search-1"),
        ("50%", "50%"),
        ("/", "/"),
    ],
)
def test_a_path_is_told_from_nearby(text, shown):
    assert near(text, FOLDER) == shown
    assert near_values({"a": [text, 1], "b": (text,)}, FOLDER) == {"a": [shown, 1], "b": [shown]}


def test_paths_of_a_command_line_are_found_in_a_page():
    config = {"argv": "nas prune '/mnt/my data/run' --data npz:/mnt/secret/x.npz", "options": {"weights": "/mnt/secret/w.pt"}}
    page = without_paths(f"{config['argv']} and /mnt/secret/w.pt", config, FOLDER)
    assert page == "nas prune 'run' --data npz:x.npz and w.pt"


def test_neither_card_nor_report_has_them(tmp_path):
    data = {**report_run.config()["data"], "name": "npz:/mnt/secret/photos.npz"}
    options = {"data": "npz:/mnt/secret/photos.npz", "table": "/mnt/secret/table.csv"}
    argv = "nas search --data npz:/mnt/secret/photos.npz --table /mnt/secret/table.csv"
    with report_run.start(tmp_path / "run", data=data, options=options, argv=argv) as run:
        summary = {**report_run.finish(run), "original": {"name": "/mnt/secret/run", "metrics": {}}}
        write_card(run.path / "best", summary, run.config, {})
        files = report_files(read_contents(run))
    pages = [files["report.html"].decode(), files["report.md"].decode(), (run.path / "best/README.md").read_text()]
    assert all("secret" not in page and "photos.npz" in page for page in pages)


def test_the_key_of_a_network_does_not_depend_on_where_its_run_lies():
    def identity(source):
        return Original("x", torch.nn.Flatten(), (1, 2, 2), source).identity

    assert identity({"network": "torchvision:resnet18"}) == "torchvision:resnet18"
    here, there = ({"architecture": {"space": "s-1", "choices": {"a": 1}}, "network": name} for name in ("run", "other"))
    assert identity(here) == identity(there)
    history = {"blocks": [], "cuts": []}
    assert identity({"pruned": here, "history": history}) == identity({"pruned": there, "history": history})
    assert identity({"pruned": here, "history": {"blocks": ["b"], "cuts": []}}) != identity(
        {"pruned": here, "history": history}
    )
