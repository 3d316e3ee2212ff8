"""Candidates that are clearly worse stop early, batches fit into memory, and as many images are read as were asked for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from quantize_toy import mini, plain
from torch import Tensor, nn

from compress.quantize import memory
from compress.quantize.memory import images_at_once, live_bytes
from compress.quantize.passes import Passes
from compress.quantize.race import FEWEST, Runner, winner
from nas.cli.quantizing import job
from nas.data.load import DataConfig, load
from nas.torch_seeding import generator

NOISE = [torch.rand(16, generator=generator(0, "losses", number)) for number in range(10)]


def runner(shift: float, asked: list[int]) -> Runner:
    def loss(number: int) -> Tensor:
        asked.append(number)
        return NOISE[number] + shift

    return Runner(loss)


def test_what_is_clearly_worse_is_left_out_and_the_rest_decides():
    asked: list[list[int]] = [[], [], []]
    runners = [runner(1.0, asked[0]), runner(0.001, asked[1]), runner(0.0, asked[2])]
    assert winner(runners, len(NOISE)) == 2
    assert asked[0] == list(range(FEWEST // 16))  # and not again
    assert runners[0].error == pytest.approx(float(torch.cat(NOISE[:2]).mean()) + 1)


def test_of_equal_ones_the_first_wins_at_once():
    asked: list[list[int]] = [[], []]
    assert winner([runner(0.0, asked[0]), runner(0.0, asked[1])], len(NOISE)) == 0
    assert asked == [list(range(FEWEST // 16)), list(range(FEWEST // 16))]


def counted(told: list[tuple[int, int]], runners: int) -> tuple[Passes, list[Runner]]:
    """Passes that expect so many runners, of which the first is clearly the best."""
    passes = Passes(lambda made, most: told.append((made, most)))
    passes.expect(runners * len(NOISE))

    def runner(shift: float) -> Runner:
        def loss(number: int) -> Tensor:
            passes.made()
            return NOISE[number] + shift

        return Runner(loss)

    return passes, [runner(shift) for shift in range(runners)]


@pytest.mark.parametrize("runners", [1, 2, 5])
def test_passes_that_are_left_fall_to_none_as_runners_drop_out(runners):
    told: list[tuple[int, int]] = []
    passes, entered = counted(told, runners)
    assert winner(entered, len(NOISE), passes) == 0
    assert [made for made, _ in told] == list(range(1, len(told) + 1))
    assert told[0] == (1, runners * len(NOISE))
    totals = [most for _, most in told]
    assert totals == sorted(totals, reverse=True)
    passes.made()  # nothing was left
    assert told[-1] == (len(told), len(told)) and sum(len(r.known) for r in entered) == len(told) - 1


def test_what_is_not_known_is_judged_on_all_images():
    # as good on average as the other one, and quite another one on each image
    other = Runner(lambda number: NOISE[number].flip(0))
    one = runner(0.0, [])
    assert winner([one, other], len(NOISE)) in (0, 1)
    assert len(one.known) == len(other.known) == len(NOISE)


def test_the_loss_that_is_told_takes_as_many_images_as_its_error_needs():
    asked: list[int] = []
    # a deviation of 0.29 beside a mean of 0.5: 36 images have a standard error of a tenth of the mean
    few = runner(0.0, asked)
    assert few.told(len(NOISE)) == pytest.approx(float(torch.cat(NOISE[: len(asked)]).mean())) and len(asked) in (2, 3)
    wild = Runner(lambda number: NOISE[number] ** 20)
    assert wild.told(len(NOISE)) == wild.error and len(wild.known) == len(NOISE)
    seen = runner(5.0, [])
    seen.losses(6)
    assert seen.told(len(NOISE)) == pytest.approx(float(torch.cat(NOISE[:6]).mean()) + 5)


def test_losses_that_were_computed_are_kept():
    asked: list[int] = []
    one = runner(0.5, asked)
    assert one.losses(3).shape == (48,) and one.losses(4).shape == (64,) and one.losses(2).shape == (32,)
    assert asked == [0, 1, 2, 3]


def test_live_bytes_are_those_of_the_largest_moment():
    # the image and what the first layer writes, 3x8x8 and 6x8x8; then 6x8x8 and its activation; then 4 channels of it
    assert live_bytes(plain(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 1))) == 4 * 64 * 12
    assert live_bytes(plain(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 1))) == 4 * 64 * 5


@pytest.mark.parametrize(("limit", "images"), [(10**9, 64), (10 * 20_000, 10), (1, 1)])
def test_images_at_once(limit, images, monkeypatch):
    network = mini()
    monkeypatch.setattr(memory, "live_bytes", lambda _: 20_000)
    monkeypatch.setattr(memory, "LIMIT", limit)
    assert images_at_once(network, 64) == images


@pytest.mark.parametrize("asked", [512, 70, 4, 9999])
def test_as_many_images_as_were_asked_for(asked, monkeypatch):
    data = load(DataConfig("digits"))
    network = plain(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), shape=(1, 8, 8))
    told: list[str] = []
    monkeypatch.setattr(job, "log", told.append)
    asked_job = SimpleNamespace(settings=SimpleNamespace(images=asked, seed=0), network=network, data=data)
    batches = job.calibration_images(asked_job)
    there = len(data.train)
    assert sum(map(len, batches)) == min(asked, there) and len(batches) >= 2 and max(map(len, batches)) <= 64
    assert told == (
        [f"--images {asked}: digits has {there} training images, and all of them are used"] if asked > there else []
    )
    # every one of them once
    rows = torch.cat(batches).flatten(1)
    assert len(rows.unique(dim=0)) >= 0.99 * len(rows)
