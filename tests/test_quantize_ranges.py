"""Calibration: what each method keeps and clips, and how a range becomes a scale and a zero point."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
import torch
from quantize_toy import mini, pictures

from compress.quantize import ranges
from compress.quantize.formats import FORMATS, format_of
from compress.quantize.quantizer import IntQuantizer, activation_quantizer, weight_quantizer
from compress.quantize.ranges import BINS, CALIBRATIONS, Histogram, histograms, percentile
from nas.errors import InvalidSetting
from nas.seeding import numpy_rng

CLIPPING = sorted(set(CALIBRATIONS) - {"min-max"})


def histogram(values: np.ndarray) -> Histogram:
    counts, edges = np.histogram(values, BINS, (min(0, values.min()), max(0, values.max())))
    return Histogram(counts, edges)


def with_outliers() -> np.ndarray:
    """100,000 values up to 1, and five of them ten times as large."""
    values = np.abs(numpy_rng(0, "values").normal(size=100_000)).clip(0, 3) / 3
    return np.concatenate([values, np.full(5, 10.0)])


@pytest.mark.parametrize("method", CLIPPING)
def test_outliers_are_clipped(method):
    low, high = CALIBRATIONS[method](histogram(with_outliers()), 16)
    assert low == 0 and 0.5 < high < 3
    low, high = CALIBRATIONS[method](histogram(-with_outliers()), 16)
    assert high == 0 and -3 < low < -0.5


def test_min_max_keeps_all():
    assert CALIBRATIONS["min-max"](histogram(with_outliers()), 16) == (0, 10)
    values = np.array([-2.0, 0.5, 7.0])
    assert CALIBRATIONS["min-max"](histogram(values), 256) == (-2, 7)


def test_a_percentile_is_one():
    # 1 to 20,000 in as many values: a hundredth of a percent are two of them at each end
    values = np.arange(1, 20_001) / 20_000
    low, high = CALIBRATIONS["percentile"](histogram(np.concatenate([values, -values])), 256)
    width = 2 / BINS
    assert abs(high - np.quantile(np.concatenate([values, -values]), 0.9999)) <= width and abs(high + low) <= 2 * width


@pytest.mark.parametrize("method", CALIBRATIONS)
def test_even_values_are_kept(method):
    """Where all values are as frequent there is little to be won by clipping."""
    values = np.linspace(-1, 1, 40_000)
    low, high = CALIBRATIONS[method](histogram(values), 256)
    assert low == pytest.approx(-1, abs=0.05) and high == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("bits", ["2", "4", "8"])
def test_mse_is_the_least_squared_error_of_all(bits):
    values = torch.from_numpy(with_outliers())
    number, seen = format_of(bits), histogram(with_outliers())

    def error(method: str) -> float:
        low, high = CALIBRATIONS[method](seen, 1 << number.bits)
        quantizer = IntQuantizer(number.unsigned)
        quantizer.set_range(torch.tensor([low]), torch.tensor([high]), symmetric=False)
        return float((quantizer(values) - values).square().sum().detach())

    errors = {method: error(method) for method in CALIBRATIONS}
    assert errors["mse"] <= 1.01 * min(errors.values())


@pytest.mark.parametrize("method", CALIBRATIONS)
def test_a_point_that_is_always_zero_has_a_range(method):
    counts = np.zeros(BINS)
    counts[0] = 100
    low, high = CALIBRATIONS[method](Histogram(counts, np.linspace(0, 1e-12, BINS + 1)), 256)
    assert 0 <= low <= high <= 1e-12


@pytest.mark.parametrize("method", CALIBRATIONS)
@pytest.mark.parametrize("levels", [4, 16, 256, 1 << 16])
def test_every_calibration(method, levels):
    """A part of what was seen with zero in it, the same each time, which grows with the values and turns with their sign."""
    values = numpy_rng(1, "values").normal(size=20_000) ** 3 + 0.5
    seen = histogram(values)
    low, high = CALIBRATIONS[method](seen, levels)
    assert seen.edges[0] <= low < 0 < high <= seen.edges[-1]
    assert CALIBRATIONS[method](seen, levels) == (low, high)
    assert CALIBRATIONS[method](Histogram(seen.counts, 8 * seen.edges), levels) == pytest.approx((8 * low, 8 * high))
    turned = CALIBRATIONS[method](Histogram(seen.counts[::-1], -seen.edges[::-1]), levels)
    assert turned == pytest.approx((-high, -low), rel=0.25)


def test_histograms_count_the_values_of_points():
    network, batches = mini(), [pictures(3), 2 * pictures(5)]
    seen = histograms(network, batches)
    assert tuple(sorted(seen)) == tuple(sorted(network.points))
    x = torch.cat([batch.flatten() for batch in batches]).numpy()
    edges = np.linspace(x.min(), x.max(), BINS + 1)
    assert np.allclose(seen["x"].edges, edges, atol=1e-6) and seen["x"].counts.sum() == x.size
    assert np.abs(np.cumsum(seen["x"].counts - np.histogram(x, edges)[0])).max() <= 5  # on the edge of two bins
    stem = network.module.stem._modules["0"]
    with torch.no_grad():
        stems = [torch.conv2d(b, stem.weight, stem.weight_folded_bias, 2, 1).clamp(0, 6) for b in batches]
    values = torch.cat([s.flatten() for s in stems])
    assert seen["stem_2_hardtanh"].edges[[0, -1]] == pytest.approx([0, float(values.max())])
    zeros = int((values < seen["stem_2_hardtanh"].edges[1]).sum())
    assert abs(seen["stem_2_hardtanh"].counts[0] - zeros) <= 1


def test_of_many_values_some_are_counted_and_all_bound_the_range(monkeypatch):
    monkeypatch.setattr(ranges, "MANY", 500)
    network, batch = mini(), pictures(8).to(memory_format=torch.channels_last)
    seen, counted = histograms(network, [batch])["x"], batch.numel()
    assert seen.edges[[0, -1]] == pytest.approx([float(batch.min()), float(batch.max())])
    assert counted / 12 < seen.counts.sum() < counted / 6
    low, high = percentile(seen, 256)
    exact = np.quantile(batch.numpy(), [0.25, 0.5, 0.75])
    shares = np.interp(exact, seen.edges[1:], np.cumsum(seen.counts) / seen.counts.sum())
    assert shares == pytest.approx([0.25, 0.5, 0.75], abs=0.08) and low < exact[0] < exact[2] < high


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (7, 64, 7, 7), (2, 112, 14, 14), (4, 9)])
def test_a_step_meets_all_channels_and_the_row_has_all_values(shape, monkeypatch):
    monkeypatch.setattr(ranges, "MANY", 1)
    x = torch.arange(prod(shape)).reshape(shape)
    for value in (x, x.to(memory_format=torch.channels_last)) if len(shape) == 4 else (x,):
        row = ranges._flat(value)
        assert torch.equal(row.sort().values, torch.arange(prod(shape)))
        assert all(prod(shape) % step == 0 for step in ranges.STEPS[: ranges.STEPS.index(ranges._step(len(row)))])
        assert all(side % ranges._step(len(row)) for side in shape)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(value):
    network, x = mini(), pictures(2)
    network.module.get_parameter("pointwise.0.weight").data[0] = value
    with pytest.raises(InvalidSetting, match="'pointwise_0' is not finite on the calibration images; check the weights"):
        histograms(network, [x])


# -- from a range to integers


@pytest.mark.parametrize("bits", ["2", "3", "4", "6", "8", "16"])
@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.0, 6.0), (0.5, 6.0), (-2.0, -0.5), (-0.1, 0.0), (0.0, 0.0)])
def test_zero_stays_exact(bits, low, high):
    for number, symmetric in ((format_of(bits).unsigned, False), (format_of(bits).signed, True)):
        quantizer = IntQuantizer(number)
        quantizer.set_range(torch.tensor([low]), torch.tensor([high]), symmetric=symmetric)
        assert quantizer(torch.zeros(3)).tolist() == [0, 0, 0]


def test_limits_of_activations():
    quantizer = IntQuantizer(format_of("8").unsigned)
    quantizer.set_range(torch.tensor([-1.0]), torch.tensor([4.1]), symmetric=False)
    assert quantizer.scale.item() == pytest.approx(0.02) and quantizer.zero_point.item() == 50
    assert quantizer(torch.tensor([-3.0, -1.0, 0.031, 4.1, 9.0])).tolist() == pytest.approx([-1, -1, 0.04, 4.1, 4.1])


def test_limits_of_weights():
    """One scale a channel, and as far to one side as to the other; below 8 bits the integers reach one further down."""
    quantizer = IntQuantizer(format_of("4").signed, channels=2)
    quantizer.set_range(torch.tensor([-0.7, -1.4]), torch.tensor([0.2, 1.4]), symmetric=True)
    assert quantizer.scale.tolist() == pytest.approx([0.1, 0.2]) and quantizer.zero_point.tolist() == [0, 0]
    rounded = quantizer(torch.tensor([[-9.0, -0.72, 0.14, 9.0], [-9.0, -1.4, 0.14, 9.0]]))
    assert torch.allclose(rounded, torch.tensor([[-0.8, -0.7, 0.1, 0.7], [-1.6, -1.4, 0.2, 1.4]]))
    assert format_of("8").signed == (-127, 127) and format_of("2").signed == (-2, 1) and format_of("8").unsigned == (0, 255)


def test_formats_that_are_not_rounded():
    assert weight_quantizer(FORMATS["fp32"], 3) is None and activation_quantizer(FORMATS["fp32"]) is None
    with pytest.raises(InvalidSetting, match="number format '5' is not known; choose one of 2, 3, 4"):
        format_of("5")
