"""What all cuts of an aim share: the same as if each of them found it anew."""

import numpy as np
import pytest
from own_network import QUICK, TINY

from compress.prune.depth import residual_blocks, without
from compress.prune.history import History
from compress.prune.pipeline import Pruned, analysed, ranked
from nas.cli.pruning.clock import Clock
from nas.cli.pruning.cutting import Start, Workshop
from nas.cli.pruning.job import make_prune_job
from nas.cli.pruning.settings import PruneSettings


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    """Where a network of one residual block is cut with digits at hand."""
    (tmp_path / "tiny_net.py").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    options = dict(zip(QUICK[::2], QUICK[1::2], strict=True))
    wanted = PruneSettings(
        network="python:tiny_net:residual", budget=("60%",), data=options["--data"], device="cpu", threads=1, round_to=2
    )
    job = make_prune_job(wanted)
    return Workshop(job, Clock(job, tmp_path))


def test_cuts_of_a_shorter_network_are_ranked_as_that_network_is(workshop):
    subject = workshop.subject
    blocks = tuple(residual_blocks(subject.module, subject.example))
    shorter = analysed(without(subject.module, blocks), subject.example)
    start = Start(workshop, Pruned(shorter, History(blocks), {g.name: g.width for g in shorter.groups}))
    found, wanted = start.ranking, ranked(shorter, workshop.job.recipe, workshop.calibration)
    assert (
        blocks and found.curves == wanted.curves and set(found.scores) == set(wanted.scores) == {g.name for g in shorter.groups}
    )
    assert all(np.array_equal(found.scores[name], wanted.scores[name]) for name in wanted.scores)
    assert start.ranking is found  # once for all attempts


def test_a_whole_network_is_ranked_once_for_all_aims(workshop):
    whole = Pruned(workshop.subject, History(), {})
    assert Start(workshop, whole).ranking is Start(workshop, whole).ranking is workshop.ranking
