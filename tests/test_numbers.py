import pytest

from nas.budget import format_value
from nas.cli.progress import PlainBar, _time
from nas.numbers import counted, rounded


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (4660.2, "4,660"),
        (13.64, "13.6"),
        (2.0, "2"),
        (0.0000123456, "0.0000123"),
        (999.6, "1,000"),
        (9.999, "10"),
        (1.2e9, "1,200,000,000"),
        (-51234, "-51,200"),
        (float("nan"), "nan"),
    ],
)
def test_no_exponents(value, text):
    assert rounded(value) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (7, "7"),
        (1296, "1,296"),
        (466_560_000, "467 million"),
        (999_999_999, "1 billion"),
        (1.23e13, "12.3 trillion"),
        (4.7e15, "4.7 quadrillion"),
        (4.7e27, "about 10^28"),
        (10**400, "about 10^400"),
    ],
)
def test_counts_in_words(number, text):
    assert counted(number) == text


def test_costs_have_no_exponents():
    assert format_value("latency_ms", 12345.6) == "12,300 ms" and format_value("latency_ms", 0.0000123) == "0.0000123 ms"
    assert format_value("macs", 1.234567e15) == "1,235,000 GFLOPs" and format_value("macs", 5e12) == "5000 GFLOPs"
    assert format_value("macs", 2_970_000) == "2.97 MFLOPs" and format_value("size_bytes", 512_000) == "512 kB"


def test_time_left_in_units_that_fit(capsys):
    assert [_time(s) for s in (40, 99.6, 720, 12_000, 1e6)] == ["40 s", "100 s", "12 min", "3 h 20 min", "11.6 days"]
    bar = PlainBar("training", 10)
    bar.update(10)
    assert "training 10/10, " in capsys.readouterr().err
