import json
import sys
import zipfile

import onnx
import pytest
import torch
from torch import nn

from compress import export
from compress.agreement import agreement
from compress.export import FORMATS, load_format, write_files, write_format
from compress.stored import load_weights, save_weights
from nas import weights
from nas.errors import CorruptRun, VerificationFailed


class Net(nn.Module):
    """Convolution with random batch-norm statistics, so that every constant of the export matters."""

    def __init__(self, seed: int = 0, width: int = 8) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.conv = nn.Conv2d(3, width, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, 5)
        for tensor in self.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
        self.head.weight.data -= 0.6
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.hardswish(self.norm(self.conv(x)))
        return self.head(x.mean((2, 3)))


class Batchy(nn.Module):
    """A network that works for two images only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, -1)


def images(n: int = 37) -> torch.Tensor:
    return torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", FORMATS)
def test_exported_gives_the_logits_of_the_module_for_every_batch_size(name, tmp_path, capfd):
    module, path = Net(), tmp_path / f"model{FORMATS[name].suffix}"
    write_format(name, module, images(1), path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # self-contained
    loaded = load_format(name, path)
    for n in (1, 2, 37):
        with torch.no_grad():
            assert torch.allclose(loaded(images(n)), module(images(n)), rtol=1e-5, atol=1e-5)
    assert capfd.readouterr() == ("", "")


def test_onnx_has_the_promised_names_and_no_paths_of_this_machine(tmp_path):
    write_format("onnx", Net(), images(1), tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    onnx.checker.check_model(model)
    (source,), (result,) = model.graph.input, model.graph.output
    assert (source.name, result.name) == ("images", "logits")
    shape = source.type.tensor_type.shape.dim
    assert shape[0].dim_param == "batch" and [d.dim_value for d in shape[1:]] == [3, 16, 16]
    assert all(t.data_location != onnx.TensorProto.EXTERNAL for t in model.graph.initializer)
    assert sys.prefix.encode() not in (tmp_path / "model.onnx").read_bytes()


def test_pt2_holds_neither_images_nor_paths_of_this_machine(tmp_path):
    write_format("pt2", Net(), images(1), tmp_path / "model.pt2")
    with zipfile.ZipFile(tmp_path / "model.pt2") as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    assert not any(data for name, data in contents.items() if "sample_inputs" in name)
    assert not any(__file__.encode() in data or sys.prefix.encode() in data for data in contents.values())


@pytest.mark.parametrize("name", FORMATS)
def test_failing_export_names_the_format_and_the_cause(name, tmp_path):
    with pytest.raises(VerificationFailed, match=f"export to {name} failed: .*batch"):
        write_format(name, Batchy().eval(), images(1), tmp_path / "x")


@pytest.mark.parametrize("name", FORMATS)
def test_files_that_are_missing_or_spoiled_name_the_format(name, tmp_path):
    path = tmp_path / f"model{FORMATS[name].suffix}"
    with pytest.raises(VerificationFailed, match=f"loading {name} file"):
        load_format(name, path)
    path.write_bytes(b"not a model")
    with pytest.raises(VerificationFailed, match=f"loading {name} file"):
        load_format(name, path)


@pytest.mark.parametrize("name", FORMATS)
def test_images_of_another_size_name_the_format(name, tmp_path):
    path = tmp_path / f"model{FORMATS[name].suffix}"
    write_format(name, Net(), images(1), path)
    with pytest.raises(VerificationFailed, match=f"running {name} file"):
        load_format(name, path)(torch.zeros(2, 1, 16, 16))


def test_too_many_weights_for_one_onnx_file(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "ONNX_LIMIT", 100)
    with pytest.raises(VerificationFailed, match="less than 100; use pt2"):
        write_format("onnx", Net(), images(1), tmp_path / "x")


# -- agreement


def test_agreement_counts_classes_and_measures_logits():
    logits = torch.tensor([[4.0, 0.0], [0.0, 4.0], [1.0, 0.0], [2.0, 2.001]])
    other = torch.tensor([[4.5, 0.0], [0.0, 4.0], [0.0, 1.0], [2.001, 2.0]])
    result = agreement(lambda x: logits[x], lambda x: other[x], torch.arange(4))
    assert result.argmax_agreement == 0.5
    assert result.max_difference == 1.0
    assert (result.images, result.ties, result.scale) == (4, 1, 4.0)
    assert result.decided_agreement == pytest.approx(2 / 3)


def test_agreement_is_nan_where_a_logit_is():
    result = agreement(lambda x: torch.ones(len(x), 2), lambda x: torch.full((len(x), 2), torch.nan), images(3))
    assert result.max_difference != result.max_difference


def test_agreement_refuses_logits_of_another_shape():
    with pytest.raises(VerificationFailed, match=r"logits \(1, 4\) for 1 images, expected \(1, 5\)"):
        agreement(Net(), lambda x: torch.zeros(len(x), 4), images(3))


# -- weights


def test_reloaded_weights_are_the_saved_ones(tmp_path):
    module, other = Net(0), Net(1)
    save_weights(module, tmp_path / "w")
    load_weights(other, tmp_path / "w")
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])


def test_shared_and_strided_tensors_survive():
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {"a": base, "b": base[:2], "c": base.T, "n": torch.tensor(3)}
    back = weights.from_bytes(weights.to_bytes(tensors))
    assert all(torch.equal(tensors[n], back[n]) and tensors[n].dtype == back[n].dtype for n in tensors)


def test_weights_of_another_network_are_refused(tmp_path):
    save_weights(Net(), tmp_path / "w")
    with pytest.raises(CorruptRun, match="does not fit the network.*conv.weight"):
        load_weights(Net(width=4), tmp_path / "w")
    weights.save({n: t for n, t in Net().state_dict().items() if n != "head.bias"}, tmp_path / "w")
    with pytest.raises(CorruptRun, match="head.bias"):
        load_weights(Net(), tmp_path / "w")


def test_missing_and_torn_weights_are_corrupt(tmp_path):
    with pytest.raises(CorruptRun, match="does not exist"):
        weights.load(tmp_path / "w")
    save_weights(Net(), tmp_path / "w")
    (tmp_path / "w").write_bytes((tmp_path / "w").read_bytes()[:-4])
    with pytest.raises(CorruptRun, match="not safetensors data"):
        weights.load(tmp_path / "w")


# -- the delivered files


def test_write_files_writes_every_file_and_nothing_else(tmp_path):
    architecture = {"space": "s", "choices": {"k": 3}}
    (tmp_path / "best" / ".writing-killed").mkdir(parents=True)
    (tmp_path / "best" / ".writing-killed" / "model.onnx").write_text("half")
    written = write_files(tmp_path / "best", Net(), architecture, images(1))
    names = ["architecture.json", "model.onnx", "model.pt2", "model.safetensors"]
    assert [p.name for p in written] == sorted(p.name for p in (tmp_path / "best").iterdir()) == names
    assert json.loads(written[0].read_text()) == architecture


def test_a_failing_format_leaves_the_old_files_alone(tmp_path):
    (tmp_path / "model.safetensors").write_text("old")
    with pytest.raises(VerificationFailed):
        write_files(tmp_path, Batchy().eval(), {}, images(1))
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    assert (tmp_path / "model.safetensors").read_text() == "old"
