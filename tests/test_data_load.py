"""Names of data sets and settings of loading."""

from pathlib import Path

import pytest

from nas.data.config import DataConfig
from nas.data.load import SOURCES, load
from nas.errors import InvalidData, InvalidSetting


def refused(config: DataConfig) -> str:
    with pytest.raises(InvalidData) as caught:
        load(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("digts", " (did you mean digits?)"),
        ("CIFAR-10", " (did you mean cifar10?)"),
        ("mnist", " (did you mean fashion-mnist?)"),
        ("digits:8", " (did you mean digits?)"),
        ("my/data.npz", " (did you mean npz:my/data.npz?)"),
        ("zzz", ""),
    ],
)
def test_unknown_names_are_refused_with_a_suggestion(name: str, suggestion: str) -> None:
    assert refused(DataConfig(name)) == f"unknown data '{name}'{suggestion}; choose one of {', '.join(SOURCES)}"


def test_a_bare_folder_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    assert f"(did you mean imagefolder:{tmp_path}?)" in refused(DataConfig(str(tmp_path)))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"val_fraction": 0.0}, "val_fraction is 0.0; choose a fraction between 0 and 1, like 0.1"),
        ({"val_fraction": 1.0}, "val_fraction is 1.0; choose a fraction between 0 and 1, like 0.1"),
        ({"resolution": 0}, "resolution is 0; choose a side in pixels, like 32"),
        ({"workers": -1}, "workers is -1; choose 0 to decode in the main process, or more"),
    ],
)
def test_senseless_settings_are_refused(setting: dict, message: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        DataConfig("digits", **setting)
    assert str(caught.value) == message
