from dataclasses import dataclass, field

import pytest

from nas.cost.measure import MeasureSettings, measure, reference_kernel
from nas.errors import InvalidSetting

US = 1_000


@dataclass
class Machine:
    """A clock that only kernels move, and a record of who ran."""

    now: int = 0
    runs: list[str] = field(default_factory=list)

    def clock(self) -> int:
        return self.now

    def kernel(self, name, microseconds):
        """A kernel whose n-th call lasts `microseconds`, or `microseconds(n)`."""
        calls = 0

        def run():
            nonlocal calls
            self.runs.append(name)
            self.now += round(US * (microseconds(calls) if callable(microseconds) else microseconds))
            calls += 1

        return run

    def measure(self, candidates, settings, reference=1000):
        kernels = {name: self.kernel(name, time) for name, time in candidates.items()}
        found = measure(kernels, settings, self.clock, self.kernel("reference", reference))
        return {name: timing.metric for name, timing in found.items()}


def test_constant_kernels_are_measured_exactly():
    found = Machine().measure({"slow": 3000, "fast": 20}, MeasureSettings(rounds=7))
    assert (found["slow"].value, found["slow"].spread) == (3.0, 0.0)
    assert (found["fast"].value, found["fast"].spread) == (0.02, 0.0)
    assert (found["slow"].unit, found["slow"].method) == ("ms", "measured")
    assert "7 interleaved rounds of 3 calls" in found["slow"].context
    assert "7 interleaved rounds of 100 calls" in found["fast"].context
    assert "machine quiet in 7 of 7 rounds" in found["fast"].context


# every call counts by itself: one to find the number of calls, five to warm up, then one a round
ONE_CALL = {"least_calls": 1, "most_calls": 1, "settling_calls": 0}


def test_median_and_interquartile_range():
    settings = MeasureSettings(rounds=5, most_warmups=1, steady_samples=1, busy_above=9, **ONE_CALL)
    # the first call finds the number of calls, the second warms up, then come the five that count
    times = [9000, 9000, 1000, 5000, 3000, 2000, 4000]
    metric = Machine().measure({"a": lambda n: times[n]}, settings)["a"]
    assert (metric.value, metric.spread) == (3.0, 2.0)


def test_candidates_take_turns_in_alternating_order():
    machine = Machine()
    machine.measure({"a": 2000, "b": 5000}, MeasureSettings(rounds=4, **ONE_CALL))
    watched = ["reference", "reference"]  # the first brings its data into the cache
    turns = [*watched, "a", *watched, "b", *watched, "b", *watched, "a"] * 2 + watched
    assert machine.runs[-len(turns) :] == turns


def test_slow_first_calls_do_not_spoil_the_number_of_calls():
    found = Machine().measure({"a": lambda n: 20 if n else 50_000}, MeasureSettings(rounds=3))
    assert "rounds of 100 calls" in found["a"].context and found["a"].value == 0.02


def test_the_calls_that_settle_the_cache_do_not_count():
    """A kernel whose first two calls of each sample are slow, because others ran before it."""
    settings = MeasureSettings(rounds=3, least_calls=4, most_calls=4, settling_calls=2)
    assert Machine().measure({"a": lambda n: 9000 if n % 6 < 2 else 2000}, settings)["a"].value == 2.0


def test_one_disturbed_call_does_not_spoil_a_sample():
    settings = MeasureSettings(rounds=3, least_calls=5, most_calls=5, settling_calls=0)
    found = Machine().measure({"a": lambda n: 50_000 if n % 5 == 3 else 2000}, settings)["a"]
    assert (found.value, found.spread) == (2.0, 0.0)


def test_kernels_too_fast_for_the_clock_stop_at_the_most_calls():
    machine = Machine()
    found = machine.measure({"a": 0}, MeasureSettings(rounds=1, most_calls=100, most_warmups=5))
    assert found["a"].value == 0.0 and "rounds of 100 calls" in found["a"].context


def test_warm_up_lasts_until_steady():
    machine = Machine()
    patient = MeasureSettings(rounds=3, most_warmups=200, **ONE_CALL)
    slow_start = Machine().measure({"a": lambda n: 2000 + 20_000 / (1 + n)}, patient)["a"]
    assert slow_start.value < 3.0 and "not steady" not in slow_start.context
    impatient = MeasureSettings(rounds=3, most_warmups=30, busy_above=1, **ONE_CALL)
    restless = machine.measure({"a": lambda n: 2000 + 1000 * (n % 2)}, impatient)["a"]
    assert "not steady after 30 warm-up samples" in restless.context
    assert machine.runs.count("a") == 1 + 30 + 3


def busy_between(first: int, last: int):
    """A reference kernel that is twice as slow from one timing to another (five calls are warm-up, every second is timed)."""
    return lambda n: 2000 if first <= (n - 5) // 2 < last else 1000


def test_busy_rounds_are_repeated():
    # the candidate is slow in just those rounds: six calls come before the first that counts
    settings = MeasureSettings(rounds=6, extra_rounds=6, steady_samples=5, **ONE_CALL)
    disturbed = range(6 + 1, 6 + 4)
    times = {"a": lambda n: 9000 if n in disturbed else 2000}
    found = Machine().measure(times, settings, busy_between(2, 4))["a"]
    assert (found.value, found.spread) == (2.0, 0.0)
    assert "median of 6" in found.context and "machine quiet in 6 of 9 rounds" in found.context


def test_a_machine_that_calms_down_makes_the_earlier_rounds_suspect():
    settings = MeasureSettings(rounds=4, extra_rounds=4, **ONE_CALL)
    found = Machine().measure({"a": lambda n: 9000 if n < 6 + 3 else 2000}, settings, busy_between(-5, 3))["a"]
    assert found.value == 2.0 and "machine quiet in 4 of 7 rounds" in found.context


def test_samples_far_above_a_candidates_own_best_are_repeated():
    """Bursts of other work may pass between two reference kernels; they only ever slow down."""
    settings = MeasureSettings(rounds=5, extra_rounds=5, steady_samples=1, most_warmups=1, **ONE_CALL)
    found = Machine().measure({"a": lambda n: 2600 if n % 3 else 2000 + n}, settings)["a"]
    assert found.value < 2.1 and "busy machine, quiet in 3 of 10 rounds" in found.context and "median of 3" in found.context
    found = Machine().measure({"a": lambda n: 2600 if n % 3 == 2 else 2000 + n}, settings)["a"]
    assert found.value < 2.1 and "median of 5" in found.context and "busy" not in found.context


def test_a_busy_machine_is_named_after_a_bounded_number_of_rounds():
    machine = Machine()
    settings = MeasureSettings(rounds=4, extra_rounds=3, **ONE_CALL)
    found = machine.measure({"a": 2000}, settings, busy_between(2, 99))["a"]
    assert "busy machine, quiet in 1 of 7 rounds" in found.context and "median of 7" in found.context
    assert "machine busy" in found.context
    assert machine.runs.count("a") == 1 + 5 + 7


def test_a_few_quiet_samples_of_one_are_not_compared_with_those_of_another():
    """The best of `a` is one sample that nothing disturbed, `b` has none: by quiet samples `a` would be twice as fast."""
    settings = MeasureSettings(rounds=6, extra_rounds=6, steady_samples=1, most_warmups=1, **ONE_CALL)
    times = {"a": lambda n: 2000 if n == 5 else 4000 + 600 * (n % 5), "b": lambda n: 4000 + 600 * (n % 5)}
    found = Machine().measure(times, settings)
    assert "quiet in 1 of 12 rounds" in found["a"].context and "machine busy" in found["b"].context
    assert found["a"].value == pytest.approx(found["b"].value, rel=0.1)
    assert all("median of 12" in metric.context for metric in found.values())


def test_one_quiet_sample_is_not_compared_with_those_of_a_calm_candidate():
    settings = MeasureSettings(rounds=6, extra_rounds=6, steady_samples=1, most_warmups=1, **ONE_CALL)
    found = Machine().measure({"a": 4000, "b": lambda n: 2000 if n == 5 else 4000 + 600 * (n % 5)}, settings)
    assert found["a"].value == 4.0 and "machine quiet in 6 of 6 rounds" in found["a"].context
    assert found["b"].value > 4.0 and "median of 12" in found["b"].context and "machine busy" in found["b"].context


def test_a_background_device_brings_its_own_timer():
    machine = Machine()
    pending = []

    def timer(kernel):
        pending.clear()
        kernel()
        return sum(pending)

    settings = MeasureSettings(rounds=3, timer=timer)
    found = measure({"a": lambda: pending.append(100 * US)}, settings, machine.clock, machine.kernel("reference", 1000))["a"]
    assert found.ms == 0.1 and (found.rounds, found.calls) == (3, 20)


def test_the_real_clock_and_reference_kernel():
    calls = []
    found = measure({"a": lambda: calls.append(0)}, MeasureSettings(rounds=2, extra_rounds=0, most_calls=5, most_warmups=2))[
        "a"
    ]
    assert found.ms > 0 and "cores" in found.machine
    assert reference_kernel()() is not None


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"most_calls": 0}, {"sample_ms": -1.0}, {"busy_above": float("nan")}])
def test_settings_that_measure_nothing_are_refused(wrong):
    with pytest.raises(InvalidSetting, match=next(iter(wrong))):
        MeasureSettings(**wrong)


def test_nothing_to_measure():
    with pytest.raises(InvalidSetting, match="nothing to measure"):
        measure({}, MeasureSettings())
