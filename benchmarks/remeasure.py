"""Time an ONNX file without anything of netcarver: onnxruntime and a clock.

    python benchmarks/remeasure.py model.onnx [threads]

Prints the median of the medians of 30 samples in ms, and their quartiles, as JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import numpy as np
import onnxruntime

SAMPLES, CALLS, WARM_UPS = 30, 50, 100


def main(path: str, threads: int) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    shape = [size if isinstance(size, int) else 1 for size in given.shape]
    feed = {given.name: np.random.default_rng(0).standard_normal(shape, dtype=np.float32)}
    samples = []
    for sample in range(SAMPLES + 1):
        times = []
        for _ in range(CALLS if sample else WARM_UPS):
            start = time.perf_counter_ns()
            session.run(None, feed)
            times.append(time.perf_counter_ns() - start)
        samples.append(statistics.median(times) / 1e6)
    low, middle, high = statistics.quantiles(samples[1:], n=4)
    print(json.dumps({"ms": middle, "quartiles": [low, high], "fastest": min(samples), "threads": threads}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1)
