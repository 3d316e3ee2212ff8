"""Files that are no weights: each is called by its kind, and torch's advice to load it unsafely is not passed on."""

import pickle
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from compress.prune.sources import load_into, read_weights
from nas.errors import InvalidSetting


def refusal(path):
    with pytest.raises(InvalidSetting) as caught:
        read_weights(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


@pytest.mark.parametrize("content", [b"PK", b"not weights at all", b"\x80\x02broken pickle", bytes(100)])
def test_other_files(content, tmp_path):
    (tmp_path / "w.pt").write_bytes(content)
    message = refusal(tmp_path / "w.pt")
    assert "is neither a safetensors file nor a state dict" in message and "weights_only" not in message


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12\n", "a Git LFS pointer"),
        (b"\n<!DOCTYPE html>\n<html><title>Sign in</title>", "a web page (HTML)"),
        (b"<HTML><BODY>404</BODY></HTML>", "a web page (HTML)"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML"),
        (b'{"error": "not found"}', "JSON text"),
        (b'{\n  "weight_map": {}}', "JSON text"),
        (b"\x1f\x8b\x08\x00aaaaaaaa", "a compressed file"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    ],
)
def test_files_of_other_kinds_are_called_by_their_kind(content, kind, tmp_path):
    (tmp_path / "w.pth").write_bytes(content)
    message = refusal(tmp_path / "w.pth")
    assert f"is {kind}" in message and "holds no weights" in message


def test_archives_of_other_kinds(tmp_path):
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"script/{name}", b"1")
    assert "is a TorchScript program" in refusal(tmp_path / "script.pt")
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),)), tmp_path / "m.pt2")
    assert "is an archive without a state dict" in refusal(tmp_path / "m.pt2")
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        archive.writestr("resnet.pth", b"1")
    assert "it holds resnet.pth" in refusal(tmp_path / "many.zip")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"model": {"a": np.ones(2)}}))
    assert "weights_only" not in refusal(tmp_path / "plain.pkl")


@pytest.mark.parametrize(
    ("wrapped", "key"),
    [
        (lambda state: (state, {"epoch": 3}), "0"),
        (lambda state: [3, None, {"model": state}], "2.model"),
        (lambda state: {"checkpoint": {"runner": {"model": {"state_dict": state}}}}, "checkpoint.runner.model.state_dict"),
    ],
)
def test_weights_deep_within_other_things(wrapped, key, tmp_path):
    whole, other = nn.Linear(3, 2), nn.Linear(3, 2)
    torch.save(wrapped(whole.state_dict()), tmp_path / "w.pt")
    (line,) = load_into(other, tmp_path / "w.pt", "")
    assert f"took {key!r}" in line and torch.equal(other.weight, whole.weight)


def test_a_nest_without_end_is_no_state_dict(tmp_path):
    content = {"a": torch.zeros(2)}
    for _ in range(40):
        content = {"x": content}
    torch.save(content, tmp_path / "w.pt")
    assert "no tensors by name" in refusal(tmp_path / "w.pt")
