"""`nas compress`: recipes are checked before anything runs, passes follow each other, bounds stop the chain, resume goes on."""

import json
import re
from pathlib import Path

import pytest
import torch
from own_network import TINY
from typer.testing import CliRunner

from compress.export import load_onnx
from compress.more_formats import EXPORTS
from nas.cli.compressing import _RUNNERS
from nas.cli.main import app
from nas.cli.recipe import read_recipe
from nas.cli.sources import module_of, reload
from nas.errors import InvalidSetting
from nas.rundir import RunDir

TOP = 'network = "python:tiny_net:tiny"\nweights = "weights.pt"\ndata = "digits"\nthreads = 1\n'
PRUNE = '[[pass]]\nname = "prune"\nbudget = "70%"\nfinetune_epochs = 0\nround_to = 1\n'
TUNE = '[[pass]]\nname = "fine-tune"\nfinetune_epochs = 1\nlr = 0.0001\n'
QUANTIZE = '[[pass]]\nname = "quantize"\ncalibration = "min-max"\nimages = 64\nkeep = ["first=8"]\n'
MIXED = 'precision = "mixed"\nbudget = "10kB"\n'
SPARSE = '[[pass]]\nname = "prune"\nmethod = "sparse"\nsparsity = 0.5\nfinetune_epochs = 0\n'
EXPORT = '[[pass]]\nname = "export"\nformat = "torchscript"\n'


@pytest.fixture(autouse=True)
def network(tmp_path, monkeypatch):
    """A network of the user's own in the working directory, and its weights."""
    (tmp_path / "tiny_net.py").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.save(module_of("python:tiny_net:tiny").state_dict(), "weights.pt")


def recipe(*passes, top=TOP):
    Path("recipe.toml").write_text(top + "".join(passes))
    return Path("recipe.toml")


def nas(*args):
    return CliRunner().invoke(app, [*map(str, args)])


def test_passes_follow_each_other_and_all_are_told():
    result = nas("compress", "--recipe", recipe(PRUNE, QUANTIZE, EXPORT), "--out", "run", "--json")
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert [row["name"] for row in summary["passes"]] == ["original", "prune", "quantize", "export"]
    original, pruned, rounded, exported = (row["metrics"] for row in summary["passes"])
    assert pruned["macs"] <= 0.7 * original["macs"] and rounded["macs"] == pruned["macs"]
    assert rounded["bitops"] == pruned["bitops"] / 16  # 8 x 8 in the place of 32 x 32 bits
    assert exported == rounded
    assert summary["verified"] and len(summary["front"]) == 3
    best = Path("run/best")
    assert EXPORTS["torchscript"].load(best / "model.pt")(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    assert (best / "model.onnx").read_bytes() == Path("run/passes/2-quantize/best/model.onnx").read_bytes()
    assert "quantize" in Path("run/report.html").read_text()
    checked = nas("verify", "run", "--no-score")
    assert checked.exit_code == 0, checked.stderr


def test_a_fine_tune_goes_on_with_the_cut_and_its_teacher():
    result = nas("compress", "--recipe", recipe(PRUNE.replace("finetune_epochs = 0\n", ""), TUNE), "--out", "run", "--json")
    assert result.exit_code == 0, result.stderr
    passes = json.loads(result.stdout)["passes"]
    assert [row["name"] for row in passes] == ["original", "prune", "fine-tune"]
    assert passes[1]["metrics"]["macs"] == passes[2]["metrics"]["macs"] < passes[0]["metrics"]["macs"]
    # as one prune that trains does, to the last bit
    whole = PRUNE.replace("finetune_epochs = 0\n", "finetune_epochs = 1\nlr = 0.0001\n")
    assert nas("compress", "--recipe", recipe(whole), "--out", "whole").exit_code == 0
    ours, theirs, cut = (reload(Path(p)).state_dict() for p in ("run/best", "whole/best", "run/passes/1-prune/best"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)
    assert any(not torch.equal(ours[n], cut[n]) for n in ours)
    front = json.loads(result.stdout)["front"]
    assert [row["metrics"]["macs"] for row in front] == [passes[0]["metrics"]["macs"], passes[2]["metrics"]["macs"]]
    # what is extracted is the trained one, whose key the cut has too
    extracted = nas("extract", "run", front[1]["key"], "--out", "taken")
    assert extracted.exit_code == 0, extracted.stderr
    taken = reload(Path("taken")).state_dict()
    assert all(torch.equal(ours[n], taken[n]) for n in ours)
    # by its key, too, for other commands: exported with the data of the chain
    exported = nas("export", f"run:{front[1]['key'][:6]}", "--out", "taken.onnx", "--json")
    assert exported.exit_code == 0 and json.loads(exported.stdout)["compared_on"] == "real images", exported.stderr
    logits, images = load_onnx(Path("taken.onnx")), torch.rand(4, 1, 8, 8)
    assert torch.allclose(logits(images), reload(Path("taken"))(images), atol=1e-4)
    # the files of the chain are copies, and are looked at, too
    Path("run/best/model.pt2").write_bytes(b"spoiled")
    spoiled = nas("verify", "run", "--no-score")
    assert spoiled.exit_code == 4 and "FAILED model.pt2 was changed, in run/best" in spoiled.stderr


def test_a_fine_tune_that_is_stopped_goes_on_with_the_same_cut(monkeypatch):
    path = recipe(PRUNE, TUNE)
    with monkeypatch.context() as patched:
        patched.setattr("nas.cli.continuing.shutil.copytree", interrupted)
        assert nas("compress", "--recipe", path, "--out", "run").exit_code == 130
    assert [p.name for p in Path("run/passes").iterdir()] == ["1-prune"]
    with monkeypatch.context() as patched:
        patched.setattr("nas.cli.pruning.finetuning.fit", interrupted)
        stopped = nas("compress", "--resume", "--out", "run")
        assert stopped.exit_code == 130 and "resume with: nas compress --resume --out run\n" in stopped.stderr
    second = nas("compress", "--resume", "--out", "run")
    assert second.exit_code == 0, second.stderr
    cuts = [RunDir.read(Path(f"run/passes/{name}")).read_lines("cuts.jsonl") for name in ("1-prune", "2-fine-tune")]
    assert cuts[0] == cuts[1]
    config = RunDir.read(Path("run/passes/2-fine-tune")).config
    assert config["training"]["epochs"] == 1 and config["training"]["lr"] == 0.0001


def test_a_broken_bound_stops_the_chain_and_keeps_what_was_made():
    broken = PRUNE.replace("budget", "min_speedup = 1000\nbudget")
    result = nas("compress", "--recipe", recipe(broken, QUANTIZE), "--out", "run")
    assert result.exit_code == 4
    assert "pass 1 (prune) breaks its bound" in result.stderr and "min_speedup is 1000" in result.stderr
    assert Path("run/passes/1-prune/best/model.onnx").is_file() and not Path("run/passes/2-quantize").exists()
    again = nas("compress", "--resume", "--out", "run")
    assert again.exit_code == 4 and "breaks its bound" in again.stderr


def test_a_resumed_chain_does_no_pass_again(monkeypatch):
    path = recipe(PRUNE, QUANTIZE)
    monkeypatch.setattr("nas.cli.compressing._RUNNERS", {"prune": _RUNNERS["prune"], "quantize": interrupted})
    first = nas("compress", "--recipe", path, "--out", "run")
    assert first.exit_code == 130 and "nas compress --resume --out run" in first.stderr
    monkeypatch.setattr("nas.cli.compressing._RUNNERS", {"prune": interrupted, "quantize": _RUNNERS["quantize"]})
    pruned = Path("run/passes/1-prune/summary.json").read_bytes()
    second = nas("compress", "--resume", "--out", "run")
    assert second.exit_code == 0, second.stderr
    assert Path("run/passes/1-prune/summary.json").read_bytes() == pruned
    assert [row["name"] for row in RunDir.read(Path("run")).read_lines("passes.jsonl")] == ["original", "prune", "quantize"]


def interrupted(*_):
    raise KeyboardInterrupt


def test_another_recipe_is_refused_when_a_chain_goes_on():
    assert nas("compress", "--recipe", recipe(PRUNE), "--out", "run").exit_code == 0
    other = nas("compress", "--resume", "--out", "run", "--recipe", recipe(PRUNE, QUANTIZE))
    assert other.exit_code == 2 and "is not the recipe that run was started with" in other.stderr


def test_options_of_all_passes_and_of_one():
    found = read_recipe(recipe('[[pass]]\nname = "prune"\nbudget = "50%"\nmax_drop = 1\nthreads = 2\n', QUANTIZE))
    prune, quantize = found.steps
    assert prune.options["threads"] == 2 and quantize.options["threads"] == 1
    assert prune.options["budget"] == ("50%",) and prune.bounds == {"max_drop": 1.0}
    assert prune.settings("a", "w").weights == "w" and quantize.settings("b", None).data == "digits"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "has no passes"),
        ("pass = 3", "has no passes"),
        ("[[pass]]\n", "pass 1 of the recipe is 'None'; choose one of prune, fine-tune, quantize, export"),
        ('[[pass]]\nname = "recalibrate"\n', "is no pass of its own: batch norms are recalibrated by every prune"),
        (TUNE, "pass 1 of the recipe is fine-tune, which must directly follow a prune"),
        (PRUNE + QUANTIZE + TUNE, 'to train a quantized network, give quantize method = "qat"'),
        ('[[pass]]\nname = "finetune"\n', "is no pass of its own: write fine-tune, behind a prune"),
        (PRUNE + TUNE.replace("epochs = 1", "epochs = 0"), "finetune_epochs is 0, and the recipe has a fine-tune"),
        (PRUNE.replace("epochs = 0", "epochs = 2") + TUNE, "the recipe trains twice: prune has finetune_epochs = 2"),
        (PRUNE + TUNE + '[[pass]]\nname = "prun"\n', "choose one of prune, fine-tune, quantize, export"),
        ('[[pass]]\nname = "prune"\nbudgte = "50%"\n', "unknown key 'budgte'"),
        (QUANTIZE + PRUNE, "quantize must be the last pass but for export"),
        ("[[pass", "expected a TOML file"),
        ('[[pass]]\nname = "prune"\nmax_drop = "lots"\n', "pass 1 (prune) of the recipe has max_drop = 'lots'; expected a "),
        ('[[pass]]\nname = "prune"\nfinetune_epochs = 1.5\n', "has finetune_epochs = 1.5; expected a whole number"),
        ('[[pass]]\nname = "prune"\nmin_speedup = true\n', "has min_speedup = True; expected "),
        ('[[pass]]\nname = "quantize"\nimages = "many"\n', "pass 1 (quantize) of the recipe has images = 'many'; expected"),
        ('[[pass]]\nname = "quantize"\nimages = 1\n', "has images = 1; expected 4 to 10,000,000"),
        ('[[pass]]\nname = "quantize"\nequalize = "yes"\n', "has equalize = 'yes'; expected true or false"),
        ("pass = [1, 2]\n", "has no passes; write one [[pass]] table for each"),
        ('[[pass]]\nname = "prune"\nmax_drop = nan\n', "has max_drop = nan; expected 0 to 100"),
        ('[[pass]]\nname = "prune"\nmin_speedup = inf\n', "has min_speedup = inf; expected 0 to 1,000,000"),
        ('[[pass]]\nname = "prune"\nlr = nan\n', "has lr = nan; expected more than 0, up to 100"),
        (f'[[pass]]\nname = "prune"\nsteps = {10**21}\n', "has steps = a number of about 22 digits; expected 1 to 1,000,000"),
        ('[[pass]]\nname = "prune"\nshape = "3x100000x100000"\n', "is too large for any network"),
        ('[[pass]]\nname = "quantise"\n', "is 'quantise' (did you mean quantize?); choose one of"),
        ('[[pass]]\nname = "prune"\nbugdet = "50%"\n', "has the unknown key 'bugdet' (did you mean budget?); known keys: "),
        ('[[pass]]\nname = "quantize"\nthreads = 0\n', "has threads = 0; expected 1 to 1,024"),
    ],
)
def test_what_may_be_wrong_in_a_recipe(text, expected):
    with pytest.raises(InvalidSetting, match=re.escape(expected)):
        read_recipe(recipe(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PRUNE + QUANTIZE + 'precision = "w5a8"\n', "pass 2 (quantize) of the recipe: --precision 'w5a8' is not known"),
        (PRUNE + '[[pass]]\nname = "quantize"\nbudget = "10zB"\n', "pass 2 (quantize) of the recipe: budget '10zB'"),
        (PRUNE + '[[pass]]\nname = "quantize"\nprecision = "mixed"\n', "--precision mixed chooses bits under a budget"),
        (PRUNE + '[[pass]]\nname = "export"\nformat = "tflite"\n', "pass 2 (export) of the recipe: format 'tflite'"),
        ('[[pass]]\nname = "export"\n', "pass 1 (export) of the recipe: it is the first pass"),
        ('[[pass]]\nname = "prune"\n', "pass 1 (prune) of the recipe: no --budget was given"),
        (PRUNE + QUANTIZE.replace("min-max", "median"), "pass 2 (quantize) of the recipe: --calibration 'median'"),
        (PRUNE + QUANTIZE.replace("first=8", "first=int5"), "--keep 'first=int5': 'int5' is no number format"),
        (PRUNE + QUANTIZE + 'runtime = "tvm"\n', "pass 2 (quantize) of the recipe: runtime 'tvm'"),
        (PRUNE + QUANTIZE + MIXED + 'sensitivity = "feeling"\n', "--sensitivity 'feeling' is not known"),
        (PRUNE + QUANTIZE + MIXED + "bits = [5]\n", "--bits '5' is not a number format"),
        (PRUNE + QUANTIZE + "bits = [4]\n", "--bits is of --precision mixed, and this is int8"),
        (PRUNE + 'method = "melt"\n', "pass 1 (prune) of the recipe: --method 'melt' is not known"),
        (PRUNE + 'precision = "fp64"\n', "does not run precision 'fp64' on cpu"),
        (PRUNE + "grow_epochs = 3\n", "--grow-epochs 3 is of --method grow, and this is cut"),
        (SPARSE + 'pattern = "3:4"\n', "pass 1 (prune) of the recipe: pattern '3:4' is not known"),
        (SPARSE + 'activation = "sigmoid"\n', "--activation 'sigmoid' is not known"),
        (PRUNE + TUNE + 'optimizer = "lamb"\n', "pass 2 (fine-tune) of the recipe: --optimizer 'lamb'"),
        (PRUNE + TUNE + 'train_precision = "fp8"\n', "pass 2 (fine-tune) of the recipe: --train-precision 'fp8'"),
    ],
)
def test_what_a_later_pass_would_refuse_is_refused_before_the_first(text, expected):
    result = CliRunner().invoke(app, ["compress", "--recipe", str(recipe(text)), "--out", "run"])
    assert result.exit_code == 2 and expected in result.stderr and not Path("run").exists()


def test_what_all_passes_share_may_be_nothing_to_one_of_them():
    shared = TOP + 'importance = "l1"\nsensitivity = "hessian"\nsparsity = 0.5\n'
    sparse = SPARSE.replace("sparsity = 0.5\n", "")
    result = nas("compress", "--recipe", recipe(PRUNE, sparse, QUANTIZE, top=shared), "--out", "run")
    assert result.exit_code == 0, result.stderr
    assert [len(RunDir.read(Path(f"run/passes/{i}-prune")).trials()) for i in (1, 2)] == [2, 2]


def test_a_fine_tune_goes_on_without_the_levels_that_no_cut_keeps(monkeypatch):
    sweep = PRUNE.replace("budget =", 'sweep = "1,60%"\nbudget =')
    result = nas("compress", "--recipe", recipe(sweep, TUNE), "--out", "run")
    assert result.exit_code == 0, result.stderr
    runs = [RunDir.read(Path(f"run/passes/{name}")) for name in ("1-prune", "2-fine-tune")]
    assert runs[0].read_lines("cuts.jsonl") == runs[1].read_lines("cuts.jsonl")
    assert [row["state"] for row in runs[1].trials()] == ["complete", "complete", "infeasible", "complete"]


def test_a_fine_tune_of_a_recipe_and_what_all_passes_share():
    shared = TOP + "finetune_epochs = 3\nlr = 0.5\n"
    prune, tune = read_recipe(recipe(PRUNE.replace("finetune_epochs = 0\n", ""), TUNE, top=shared)).steps
    assert prune.settings("a", None).finetune_epochs == 0 and prune.settings("a", None).lr == 0.5
    assert tune.settings("a", None).finetune_epochs == 1 and tune.settings("a", None).lr == 0.0001
    with pytest.raises(InvalidSetting, match='there are no images; add data = "..."'):
        read_recipe(recipe(PRUNE, TUNE, top=TOP.replace('data = "digits"\n', "")))


def test_unknown_shared_keys_and_a_missing_network():
    with pytest.raises(InvalidSetting, match="unknown key 'netwrok'"):
        read_recipe(recipe(PRUNE, top='netwrok = "resnet18"\n'))
    with pytest.raises(InvalidSetting, match="names no network"):
        read_recipe(recipe(PRUNE, top=""))


def test_no_recipe_and_nothing_to_resume():
    assert "no recipe was given" in nas("compress", "resnet18").stderr
    assert "--resume found no run of `nas compress`" in nas("compress", "--resume").stderr
