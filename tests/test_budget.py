"""The budget grammar, and that what is not known keeps no budget."""

import dataclasses
import math

import numpy as np
import pytest

from nas.budget import UNITS, Budget, Cost, Metric, check, excess, format_value, nearest_budget, parse_all
from nas.errors import InvalidBudget

GOOD = {
    "300MFLOPs": ("macs", 300e6),
    "300MMACs": ("macs", 300e6),
    "300 mflops": ("macs", 300e6),
    " 300MFLOPS ": ("macs", 300e6),
    "1.2GFLOPs": ("macs", 1.2e9),
    "25kFLOPs": ("macs", 25e3),
    "7FLOPs": ("macs", 7),
    "3e6MACs": ("macs", 3e6),
    "1E3kMACs": ("macs", 1e6),
    "3Mparams": ("params", 3e6),
    "3params": ("params", 3),
    "2MB": ("size_bytes", 2e6),
    "512B": ("size_bytes", 512),
    "1.5GB": ("size_bytes", 1.5e9),
    "320KBpeak": ("peak_bytes", 320e3),
    "320kbpeak": ("peak_bytes", 320e3),
    "100Bpeak": ("peak_bytes", 100),
    "5ms": ("latency_ms", 5),
    "0.25 ms": ("latency_ms", 0.25),
    "15ms@pixel3": ("latency_ms@pixel3", 15),
    "15MS@Pixel-3_a.b": ("latency_ms@Pixel-3_a.b", 15),
    "5mJ": ("energy_mj", 5),
    "5mj@board": ("energy_mj@board", 5),
    "5GBitOps": ("bitops", 5e9),
    "5bitops": ("bitops", 5),
}
RELATIVE = {
    "50%": ("macs", 0.5),
    "50 %": ("macs", 0.5),
    "7%": ("macs", 0.07),
    "50%flops": ("macs", 0.5),
    "50%MACs": ("macs", 0.5),
    "50%params": ("params", 0.5),
    "60%latency": ("latency_ms", 0.6),
    "60%latency@Pixel3": ("latency_ms@Pixel3", 0.6),
    "12.5%B": ("size_bytes", 0.125),
}
BAD = [
    *("", " ", "fast", "FLOPs", "MFLOPs", "300", "300M", "3.MB", ".5MB", "3,5MB", "1e-3MB", "+3MB", "3 M B", "300MFLOPs."),
    *(
        "5s",
        "5us",
        "5kms",
        "5MJ@",
        "2MiB",
        "2TB",
        "5Gms",
        "5MB5MB",
        "300MFLOPs 5ms",
        "5@pixel3",
        "0x10MB",
        "infMB",
        "nanMB",
        "½MB",
    ),
    *(
        "%",
        "%params",
        "50%%",
        "50%ms",
        "50%Mparams",
        "50%fast",
        "50percent",
        "50%params%",
        "5ms@",
        "5ms@a b",
        "5ms@@a",
        "5ms@a/b",
    ),
    *("0MFLOPs", "-1MFLOPs", "0%", "-5%", "0ms", "0.0MB", "-0MB", "1e400MB", "1e308GFLOPs"),
    *("300MFLOPs@pixel3", "2MB@pixel3", "50%@pixel3", "50%params@pixel3", "5GBitOps@board"),
]


def cost(**values: float) -> Cost:
    return Cost({n: Metric(v, "", "test") for n, v in values.items()})


# -- reading


@pytest.mark.parametrize("text", GOOD)
def test_absolute_budgets(text):
    metric, limit = GOOD[text]
    assert Budget.parse(text) == Budget(text, metric, pytest.approx(limit, rel=1e-12))


@pytest.mark.parametrize("text", RELATIVE)
def test_relative_budgets(text):
    assert Budget.parse(text) == Budget(text, *RELATIVE[text], relative=True)


@pytest.mark.parametrize("text", BAD)
def test_bad_texts_are_quoted_with_the_units(text):
    with pytest.raises(InvalidBudget) as error:
        Budget.parse(text)
    message = str(error.value)
    assert repr(text) in message
    assert UNITS in message
    assert "\n" not in message
    assert error.value.exit_status == 2


def test_message_lists_every_unit_of_the_grammar():
    for unit in ("FLOPs", "MACs", "params", "B", "Bpeak", "ms", "mJ", "BitOps"):
        assert unit in UNITS.replace("(", " ").replace(",", " ").split()
        Budget.parse(f"3{unit}")


def test_message_says_what_is_wrong_with_a_number_or_a_target():
    reasons = {text: "is not positive and finite" for text in ("0MB", "-2MB", "1e400MB", "1e308GFLOPs")}
    reasons["2MB@pixel3"] = "names the target 'pixel3', and only ms and mJ depend on a target"
    for text, reason in reasons.items():
        with pytest.raises(InvalidBudget, match=f"budget '{text}' {reason};"):
            Budget.parse(text)


def test_several_budgets_limit_different_metrics():
    texts = ("300MFLOPs", "2MB", "5ms", "15ms@pixel3", "15ms@Pixel3", "50%params")
    assert [b.text for b in parse_all(texts)] == list(texts)
    assert parse_all([]) == ()
    with pytest.raises(InvalidBudget, match="budgets '300MFLOPs' and '50%' both limit macs; keep one"):
        parse_all(["2MB", "300MFLOPs", "50%"])
    with pytest.raises(InvalidBudget, match="'fast' was not understood"):
        parse_all(["2MB", "fast"])


def test_budget_is_a_value():
    budget = Budget.parse("5ms")
    assert budget == Budget.parse("5ms") and hash(budget) == hash(Budget.parse("5ms"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        budget.limit = 6


# -- relative to an original


def test_relative_budget_takes_its_fraction_of_the_original():
    original = cost(macs=4e9, params=1000, **{"latency_ms@pixel3": 30.0})
    assert Budget.parse("50%").resolve(original) == Budget("50%", "macs", 2e9)
    assert Budget.parse("10%params").resolve(original) == Budget("10%params", "params", 100)
    assert Budget.parse("60%latency@pixel3").resolve(original) == Budget("60%latency@pixel3", "latency_ms@pixel3", 18)
    absolute = Budget.parse("2MB")
    assert absolute.resolve(original) is absolute


@pytest.mark.parametrize("original", [cost(), cost(params=1), cost(macs=math.nan), cost(macs=math.inf), cost(macs=0)])
def test_fraction_of_what_is_not_known_is_refused(original):
    with pytest.raises(InvalidBudget, match="'50%' is relative to the original's macs, which is not known"):
        Budget.parse("50%").resolve(original)


def test_fraction_of_a_partly_counted_original_is_refused():
    original = dataclasses.replace(cost(macs=100), uncounted=("aten::fft", "aten::sort"))
    with pytest.raises(InvalidBudget, match="cannot be judged: what aten::fft, aten::sort costs is not known"):
        Budget.parse("50%").resolve(original)


# -- keeping


@pytest.mark.parametrize(("value", "kept"), [(0, True), (299e6, True), (300e6, True), (300000001, False), (6e8, False)])
def test_limit_is_inclusive(value, kept):
    violation = Budget.parse("300MFLOPs").check(cost(macs=value))
    assert (violation is None) == kept


def test_violation_names_value_and_budget_with_the_relative_excess():
    violation = Budget.parse("300MFLOPs").check(cost(macs=450e6))
    assert violation.text == "450 MFLOPs > 300MFLOPs"
    assert violation.excess == pytest.approx(0.5)


@pytest.mark.parametrize(
    "unknown",
    [
        cost(),
        cost(params=1.0),
        cost(macs=math.nan),
        cost(macs=math.inf),
        cost(macs=-math.inf),
        dataclasses.replace(cost(macs=1.0), uncounted=("aten::fft",)),
        dataclasses.replace(cost(macs=1e12), uncounted=("aten::fft",)),
    ],
)
def test_unknown_is_not_zero(unknown):
    budgets = parse_all(["300MFLOPs", "1Gparams"])
    violation = budgets[0].check(unknown)
    assert violation.excess == math.inf
    assert "macs" in violation.text
    assert excess(budgets, unknown) == math.inf
    assert violation in check(budgets, unknown)


def test_uncounted_operations_are_named():
    violation = Budget.parse("300MFLOPs").check(dataclasses.replace(cost(macs=1.0), uncounted=("aten::fft", "aten::sort")))
    assert violation.text == "macs misses aten::fft, aten::sort"


def test_latency_of_another_target_does_not_count():
    assert Budget.parse("15ms@pixel3").check(cost(latency_ms=1.0)).excess == math.inf
    assert Budget.parse("15ms").check(cost(**{"latency_ms@pixel3": 1.0})).excess == math.inf
    assert Budget.parse("15ms@pixel3").check(cost(**{"latency_ms@pixel3": 15.0})) is None


def test_all_budgets_hold_at_once():
    budgets = parse_all(["100FLOPs", "10params", "1ms"])
    assert check(budgets, cost(macs=100, params=10, latency_ms=1)) == []
    assert excess(budgets, cost(macs=100, params=10, latency_ms=1)) == 0
    broken = cost(macs=150, params=5, latency_ms=2)
    assert [v.text.split(" > ")[1] for v in check(budgets, broken)] == ["100FLOPs", "1ms"]
    assert excess(budgets, broken) == pytest.approx(0.5 + 1.0)
    assert check([], broken) == []
    assert excess([], cost()) == 0


def test_cost_gives_its_numbers():
    two = cost(macs=1.0, params=2.0)
    assert two.values() == {"macs": 1.0, "params": 2.0}
    assert (two.value("macs"), two.value("latency_ms")) == (1.0, None)


# -- writing


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("macs", 300e6, "300 MFLOPs"),
        ("macs", 2_970_000, "2.97 MFLOPs"),
        ("macs", 1.2e9, "1.2 GFLOPs"),
        ("macs", 5e12, "5000 GFLOPs"),
        ("macs", 999, "999 FLOPs"),
        ("macs", 1000, "1 kFLOPs"),
        ("macs", 0, "0 FLOPs"),
        ("params", 3_504_872, "3.505 Mparams"),
        ("size_bytes", 512e3, "512 kB"),
        ("peak_bytes", 320e3, "320 kB"),
        ("latency_ms", 1.3149, "1.31 ms"),
        ("latency_ms@pixel3", 15.0, "15 ms"),
        ("energy_mj", 0.5, "0.5 mJ"),
        ("bitops", 5e9, "5 GBitOps"),
        ("activations", 1234, "1.234 k"),
    ],
)
def test_values_for_people(metric, value, text):
    assert format_value(metric, value) == text


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("macs", 2_971_234, "2.98MFLOPs"),
        ("macs", 3_000_000, "3MFLOPs"),
        ("macs", 999_999, "1000kFLOPs"),
        ("params", 12, "12params"),
        ("size_bytes", 4096, "4.1kB"),
        ("peak_bytes", 327_680, "328kBpeak"),
        ("bitops", 1.5e12, "1500GBitOps"),
        ("latency_ms@pixel3", 0.12345, "0.124ms@pixel3"),
        ("latency_ms", 1234.5, "1240ms"),
        ("energy_mj", 7, "7mJ"),
    ],
)
def test_nearest_budgets_are_written_as_they_are_read(metric, value, text):
    assert nearest_budget(metric, value) == text
    assert Budget.parse(text).metric == metric


def test_nearest_budgets_are_kept_and_near():
    rng = np.random.default_rng(0)
    for exponent in rng.uniform(-2, 11, size=500):
        for metric in ("macs", "latency_ms"):
            value = float(f"{10**exponent:.{rng.integers(1, 6)}g}")
            limit = Budget.parse(nearest_budget(metric, value)).limit
            assert value <= limit <= 1.02 * value + (metric == "macs") * 0.01
