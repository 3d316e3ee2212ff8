"""How the time of a run is divided, and what is noted of it."""

import pytest
import torch

from nas.cli import planning
from nas.cli.planning import Clock, TimePlan, parse_time, planned, planned_steps, record, spent, steps_left, tell
from nas.errors import InvalidSetting
from nas.rundir import RunDir


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("3min", 180), ("2h", 7200), ("1h30min", 5400), ("0.5h", 1800), ("2m", 120), (None, 0)]
)
def test_times_are_read(text, seconds):
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "3", "min", "-3min", "3 parsecs", "0s", "1e9h", "nan"])
def test_other_times_are_refused_by_name(text):
    with pytest.raises(InvalidSetting, match="--time"):
        parse_time(text)


def test_seconds_of_a_stage_add_up_over_processes_and_the_clock_goes_on(tmp_path):
    with RunDir.create("search", {"command": "search"}, tmp_path / "run") as run:
        record(run, "choosing the space", 3.0)
        record(run, "training", 10.0, 100)
        record(run, "training", 5.0, 50)
        assert spent(run) == {"choosing the space": 3.0, "training": 15.0}
        clock = Clock(torch.device("cpu"))
        fresh = clock.elapsed()
        clock.resume(run)
        assert clock.elapsed() - fresh == pytest.approx(18.0, abs=0.5)


def test_a_length_is_decided_once(tmp_path):
    with RunDir.create("search", {"command": "search"}, tmp_path / "run") as run:
        assert planned_steps(run, "training") is None
        record(run, planned("training"), 0.0, 123)
        assert planned_steps(run, "training") == 123


def test_what_is_left_is_trained_and_the_end_is_kept_free():
    plan = TimePlan(180.0, False, None, 1, 10, None)
    clock = Clock(torch.device("cpu"))
    steps = steps_left(plan, clock, 0.01)
    assert steps == pytest.approx((180 - planning.CLOSING) / 0.01, rel=0.01)
    assert steps_left(TimePlan(1.0, False, None, 1, 10, None), clock, 10.0) == planning.LEAST_STEPS


def test_times_are_told_in_their_own_units():
    assert [tell(s) for s in (45.2, 210, 7560)] == ["45 s", "3.5 min", "2.1 h"]
