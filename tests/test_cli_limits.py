"""Numbers out of their range: one line, before anything heavy is imported."""

import sys

import pytest
from typer.testing import CliRunner

from nas.budget import Budget
from nas.cli.limits import RANGES, Range
from nas.cli.main import app
from nas.errors import InvalidBudget, NasError, did_you_mean, not_known, unknown_key


def refusal(monkeypatch, *args):
    for name in ("nas.cli.flow", "nas.cli.pruning.flow", "nas.cli.quantizing.flow", "nas.cli.costing", "nas.cli.profiling"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    result = CliRunner().invoke(app, list(args))
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("nas: error: ")]
    assert len(lines) == 1 and len(lines[0]) < 400
    return lines[0]


SEARCH, PRUNE = ("search", "--budget", "3MFLOPs"), ("prune", "resnet18", "--budget", "50%")


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ((*SEARCH, "--lr", "inf"), "--lr is inf; expected more than 0, up to 100"),
        ((*SEARCH, "--lr", "nan"), "--lr is nan"),
        ((*SEARCH, "--lr", "0"), "--lr is 0.0; expected more than 0"),
        ((*SEARCH, "--weight-decay", "inf"), "--weight-decay is inf; expected 0 to 10"),
        ((*SEARCH, "--clip-norm", "nan"), "--clip-norm is nan"),
        ((*SEARCH, "--mixup", "inf"), "--mixup is inf"),
        ((*SEARCH, "--trials", "1" + "0" * 30), "--trials is a number of about 31 digits; expected 1 to 1,000,000"),
        ((*SEARCH, "--epochs", "1" + "0" * 500), "--epochs is a number of about 501 digits"),
        ((*SEARCH, "--batch-size", "0"), "--batch-size is 0; expected 1 to 1,000,000"),
        ((*SEARCH, "--resolution", "100000000"), "--resolution is 100000000; expected 1 to 8,192"),
        ((*SEARCH, "--threads", "1000000"), "--threads is 1000000; expected 1 to 1,024"),
        (("search", "--budget", "1e30MFLOPs"), "budget '1e30MFLOPs' is more than any network takes (at most 1,000,000 GFLOPs)"),
        (("train", "--budget", "1e30GB"), "budget '1e30GB' is more than any network takes (at most 100,000 GB)"),
        (("search", "--budget", "abc"), "budget 'abc' was not understood"),
        (("search", "--budget", "1MFLOPs", "--budget", "2MFLOPs"), "both limit macs"),
        ((*PRUNE, "--shape", "3x100000x100000"), "--shape 3x100000x100000 is too large for any network"),
        ((*PRUNE, "--steps", str(10**21)), "--steps is a number of about 22 digits"),
        ((*PRUNE, "--least", "nan"), "--least is nan; expected 0 to 1"),
        ((*PRUNE, "--round-to", "1000000"), "--round-to is 1000000; expected 1 to 4,096"),
        (("quantize", "resnet18", "--images", str(10**12)), "--images is 1000000000000; expected 4 to 10,000,000"),
        (("cost", "resnet18", "--shape", "3x" + "9" * 99 + "x2"), "is too large for any network"),
    ],
)
def test_numbers_out_of_range_are_one_line(args, expected, monkeypatch):
    assert expected in refusal(monkeypatch, *args)


@pytest.mark.parametrize("text", ["widen=1e-9", "widen=nan", "widen=inf", "widen=1e9", "ratios=0.5,1e99", "ratios=nan"])
def test_settings_of_a_space_are_checked_before_data_are_read(text):
    result = CliRunner().invoke(
        app, ["search", "--budget", "3MFLOPs", "--space", "resnet", "--data", "npz:none.npz", "--set", text]
    )
    assert result.exit_code == 2
    assert f"--set '{text}': expected a value like" in result.stderr and "numbers from 0.001 to 10,000" in result.stderr


def test_every_range_holds_its_ends_and_nothing_beyond():
    for name, known in RANGES.items():
        assert known.holds(known.most) and not known.holds(known.most * 2), name
        assert known.holds(known.least) != known.above and not known.holds(known.least - 1), name
        assert not any(known.holds(value) for value in (float("nan"), float("inf"), -(10**400), 10**400)), name
    assert str(Range(0, 1e6)) == "0 to 1,000,000"


def test_large_budgets_that_networks_do_take():
    for text in ("1000GFLOPs", "600Gparams", "2000GB", "1e6ms"):
        assert Budget.parse(text).limit > 0
    with pytest.raises(InvalidBudget, match="at most 10,000 Gparams"):
        Budget.parse("99999999Gparams")


def test_the_nearest_name_is_asked_for():
    assert not_known("adam", ["sgd", "adamw"]) == "'adam' is not known; choose one of sgd, adamw (did you mean adamw?)"
    assert not_known("L3", ["l2x"], "auto or ") == "'L3' is not known; choose auto or one of l2x"
    assert unknown_key("epoch", {"epochs"}) == "has the unknown key 'epoch' (did you mean epochs?); known keys: epochs"
    assert did_you_mean("xyz", ["sgd"]) == "" and issubclass(InvalidBudget, NasError)
