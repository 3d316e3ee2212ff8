"""`nas export` of a network of the user's own: every format is opened again, and what fails leaves nothing behind."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from own_network import TINY
from typer.testing import CliRunner

from compress.export import ExportFormat
from compress.more_formats import EXPORTS
from nas.cli import exporting
from nas.cli.main import app
from nas.cli.sources import module_of


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A network of the user's own in the working directory, and its weights."""
    (tmp_path / "tiny_net.py").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    module = module_of("python:tiny_net:tiny").eval()
    torch.save(module.state_dict(), "weights.pt")
    return module


def export(*args):
    return CliRunner().invoke(app, ["export", "python:tiny_net:tiny", *map(str, args)])


@pytest.mark.parametrize("name", EXPORTS)
def test_every_format_gives_the_same_answers(weights, name):
    out = Path(f"model{EXPORTS[name].suffix}")
    result = export("--weights", "weights.pt", "--data", "digits", "--format", name, "--out", out, "--json")
    if "needs the package" in result.stderr:
        pytest.skip(result.stderr)
    assert result.exit_code == 0, result.stderr
    content = json.loads(result.stdout)
    assert (
        content["decided_agreement"] == 1.0
        and content["images"] == 64
        and content["compared_on"] == "real images"
        and out.is_file()
    )
    images = torch.rand(3, 1, 8, 8)
    assert torch.allclose(EXPORTS[name].load(out)(images), weights(images), atol=1e-4)


def test_the_file_needs_nothing_of_ours(weights):
    assert export("--weights", "weights.pt", "--shape", "1x8x8").exit_code == 0
    images = np.random.default_rng(0).random((2, 1, 8, 8), dtype=np.float32)
    session = onnxruntime.InferenceSession("python-tiny_net-tiny.onnx")
    (logits,) = session.run(["logits"], {"images": images})
    with torch.no_grad():
        assert np.allclose(logits, weights(torch.from_numpy(images)).numpy(), atol=1e-4)


def test_a_file_that_answers_otherwise_is_not_left_behind(weights, monkeypatch):
    onnx = EXPORTS["onnx"]
    wrong = ExportFormat(".onnx", onnx.write, lambda path: lambda images: -onnx.load(path)(images))
    monkeypatch.setattr(exporting, "EXPORTS", {"onnx": wrong})
    result = export("--shape", "1x8x8", "--out", "model.onnx")
    assert result.exit_code == 4 and "onnx gives other answers than the network" in result.stderr
    assert not Path("model.onnx").exists()


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--format", "tflite"], "--format 'tflite' is not known; choose one of onnx, pt2"),
        (["--shape", "3x8x8"], "does not run on images of 3x8x8"),
        (["--weights", "none.pt", "--shape", "1x8x8"], "cannot read weights 'none.pt'"),
        (["--out", "model"], "--out 'model': files of onnx end in .onnx; give 'model.onnx'"),
        (["--out", ""], "--out '.': files of onnx end in .onnx; give 'model.onnx'"),
    ],
)
def test_what_a_user_may_get_wrong(weights, args, expected):
    result = export(*args)
    assert result.exit_code == 2 and expected in result.stderr
