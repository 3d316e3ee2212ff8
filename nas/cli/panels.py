"""The help of a command: its options under headings, as wide as the terminal, without importing anything heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from typer.core import TyperCommand

if TYPE_CHECKING:
    from typer._click import Context, HelpFormatter

WIDEST = 140  # longer lines are hard to read
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": WIDEST}

# in this order; what is named nowhere comes under OTHERS
PANELS: Mapping[str, tuple[str, ...]] = {
    "Network and budget": ("weights", "budget", "sweep", "max_drop", "recipe", "space", "set", "supernet", "trust_code"),
    "Data": ("data", "data_dir", "resolution", "shape", "mean", "std"),
    "Search": ("searcher", "trials"),
    "Pruning": (
        *("method", "importance", "allocation", "steps", "depth", "compensate", "round_to", "least"),
        *("sparsity", "pattern", "activation", "grow_epochs"),
    ),
    "Quantization": (*("calibration", "images", "keep", "bits", "activation_bits", "sensitivity", "equalize", "correct_bias"),),
    "Training": (
        *("epochs", "finetune_epochs", "batch_size", "optimizer", "lr", "weight_decay", "smoothing", "clip_norm"),
        *("flip", "crop", "cutout", "mixup", "sampler", "train_precision"),
    ),
    "Timing": ("runtime", "precision", "batch", "table", "accept_foreign_table"),
    "Run": ("device", "threads", "seed", "out", "resume", "json", "config"),
}
OTHERS = "Options"
FEW = 10  # options that need no headings


class Command(TyperCommand):
    """A command whose help shows its options under the headings of PANELS, where there are many of them."""

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the arguments, then the options by heading, then those of no heading, --help among them."""
        records = {param: param.get_help_record(ctx) for param in self.get_params(ctx)}
        rows = {param: row for param, row in records.items() if row is not None}
        arguments = [row for param, row in rows.items() if param.param_type_name == "argument"]
        options = {str(param.name): row for param, row in rows.items() if param.param_type_name == "option"}
        sections = {"Arguments": arguments, **self._sections(options)}
        for title, lines in sections.items():
            if lines:
                with formatter.section(title):
                    formatter.write_dl(lines)

    def _sections(self, options: Mapping[str, tuple[str, str]]) -> dict[str, list[tuple[str, str]]]:
        if len(options) <= FEW:
            return {OTHERS: list(options.values())}
        found = {title: [options[name] for name in names if name in options] for title, names in PANELS.items()}
        named = {name for names in PANELS.values() for name in names}
        return {**found, OTHERS: [row for name, row in options.items() if name not in named]}
