import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from compress.agreement import MOST_SLACK, slack_of
from compress.export import load_format, write_files, write_format
from compress.stored import save_weights
from compress.verify import VerifyInputs, verify
from nas.budget import Budget, Cost, Metric
from nas.plan import ConvSpec, Layer, Plan, conv
from nas.report.card import model_card

SIDE = 12


class Net(nn.Module):
    """Plain network named as a plan names it: a convolution with norm, a linear layer."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__()
        self.stem = nn.ModuleDict({"conv": nn.Conv2d(3, 8, 3, 1, 1, bias=False), "norm": nn.BatchNorm2d(8)})
        self.classifier = nn.Linear(8, 4)
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            for tensor in self.state_dict().values():
                if tensor.is_floating_point():
                    tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
            self.classifier.weight.data -= 0.6

    def forward(self, x):
        x = torch.relu(self.stem["norm"](self.stem["conv"](x)))
        return self.classifier(x.mean((2, 3)))


def plan() -> Plan:
    size = (SIDE, SIDE)
    return Plan(
        3,
        size,
        (
            conv("stem", "input", (3, 8), size, ConvSpec(kernel=3, act="relu")),
            Layer("pool", "pool", ("stem",), 8, 8, size, (1, 1)),
            Layer("classifier", "linear", ("pool",), 8, 4, (1, 1), (1, 1), bias=True),
        ),
    )


def counted() -> dict[str, Metric]:
    macs, params = SIDE * SIDE * 8 * 27 + 32, 8 * 27 + 16 + 36
    return {"macs": Metric(macs, "multiply-adds", "stand-in"), "params": Metric(params, "parameters", "stand-in")}


def stand_in_recount(module: nn.Module, example: torch.Tensor) -> Cost:
    assert isinstance(module, Net) and example.shape == (1, 3, SIDE, SIDE)
    return Cost(counted())


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("best")
    write_files(folder, Net(seed=0).eval(), {}, torch.zeros(1, 3, SIDE, SIDE))
    return folder


@pytest.fixture
def inputs(written) -> VerifyInputs:
    plan_cost = {
        **counted(),
        "size_bytes": Metric((written / "model.safetensors").stat().st_size, "B", "plan"),
        "peak_bytes": Metric(5000, "B", "plan"),
        "latency_ms": Metric(0.001, "ms", "estimate"),
    }
    return VerifyInputs(
        folder=written,
        module=Net(seed=0).eval(),
        rebuild=Net,
        images=torch.randn(70, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2)),
        plan_cost=Cost(plan_cost),
        budgets=tuple(map(Budget.parse, ("40kFLOPs", "2kB", "6KBpeak"))),
        latency=Metric(1.25, "ms", "onnxruntime", spread=0.1),
        recount=stand_in_recount,
    )


def failed(result: dict) -> list[str]:
    return [row["name"] for row in result["checks"] if not row["ok"]]


def test_everything_holds(inputs):
    result = verify(inputs)
    assert result["ok"] and failed(result) == []
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    size = (inputs.folder / "model.safetensors").stat().st_size
    assert [(b["metric"], b["limit"], b["value"], b["ok"]) for b in result["budgets"]] == [
        ("macs", 40e3, counted()["macs"].value, True),
        ("size_bytes", 2e3, size, True),
        ("peak_bytes", 6e3, 5000, True),
    ]
    assert result["metrics"]["latency_ms"] == vars(inputs.latency)
    assert result["metrics"]["macs"]["method"] == "stand-in"
    exact = next(row for row in result["checks"] if row["name"].startswith("safetensors"))
    assert exact["value"] == exact["expected"] == 0.0


def test_the_real_counts_agree_with_the_files(inputs):
    from nas.cost.counting import count
    from nas.cost.recount import recount

    result = verify(replace(inputs, plan_cost=count(plan()), recount=recount))
    assert failed(result) == []
    assert result["metrics"]["macs"]["value"] == counted()["macs"].value


def test_channels_last_images_change_nothing(inputs):
    images = inputs.images.contiguous(memory_format=torch.channels_last)
    assert failed(verify(replace(inputs, images=images))) == []


def test_other_weights_in_the_files_are_found(inputs):
    module = Net(seed=1).eval()
    names = failed(verify(replace(inputs, module=module)))
    assert "safetensors: largest logit difference" in names
    assert {"onnx: largest logit difference", "pt2: largest logit difference"} <= set(names)


def test_one_changed_weight_is_found_though_no_class_changes(inputs, tmp_path):
    module = Net(seed=0).eval()
    write_files(tmp_path, module, {}, inputs.images[:1])
    changed = Net(seed=0).eval()
    changed.classifier.bias.data[0] += 1e-6
    save_weights(changed, tmp_path / "model.safetensors")
    assert failed(verify(replace(inputs, folder=tmp_path))) == ["safetensors: largest logit difference"]


def test_ties_may_change_class_but_are_counted(inputs):
    module = Net(seed=0).eval()
    module.classifier.weight.data[1] = module.classifier.weight.data[0]
    module.classifier.bias.data[1] = module.classifier.bias.data[0]
    module.classifier.bias.data[:2] += 100.0  # the two best classes are always equal
    folder = inputs.folder.parent / "ties"
    write_files(folder, module, {}, inputs.images[:1])
    result = verify(replace(inputs, module=module, folder=folder))
    assert failed(result) == []
    assert "70 of them ties" in next(row["detail"] for row in result["checks"] if row["name"] == "onnx: same class")


class Jumpy(nn.Module):
    """Adds to a calm network the remainder of what is far below a millionth of its sums, by `height`."""

    def __init__(self, height: float, seed: int = 0) -> None:
        super().__init__()
        self.calm, self.height = Net(seed).eval(), height

    def forward(self, x):
        return self.calm(x) + self.height * (x.flatten(1)[:, :4] * 1e7).round().remainder(8) / 8


def of_jumpy(inputs: VerifyInputs, height: float, seed: int, folder) -> dict:
    """What is verified of files that have the network of another seed."""
    write_files(folder, Jumpy(height, seed).eval(), {}, inputs.images[:1])
    network = Jumpy(height).eval()
    other = replace(inputs, module=network, rebuild=lambda: Jumpy(height), folder=folder)
    return verify(replace(other, recount=lambda module, images: Cost(counted())))


def difference(result: dict) -> dict:
    return next(row for row in result["checks"] if row["name"] == "onnx: largest logit difference")


def test_runtimes_may_differ_by_what_a_millionth_moves(inputs):
    assert slack_of(inputs.module, inputs.images, 1e-3) == 1e-3
    largest = inputs.module(inputs.images).abs().max().item()
    moved = slack_of(Jumpy(0.1 * largest), inputs.images, 1e-3)
    assert 0.1 < moved < 0.2 and slack_of(Jumpy(0.1 * largest), inputs.images, 1e-3) == moved
    assert slack_of(Jumpy(100 * largest), inputs.images, 1e-3) == MOST_SLACK  # noise, of which nothing can be told


@pytest.mark.parametrize(("seed", "held"), [(0, True), (1, False)])
def test_a_restless_network_is_told_from_another_one(inputs, tmp_path, seed, held):
    height = 0.1 * inputs.module(inputs.images).abs().max().item()
    result = of_jumpy(inputs, height, seed, tmp_path)
    assert difference(result)["ok"] == held
    assert "a change of the images by 1e-06 moves the network's own logits by half of that" in difference(result)["detail"]


def test_missing_and_spoiled_files_fail_with_their_cause(inputs, tmp_path):
    write_format("pt2", inputs.module, inputs.images, tmp_path / "model.pt2")
    (tmp_path / "model.onnx").write_bytes(b"spoiled")
    result = verify(replace(inputs, folder=tmp_path))
    assert not result["ok"]
    assert failed(result) == [
        "safetensors: largest logit difference",
        "onnx: same class",
        "onnx: largest logit difference",
        "size_bytes as planned",
    ]
    assert "loading onnx file" in next(row["detail"] for row in result["checks"] if row["name"] == "onnx: same class")
    assert [b["ok"] for b in result["budgets"]] == [True, False, True]
    assert "size_bytes" not in result["metrics"]


def test_nan_fails_and_stays_json(inputs):
    module = Net(seed=0).eval()
    module.classifier.bias.data[0] = torch.nan
    result = verify(replace(inputs, module=module))
    assert not result["ok"] and "onnx: largest logit difference" in failed(result)
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize("name", ["macs", "params", "size_bytes"])
def test_a_count_that_differs_from_the_plan_fails(inputs, name):
    metric = inputs.plan_cost.metrics[name]
    for metrics in ({name: replace(metric, value=metric.value + 1)}, {}):
        others = {n: m for n, m in inputs.plan_cost.metrics.items() if n != name}
        assert failed(verify(replace(inputs, plan_cost=Cost(others | metrics)))) == [f"{name} as planned"]


def test_what_was_not_counted_fails_every_budget(inputs):
    result = verify(replace(inputs, recount=lambda m, x: Cost(counted(), ("aten::strange",))))
    assert failed(result) == ["uncounted operations"]
    assert not any(b["ok"] for b in result["budgets"])
    assert "aten::strange" in result["budgets"][0]["detail"]


def test_latency_is_measured_and_never_the_estimate_of_the_plan(inputs):
    judged = replace(inputs, budgets=(Budget.parse("1ms"),))
    assert verify(judged)["budgets"][0] | {"detail": ""} == {
        "text": "1ms", "metric": "latency_ms", "limit": 1.0, "value": 1.25, "ok": False, "detail": "",
    }  # fmt: skip
    unknown = verify(replace(judged, latency=None))
    assert unknown["budgets"][0]["value"] is None and not unknown["budgets"][0]["ok"]
    assert "latency_ms" not in unknown["metrics"]


def test_the_code_of_the_model_card_runs_beside_the_files(inputs, monkeypatch):
    monkeypatch.chdir(inputs.folder)
    best = {"key": "k", "architecture": {"choices": {"resolution": SIDE}}, "metrics": {}}
    data = {"channels": 3, "resolution": 99, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    card = model_card({"best": best}, {"data": data}, {})
    onnx, pt2 = (block.split("```")[0] for block in card.split("```python\n")[1:])
    scope: dict = {}
    exec(onnx, scope)
    mean, std = (torch.tensor(data[name]).reshape(3, 1, 1) for name in ("mean", "std"))
    images = ((torch.zeros(1, 3, SIDE, SIDE) - mean) / std).float()
    expected = load_format("onnx", inputs.folder / "model.onnx")(images)
    assert torch.allclose(torch.from_numpy(scope["logits"]), expected, atol=1e-6)
    exec(pt2, scope)
    assert torch.allclose(scope["logits"], expected, atol=1e-5)
