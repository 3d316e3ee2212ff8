"""Which constructors of torchvision and timm can be pruned and delivered, each judged by itself: a table of verdicts.

Each network is built with random weights, analysed, cut to 60% of its multiply-adds (by hand, about 30% of the units of every
group, where these cannot be counted), run, saved, rebuilt by replaying its history, compared exactly, exported to ONNX and
compared in onnxruntime, all at the smallest resolution of RESOLUTIONS that the network takes.

Run: python -m benchmarks.prune_constructors [--only NAME ...] [--library torchvision|timm] [--out FILE.jsonl]
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from operator import itemgetter
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from compress.agreement import TOLERANCE, agreement
from compress.export import load_format, write_format
from compress.prune.dependencies import analyse, remove
from compress.prune.evidence import Evidence
from compress.prune.execution import FAILURES
from compress.prune.groups import Cut, Group
from compress.prune.history import History, replay
from compress.prune.importance import score
from compress.prune.passes import pruned
from compress.prune.pipeline import Recipe, Subject, analysed, example_of, lowest
from compress.prune.saved import load_pruned, save_pruned
from nas.budget import Budget, check
from nas.cost.counting import count
from nas.cost.trace import Untraceable, trace
from nas.torch_seeding import generator

TORCHVISION, TIMM = "torchvision", "timm"
RESOLUTIONS = (64, 96, 128, 160, 192, 224, 240, 256, 300)
BUDGET, BY_HAND = "60%", 0.3
LARGEST = 200e6  # parameters: larger networks are skipped
SECONDS = 150  # for one network
# imported once, for all networks
PRELOADED = ["compress.prune.passes", "compress.verify", "torch.onnx", "onnxscript", "torchvision.models", "timm", "rich"]
# one small member of each family
TIMM_NETWORKS = (
    "resnet10t efficientnet_lite0 mobilenetv3_small_050 convnext_atto vit_tiny_patch16_224 deit_tiny_patch16_224 "
    "swin_tiny_patch4_window7_224 regnety_002 densenet121 ghostnet_050 mnasnet_small mixer_s32_224 resmlp_12_224 "
    "poolformer_s12 repvgg_a0 hardcorenas_a vgg11 resnext26ts legacy_xception inception_v3 dpn48b cspresnet50 levit_128s "
    "efficientformer_l1 mobileone_s0 edgenext_xx_small lcnet_050 tinynet_e mobilenetv2_050 mobilenetv4_conv_small "
    "fbnetc_100 spnasnet_100 semnasnet_075 mixnet_s rexnet_100 selecsls42 legacy_seresnet18 skresnet18 ese_vovnet19b_dw "
    "dla46_c gernet_s repvit_m0_9 starnet_s1 pvt_v2_b0 hgnetv2_b0 efficientvit_b0 efficientvit_m0 resnetv2_18 darknet17 "
    "res2net50_48w_2s resnest14d nf_regnet_b0 visformer_tiny pit_ti_224 convit_tiny cait_xxs24_224 xcit_nano_12_p16_224 "
    "gmlp_ti16_224 mobilevit_xxs mobilevitv2_050 fastvit_t8 convnextv2_atto tiny_vit_5m_224 crossvit_tiny_240 "
    "hrnet_w18_small inception_next_tiny efficientformerv2_s0 swiftformer_xs shvit_s1 coat_tiny twins_pcpvt_small"
).split()


class Reading(nn.Module):
    """A network that gives several maps by name, of which `read` makes one tensor."""

    def __init__(self, network: nn.Module, read: Callable[[Mapping[str, Tensor]], Tensor]) -> None:
        super().__init__()
        self.network, self.read = network, read

    def forward(self, x: Tensor) -> Tensor:
        """Run (N, C, H, W)."""
        return self.read(self.network(x))


def flat(maps: Mapping[str, Tensor]) -> Tensor:
    """All numbers of all maps: (N, numbers)."""
    return torch.cat([one.flatten(1) for one in maps.values()], 1)


# -- constructors


def torchvision_names() -> list[str]:
    """Classification, detection and segmentation, the smallest first."""
    from torchvision import models

    names = [n for part in (models, models.detection, models.segmentation) for n in models.list_models(module=part)]
    return sorted(names, key=lambda name: next(iter(models.get_model_weights(name))).meta["num_params"])


def torchvision_network(name: str) -> nn.Module:
    from torchvision import models

    if name in models.list_models(module=models.detection):
        return Reading(models.get_model(name, weights=None, weights_backbone=None).backbone, flat)
    if name in models.list_models(module=models.segmentation):
        return Reading(models.get_model(name, weights=None, weights_backbone=None), itemgetter("out"))
    # their own initialization is slow, and they warn that it will change
    slow = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return models.get_model(name, weights=None, **slow)


def timm_network(name: str) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False)


NAMES: Mapping[str, Callable[[], list[str]]] = {TORCHVISION: torchvision_names, TIMM: lambda: list(TIMM_NETWORKS)}
MAKE: Mapping[str, Callable[[str], nn.Module]] = {TORCHVISION: torchvision_network, TIMM: timm_network}


def build(source: Mapping[str, object]) -> nn.Module:
    torch.manual_seed(0)  # constructors draw from the global generator
    return drawn(MAKE[str(source["library"])](str(source["name"]))).eval()


@torch.no_grad()
def drawn(module: nn.Module) -> nn.Module:
    """Put random numbers where constructors leave zeros, ones or small scales: nothing that is wrong then stays unseen."""
    rng = generator(0, "constructors")
    for name, tensor in module.state_dict(keep_vars=True).items():
        if name.endswith("running_mean") or (isinstance(tensor, nn.Parameter) and tensor.dim() > 1 and not tensor.any()):
            tensor.copy_(torch.randn(tensor.shape, generator=rng) * 0.1)
        elif name.endswith("running_var") or (isinstance(tensor, nn.Parameter) and bool((tensor == tensor.flatten()[0]).all())):
            low = 0.5 if tensor.any() else -0.5
            tensor.copy_(torch.rand(tensor.shape, generator=rng) + low)
    return module


def smallest_example(network: nn.Module) -> Tensor:
    """Two images of the smallest resolution that `network` takes. Raises ValueError if it takes none."""
    reason: BaseException = ValueError("no resolution was tried")
    for side in RESOLUTIONS:
        try:
            with torch.no_grad():
                network(example := example_of((3, side, side)))
            return example
        except FAILURES as error:
            reason = error
    raise ValueError(f"takes no images of {RESOLUTIONS[0]} to {RESOLUTIONS[-1]} pixels: {reason}")


# -- one network


def judge(library: str, name: str, told: Connection) -> None:
    """Tell the stages as they begin, then the numbers; at the first failure its reason, and end."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    try:
        _stages({"library": library, "name": name}, lambda **facts: told.send(facts))
    except BaseException as error:
        text = " ".join(str(error).split())[:300]
        told.send({"reason": f"{type(error).__name__}: {text}"})
        raise SystemExit(1) from None


def _stages(source: Mapping[str, object], tell: Callable[..., None]) -> None:
    tell(stage="build")
    network = build(source)
    params = sum(p.numel() for p in network.parameters())
    tell(params=params)
    if params > LARGEST:
        return tell(skipped=True)
    example = smallest_example(network)
    tell(resolution=example.shape[-1], stage="analyse")
    module, history = _cut(network, example, tell)
    tell(stage="forward", params_after=sum(p.numel() for p in module.parameters()))
    with torch.no_grad():
        expected, actual = network(example), module(example)
    _require(actual.shape == expected.shape and bool(actual.isfinite().all()), f"gives {tuple(actual.shape)} or no numbers")
    _require(bool((actual - expected).abs().max() > 1e-4 * expected.abs().max()), "the outputs did not change")
    with tempfile.TemporaryDirectory() as folder:
        _delivered(module, history, source, example, Path(folder), tell)
    tell(ok=True)


def _cut(network: nn.Module, example: Tensor, tell: Callable[..., None]) -> tuple[nn.Module, History]:
    try:
        subject = analysed(network, example)
    except Untraceable as error:
        tell(cut="by hand", uncounted=str(error)[:200])
        return _by_hand(network, analyse(network, example), tell)
    tell(groups=len(subject.groups))
    if subject.cost.uncounted:
        tell(cut="by hand", uncounted=", ".join(subject.cost.uncounted)[:200])
        return _by_hand(network, subject.groups, tell)
    return _to_budget(subject, tell)


def _to_budget(subject: Subject, tell: Callable[..., None]) -> tuple[nn.Module, History]:
    tell(stage="cut", cut=BUDGET, macs=subject.cost.value("macs"))
    budget = Budget.parse(BUDGET).resolve(subject.cost)
    found = pruned(subject, [budget], Recipe(importance="l1", allocation="uniform"))
    counted = count(trace(found.module, subject.example))
    tell(macs_after=counted.value("macs"))
    _require(not check([budget], counted), f"has {counted.value('macs')} multiply-adds, the limit is {budget.limit}")
    planned = found.subject.cost.value("macs")
    _require(planned == counted.value("macs"), f"was planned to have {planned} multiply-adds, and has {counted.value('macs')}")
    return found.module, found.history


def _by_hand(network: nn.Module, groups: tuple[Group, ...], tell: Callable[..., None]) -> tuple[nn.Module, History]:
    _require(bool(groups), "nothing can be cut")
    tell(stage="cut", groups=len(groups))
    scores = {g.name: score("l1", network, g, Evidence((), 0)).double().numpy() for g in groups}
    keep = {g.name: max(g.multiple_of, round(g.width * (1 - BY_HAND)) // g.multiple_of * g.multiple_of) for g in groups}
    cuts: tuple[Cut, ...] = lowest(groups, scores, keep)
    return remove(network, groups, cuts).eval(), History(cuts=cuts)


@torch.no_grad()
def _delivered(
    module: nn.Module, history: History, source: Mapping[str, object], example: Tensor, folder: Path, tell: Callable[..., None]
) -> None:
    tell(stage="replay")
    save_pruned(folder / "pruned", module, source, history)
    loaded = load_pruned(folder / "pruned", build, lambda whole, cuts: replay(whole, cuts, example))
    _require(torch.equal(module(example), loaded(example)), "the rebuilt network gives other outputs")
    tell(stage="export")
    write_format("onnx", loaded, example, folder / "model.onnx")
    tell(stage="onnxruntime")
    result = agreement(module, load_format("onnx", folder / "model.onnx"), example)
    tell(onnx_difference=result.max_difference / result.scale)
    _require(result.max_difference <= TOLERANCE * result.scale, f"differs by {result.max_difference:.3g} of {result.scale:.3g}")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


# -- all networks


def verdict(context: multiprocessing.context.ForkServerContext, library: str, name: str, seconds: float) -> dict[str, object]:
    """The row of one network, which is judged in a process of its own."""
    row: dict[str, object] = {"name": name, "library": library, "ok": False}
    start = time.perf_counter()
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=judge, args=(library, name, theirs))
    process.start()
    theirs.close()
    try:
        while ours.poll(max(0.0, start + seconds - time.perf_counter())):
            row.update(ours.recv())
        row["reason"] = f"takes more than {seconds:g} s"
    except EOFError:  # it is done, or dead
        process.join()
        if not row["ok"] and "skipped" not in row:
            row.setdefault("reason", f"ended with status {process.exitcode}")
    finally:
        process.kill()
        process.join()
    row["seconds"] = round(time.perf_counter() - start, 1)
    if row["ok"]:
        del row["stage"]
    return row


def show(rows: list[dict[str, object]]) -> None:
    shown = Table("network", "library", "verdict", "parameters", "groups", "multiply-adds", "seconds", title="Constructors")
    for row in rows:
        macs = [f"{row[key] / 1e6:,.1f} M" for key in ("macs", "macs_after") if isinstance(row.get(key), float | int)]
        failed = "skipped" if "skipped" in row else f"{row.get('stage')}: {row.get('reason')}"
        result = "ok" if row["ok"] else failed
        numbers = (str(row.get(key, "")) for key in ("params", "groups"))
        shown.add_row(str(row["name"]), str(row["library"]), result, *numbers, " -> ".join(macs), str(row["seconds"]))
    Console().print(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", metavar="NAME", help="these networks alone")
    parser.add_argument("--library", choices=sorted(NAMES), help="those of one library alone")
    parser.add_argument("--out", type=Path, help="append a JSON line a network; those that it has are not tried again")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="the limit for one network")
    settings = parser.parse_args()
    libraries = [settings.library] if settings.library else list(NAMES)
    wanted = [(lib, name) for lib in libraries for name in NAMES[lib]() if not settings.only or name in settings.only]
    lines = settings.out.read_text(encoding="utf-8").splitlines() if settings.out and settings.out.exists() else []
    known = {(row["library"], row["name"]): row for row in map(json.loads, lines)}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    rows = []
    for number, (library, name) in enumerate(wanted, 1):
        row = known.get((library, name)) or verdict(context, library, name, settings.seconds)
        rows.append(row)
        state = "ok" if row["ok"] else "skipped" if "skipped" in row else "failed"
        print(f"{number}/{len(wanted)} {library} {name}: {state}, {row['seconds']} s", flush=True)
        if settings.out and (library, name) not in known:
            with settings.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    show(rows)
    tried = [row for row in rows if "skipped" not in row]
    counts = {lib: [sum(r["library"] == lib and bool(r["ok"]) for r in tried), 0] for lib in libraries}
    for row in tried:
        counts[str(row["library"])][1] += 1
    print(json.dumps({"benchmark": "prune_constructors", "budget": BUDGET, "ok_of_tried": counts}))


if __name__ == "__main__":
    main()
