"""Answers are compared at several batch sizes, within what rounding moves."""

from __future__ import annotations

import sys

import pytest
import torch
from networks import images
from torch import Tensor, nn

from compress.agreement import BATCHES, agreement, batches_for, check_batches, check_same
from nas.cli.pruning.original import read_original
from nas.cli.shared_settings import ExistingSettings
from nas.errors import InvalidSetting, VerificationFailed

X = images(5, 3, 4, 4)


class Sums(nn.Module):
    """Two logits for each image, by a function of the whole batch."""

    def __init__(self, then=lambda logits: logits) -> None:
        super().__init__()
        self.then = then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(torch.stack((x.sum((1, 2, 3)), x.square().sum((1, 2, 3))), 1))


def doubled_at(size: int):
    return lambda logits: 2 * logits if len(logits) == size else logits


@pytest.mark.parametrize("size", BATCHES)
@pytest.mark.parametrize("n", [1, 3, 64, 70])
def test_a_file_that_is_wrong_at_one_batch_size_is_found(size, n):
    x = images(n, 3, 4, 4)
    assert agreement(Sums(), Sums(), x).ok
    assert not agreement(Sums(), Sums(doubled_at(size)), x).ok
    assert agreement(Sums(), Sums(), x).images == n


def test_another_shape_at_one_batch_size_is_named():
    with pytest.raises(VerificationFailed, match=r"logits \(2,\) for 1 images, expected \(1, 2\)"):
        agreement(Sums(), Sums(lambda logits: logits.squeeze()), X)


def test_agreement_counts_every_image_once():
    wrong = agreement(Sums(), Sums(lambda logits: logits.flip(1)), X)
    assert (wrong.argmax_agreement, wrong.decided_agreement, wrong.images, wrong.ties) == (0.0, 0.0, 5, 0)


def test_networks_that_answer_for_each_image_alone_pass():
    check_batches("net", Sums(), X)
    check_batches("net", nn.Sequential(nn.Flatten(), nn.BatchNorm1d(48), nn.Linear(48, 3)).eval(), X)


@pytest.mark.parametrize(
    ("then", "words"),
    [
        (doubled_at(1), "net answers otherwise for one image than for 5 at once"),
        (lambda logits: logits.squeeze(), r"net gives logits of shape \(2,\) for 1 image and \(5, 2\) for 5"),
        (lambda logits: logits - logits.mean(0), "net answers otherwise for one image"),
        (lambda logits: logits[1:][:1] + logits, r"net does not run|net gives logits of shape|net answers otherwise"),
        (lambda logits: logits.view(5, 2), r"net does not run on one image and on 5 \(shape '\[5, 2\]'"),
    ],
)
def test_networks_that_depend_on_the_number_of_images_are_refused(then, words):
    with pytest.raises(InvalidSetting, match=words):
        check_batches("net", Sums(then), X)


def test_a_form_that_answers_otherwise_is_named():
    check_same(Sums(), Sums(lambda logits: logits + 1e-6), X, "the copy")
    with pytest.raises(VerificationFailed, match="the copy gives other answers than the network: logits up to 1 apart"):
        check_same(Sums(), Sums(lambda logits: logits + 1), X, "the copy")
    with pytest.raises(VerificationFailed, match="the copy gives other answers"):
        check_same(Sums(), Sums(lambda logits: logits * torch.nan), X, "the copy")
    with pytest.raises(VerificationFailed, match=r"the copy gives logits \(5, 1\), and the network \(5, 2\)"):
        check_same(Sums(), Sums(lambda logits: logits[:, :1]), X, "the copy")


def test_nothing_is_compared_with_logits_that_are_not_finite():
    check_same(Sums(lambda logits: logits * torch.inf), Sums(lambda logits: logits * torch.nan), X, "the copy")


OWN = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x):
        return {answer}

def net():
    return Net()
"""


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("self.head(self.conv(x).mean((2, 3))) * (2 if x.shape[0] == 1 else 1)", "answers otherwise for one image"),
        ("self.head(nn.functional.adaptive_avg_pool2d(self.conv(x), 1).squeeze())", r"logits of shape \(2,\) for 1 image"),
    ],
)
def test_such_a_network_is_refused_as_soon_as_it_is_read(answer, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    (tmp_path / "net_by_size.py").write_text(OWN.format(answer=answer))
    with pytest.raises(InvalidSetting, match=words):
        read_original(ExistingSettings(network="python:net_by_size:net", shape="3x8x8"), None)


@pytest.mark.parametrize(("side", "largest"), [(8, 64), (32, 64), (112, 64), (224, 16), (600, 8)])
def test_the_largest_batch_of_large_images_is_smaller(side, largest):
    assert batches_for(torch.empty(1, 3, side, side, device="meta")) == (1, 2, largest)
