"""Quantized after training on CIFAR-10: formats, mixed precision at the size of uniform 4-bit weights, and the exported file.

python -m benchmarks.quantize_cifar DATA.npz WEIGHTS [--network cifar-resnet20] [--formats int8 w4a8 w4a4 fp8-e4m3]
                                    [--sensitivities ablation output-error hessian lrp]

Accuracies are of all test images; of int8 also that of the exported file in onnxruntime. 512 training images calibrate.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from compress.export import load_onnx, write_format
from compress.prune.cifar_resnet import CIFAR_RESNETS, MEAN, STD
from compress.prune.sources import load_into
from compress.quantize.bits import MixConfig, cost_of, mixed
from compress.quantize.convert import converted
from compress.quantize.graph import Network, network_of
from compress.quantize.ptq import PtqConfig, Quantized, quantize
from compress.quantize.scheme import Scheme, read_precision, uniform
from compress.quantize.sensitivity import SENSITIVITIES
from nas.budget import Budget, Cost
from nas.cli.scoring import file_answers
from nas.cost.counting import count
from nas.cost.measure import load as machine_load
from nas.cost.trace import trace
from nas.data.dataset import Dataset, epoch_batches
from nas.data.load import DataConfig, load
from nas.evaluation.supernet import accuracy, prepared

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Bed:
    """What all rows share."""

    data: Dataset
    module: nn.Module
    network: Network
    original: Cost
    images: list[Tensor]

    def tested(self, module: nn.Module) -> float:
        """Accuracy on all test images."""
        return accuracy(module.eval(), self.data.load_test(), self.data, 32)

    def exported(self, found: Quantized, path: Path) -> float:
        """Accuracy of the exported file on all test images."""
        write_format("onnx", converted(found.module, self.network), self.images[0][:1], path)
        return file_answers(load_onnx(path), self.data.load_test(), self.data, 32, "scoring the file").accuracy


def bed_of(args: argparse.Namespace) -> Bed:
    data = replace(load(DataConfig(f"npz:{args.data}")), mean=MEAN, std=STD, flip=True)
    module = CIFAR_RESNETS[args.network]()
    load_into(module, Path(args.weights))
    module.eval()
    batches = epoch_batches(len(data.train), 64, 0, 0)[:8]
    images = [x for x, _ in prepared(data.train, batches, data, 32, CPU)]
    plan = trace(module, torch.zeros(1, 3, 32, 32))
    return Bed(data, module, network_of(module, (3, 32, 32)), count(plan), images)


def row_of(bed: Bed, label: str, scheme: Scheme, config: PtqConfig | None = None) -> dict:
    start = time.monotonic()
    found = quantize(bed.network, scheme, bed.images, config or PtqConfig())
    cost = cost_of(bed.network, scheme, bed.original).values()
    row = {"label": label, "calibration": found.calibration, "equalized": found.equalized, "corrected": found.corrected}
    row |= {"size_bytes": cost["size_bytes"], "bitops": cost["bitops"], "divergence": found.error}
    row |= {"test": bed.tested(found.module), "seconds": time.monotonic() - start}
    if label == "int8":
        path = Path("/tmp") / "quantize_cifar.onnx"
        row["test_of_file"] = bed.exported(found, path)
        path.unlink()
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("weights")
    parser.add_argument("--network", default="cifar-resnet20")
    parser.add_argument("--formats", nargs="*", default=["int8", "w4a8", "w4a4", "fp8-e4m3"])
    parser.add_argument("--sensitivities", nargs="*", default=list(SENSITIVITIES))
    args = parser.parse_args()
    bed = bed_of(args)
    rows = [{"label": "fp32", "test": bed.tested(bed.module)}]
    print(json.dumps(rows[0]), flush=True)
    for name in args.formats:
        rows.append(row_of(bed, name, uniform(bed.network, *read_precision(name))))
        print(json.dumps(rows[-1]), flush=True)
    limit = cost_of(bed.network, uniform(bed.network, "4", "8"), bed.original).values()["size_bytes"]
    for name in args.sensitivities:
        found = mixed(
            bed.network, [Budget("4 bits", "size_bytes", limit)], bed.original, bed.images[:2], MixConfig(sensitivity=name)
        )
        rows.append(row_of(bed, f"mixed by {name}", found.scheme))
        print(json.dumps(rows[-1]), flush=True)
    print(json.dumps({"benchmark": "quantize_cifar", "network": args.network, "load": machine_load(), "rows": rows}))


if __name__ == "__main__":
    main()
