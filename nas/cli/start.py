"""The entry of the command `nas`: signals are taken care of before anything else is imported."""

from __future__ import annotations

from nas.cli.signals import leave_quietly


def main() -> None:
    """Run the command line."""
    leave_quietly()
    from nas.cli.main import main as run  # only now: an interruption while it is imported ends in one line, too

    run()
