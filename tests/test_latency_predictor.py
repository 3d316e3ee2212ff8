"""Predictions from a table: sums, correction, interpolation, and the names of what is missing."""

import numpy as np
import pytest
from networks import space_for

from nas.budget import Metric
from nas.cost.counting import peak_bytes
from nas.latency.correction import FEATURES, Parts, features, fit
from nas.latency.costing import NamedTable, OwnLatency
from nas.latency.predictor import Predictor
from nas.latency.table import Calibration, Entry, LatencyTable
from nas.latency.target import Target
from nas.latency.units import channels, units
from nas.plan import INPUT, ConvSpec, Plan, conv
from nas.seeding import numpy_rng
from nas.supernet.blocks import BlockSpec, inverted_residual_layers
from search_spaces.staged import DataShape

TARGET = Target("device", "runtime", "1")
SPACE = space_for("mobilenet", "20MFLOPs", DataShape(3, 32, 10))


def plans(count, seed=0):
    rng = numpy_rng(seed, "plans")
    return [SPACE.plan(SPACE.sample(rng)) for _ in range(count)]


def table_for(given, ms=lambda unit: 0.01 + unit.weights * 1e-6, **fields):
    entries = {unit.key: Entry(ms(unit)) for plan in given for unit in units(plan)}
    return LatencyTable(TARGET, entries, **fields)


def calibrated(given, truth):
    """A table whose calibration networks take `truth(features)` ms."""
    bare = Predictor(table_for(given, made={"cache_bytes": 200_000}))
    rows = tuple(Calibration(f, truth(f), SPACE.id) for f in map(bare.features, given))
    return LatencyTable(TARGET, bare.table.entries, rows, bare.table.made)


def test_without_calibration_a_prediction_is_the_sum():
    (plan,) = plans(1)
    prediction = Predictor(table_for([plan])).predict(plan)
    assert prediction.latency.value == pytest.approx(sum(0.01 + u.weights * 1e-6 for u in units(plan)), rel=1e-12)
    assert (prediction.missing, prediction.interpolated, prediction.energy) == ((), (), None)
    assert [unit.key for unit, _ in prediction.rows] == [u.key for u in units(plan)]


def test_a_missing_unit_leaves_no_latency_and_is_named():
    (plan,) = plans(1)
    table = table_for([plan])
    gone = units(plan)[2].key
    table = LatencyTable(TARGET, {k: e for k, e in table.entries.items() if k != gone})
    prediction = Predictor(table).predict(plan)
    assert prediction.latency is None and prediction.missing == (gone,)
    assert prediction.metrics == {} and Predictor(table).features(plan) == {}


def test_energy_is_the_sum_where_every_unit_has_one():
    (plan,) = plans(1)
    entries = {u.key: Entry(1.0, energy_mj=0.5) for u in units(plan)}
    assert Predictor(LatencyTable(TARGET, entries)).predict(plan).energy == Metric(
        0.5 * len(units(plan)), "mJ", "latency table", None, str(TARGET)
    )
    entries[units(plan)[0].key] = Entry(1.0)
    assert "energy_mj" not in Predictor(LatencyTable(TARGET, entries)).predict(plan).metrics


# -- correction


def test_features_are_what_they_say():
    (plan,) = plans(1)
    parts = Parts(plan, units(plan), 1.5, cache=100)
    found = features(parts)
    weights = 4 * sum(u.weights for u in parts.units)
    assert found["sum_ms"] == 1.5 and found["units"] == len(parts.units)
    assert found["weight_bytes"] == weights and found["peak_bytes"] == peak_bytes(plan)
    assert found["uncached_bytes"] == weights + peak_bytes(plan) - 100
    assert features(Parts(plan, units(plan), 1.5))["uncached_bytes"] == 0
    assert features(Parts(plan, units(plan), 1.5, cache=10**9))["uncached_bytes"] == 0


def law(f):
    return 0.9 * f["sum_ms"] - 0.002 * f["units"] + 1e-8 * f["border_values"] + 3e-9 * f["uncached_bytes"]


def test_a_linear_law_is_found_and_holds_for_other_networks():
    table, others = calibrated(plans(40), law), plans(10, seed=1)
    predictor = Predictor(table_for([*plans(40), *others], made=table.made), SPACE.id)
    predictor = Predictor(LatencyTable(TARGET, predictor.table.entries, table.calibration, table.made), SPACE.id)
    for plan in others:
        assert predictor.predict(plan).latency.value == pytest.approx(law(predictor.features(plan)), rel=2e-3)
    assert predictor.correction.error < 1e-3 and predictor.correction.networks == 40


def test_one_network_hardly_moves_the_plain_sum():
    """Five coefficients and one network: the ridge keeps the prediction between the sum and the measurement."""
    (plan,) = plans(1)
    given = Predictor(table_for([plan])).features(plan)
    found = fit([Calibration(given, 0.8 * given["sum_ms"])])(given)
    assert 0.79 * given["sum_ms"] < found < given["sum_ms"]


def test_the_stated_error_is_that_of_leaving_one_out():
    rng = numpy_rng(0, "noise")
    table = calibrated(plans(30), lambda f: law(f) * (1 + 0.05 * rng.standard_normal()))
    rows = list(table.calibration)
    stated = fit(rows).error
    errors = [abs(fit(rows[:i] + rows[i + 1 :])(dict(row.features)) / row.latency_ms - 1) for i, row in enumerate(rows)]
    assert stated == pytest.approx(np.mean(errors), rel=0.15)


def test_a_correction_never_gives_nonsense():
    rows = [Calibration({name: float(i + 1) for name in FEATURES}, 1.0) for i in range(3)]
    assert fit(rows)({**dict.fromkeys(FEATURES, 0.0), "sum_ms": 1.0, "units": 1e6}) > 0


def test_calibration_of_the_own_space_is_preferred():
    table = calibrated(plans(20), law)
    foreign = tuple(Calibration(row.features, 10 * row.latency_ms, "other-1-abc") for row in table.calibration)
    both = LatencyTable(TARGET, table.entries, table.calibration + foreign, table.made)
    assert Predictor(both, SPACE.id).correction == Predictor(table, SPACE.id).correction
    assert Predictor(both, "unheard-of").correction.networks == 40


def test_refitting_moves_towards_what_was_measured():
    table = calibrated(plans(20), law)
    before, plan = Predictor(table, SPACE.id), plans(1)[0]
    old = before.predict(plan).latency.value
    after = before.refitted([(p, 1.3 * law(before.features(p))) for p in plans(20)[:10]])
    assert 1.1 * old < after.predict(plan).latency.value < 1.31 * old
    assert before.predict(plan).latency.value == old, "predictors are values"


# -- interpolation


def block(width, hidden, kernel=3):
    layers = inverted_residual_layers("b", INPUT, (8, 8), BlockSpec(width, width, hidden, kernel=kernel))
    return Plan(width, (8, 8), tuple(layers))


def test_interpolation_is_linear_along_channels_and_marked():
    table = table_for([block(w, h) for w in (16, 32) for h in (48, 96)], ms=lambda u: sum(channels(u.key)[:2]) * 0.001)
    predictor = Predictor(table)
    (unit,) = units(block(24, 72))
    prediction = predictor.predict(block(24, 72))
    assert prediction.latency.value == pytest.approx(0.001 * (24 + 72), rel=1e-12)
    assert prediction.interpolated == (unit.key,) and "1 units interpolated" in prediction.latency.context
    assert predictor.predict(block(16, 48)).interpolated == ()


def test_nothing_is_extrapolated_nor_interpolated_across_other_windows():
    table = table_for([block(w, h) for w in (16, 32) for h in (48, 96)])
    for outside in (block(40, 72), block(24, 104), block(8, 72), block(24, 72, kernel=5)):
        assert Predictor(table).predict(outside).latency is None


def test_interpolation_along_one_axis_needs_no_full_grid():
    one = [Plan(c, (8, 8), (conv("a", INPUT, (c, 32), (8, 8), ConvSpec(3)),)) for c in (16, 48)]
    middle = Plan(24, (8, 8), (conv("a", INPUT, (24, 32), (8, 8), ConvSpec(3)),))
    table = table_for(one, ms=lambda u: channels(u.key)[0] * 1.0)
    assert Predictor(table).predict(middle).latency.value == pytest.approx(24.0)


# -- as a cost of architectures


def test_what_was_measured_wins_over_what_is_predicted():
    arch = SPACE.smallest()
    plan = SPACE.plan(arch)
    model = OwnLatency(Predictor(calibrated([plan, *plans(10)], law), SPACE.id))
    taken = Metric(0.123, "ms", "measured")
    after = model.refitted({arch.key: plan}, {arch.key: taken})
    assert after(arch, plan)["latency_ms"] == taken
    assert model(arch, plan)["latency_ms"].method == "latency table"


def test_named_tables_name_their_metrics():
    named = NamedTable("pixel3", lambda arch, plan: {"latency_ms": Metric(2.0, "ms", "table pixel3")})
    assert list(named(SPACE.smallest(), plans(1)[0])) == ["latency_ms@pixel3"]
