"""What of the settings of `nas prune` cannot be, told before anything is read."""

from __future__ import annotations

from collections.abc import Collection

from compress.prune.nni_pruners import require_nni
from compress.prune.pipeline import needs_data
from nas.cli.existing import check_training
from nas.cli.profiling import bench_for
from nas.cli.pruning.job import aims_of, recipe_of, setting_of
from nas.cli.pruning.methods import METHODS, method_of
from nas.cli.pruning.settings import PRUNE_DEFAULTS, PruneSettings
from nas.errors import InvalidSetting

# what other methods do not look at
OF_METHOD = {
    **dict.fromkeys(("importance", "allocation", "steps", "depth"), "cut"),
    **dict.fromkeys(("sparsity", "pattern", "activation"), "sparse"),
    "grow_epochs": "grow",
}


def check_settings(settings: PruneSettings) -> None:
    """Raise InvalidSetting, InvalidBudget or MissingPackage for what does not go together."""
    check_training(settings)
    method_of(settings).check(settings)
    aims_of(settings)
    _check_needs(settings)
    if settings.precision == "int8":
        raise InvalidSetting(
            "--precision 'int8': pruning delivers networks in floating point; give fp32, and quantize what it delivers: "
            "nas quantize RUN, or a recipe for nas compress"
        )
    bench_for(settings.runtime, setting_of(settings))


def check_given(settings: PruneSettings, names: Collection[str]) -> None:
    """Raise InvalidSetting for an option of another method among those that the user gave."""
    for name, method in OF_METHOD.items():
        value = getattr(settings, name)
        chosen = name in names and value != getattr(PRUNE_DEFAULTS, name)
        if chosen and settings.method in METHODS and settings.method != method:
            option = f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")
            raise InvalidSetting(
                f"{option} is of --method {method}, and this is {settings.method}; drop it, or choose {method}"
            )


def _check_needs(settings: PruneSettings) -> None:
    """Raise InvalidSetting for what cannot be done without data, where there are none; MissingPackage."""
    reason = needs_data(recipe_of(settings))
    if settings.importance.startswith("nni-"):
        require_nni()
    if settings.finetune_epochs:
        reason = f"--finetune-epochs {settings.finetune_epochs} needs images to train on"
    if reason and settings.data is None:
        raise InvalidSetting(f"{reason}, and there are none; give --data")
