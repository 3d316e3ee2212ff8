"""Whether two forms of a network answer alike: a module and its trace, its integers, or a file that was written of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nas.errors import InvalidSetting, NasError, VerificationFailed
from nas.torch_seeding import generator

TIE = 1e-3  # images whose two best logits are closer than this, relative to the largest logit, have no stable class
NUDGE = 1e-6  # of an image: about what runtimes round differently
MOST_SLACK = 0.5  # a network that needs more answers with noise, of which nothing can be told
# largest difference of the logits between two runtimes, relative to the largest logit: a hundred times what float32
# kernels that fuse batch norms differ by, and far less than what a wrong weight or a wrong layer changes
TOLERANCE = 1e-3
# of quantized networks: a value on the edge of two integers may fall to either side, and the layers after it carry that on
INTEGER_TOLERANCE = 0.1
# one image, which axes of size one may be dropped with; two, which networks are traced with; and more, as memory allows
BATCHES = (1, 2, 64)
FEWEST, MOST_NUMBERS = 8, 2_500_000
_NOISE = 4  # images that a network is traced for

Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Agreement:
    """How a reloaded network compares to the one in memory on the same images.

    `argmax_agreement` is the fraction of all images with the same class, `decided_agreement` the fraction among those
    that are not ties, at every batch size of `batches`; `max_difference` is of the logits, `scale` the largest logit in
    memory. Logits may differ by `slack` of that; where the two best ones are nearer than that or TIE, the class may change:
    runtimes order sums differently.
    """

    argmax_agreement: float
    max_difference: float
    images: int
    decided_agreement: float
    ties: int
    scale: float
    slack: float = TIE
    batches: tuple[int, ...] = BATCHES

    @property
    def limit(self) -> float:
        """What logits may differ by."""
        return self.slack * self.scale

    @property
    def ok(self) -> bool:
        """Whether the reloaded network is the same one, NaN being nothing."""
        return self.decided_agreement == 1.0 and self.max_difference <= self.limit


def agreement(module: nn.Module, loaded: Network, images: Tensor, slack: float = TIE) -> Agreement:
    """Run `module` and `loaded` on normalized images (N, C, H, W), N > 0, at several batch sizes, and compare their logits.

    Fewer images than the largest batch are repeated. Raises VerificationFailed if `loaded` fails or gives logits of another
    shape.
    """
    with torch.no_grad():
        pairs = [_pair(module, loaded, x) for x in _batches(images)]
    ours, theirs = (torch.cat(side) for side in zip(*pairs, strict=True))
    scale = ours.abs().max().item()
    same = ours.argmax(1) == theirs.argmax(1)
    best = ours.topk(min(2, ours.shape[1]), dim=1).values
    decided = (best[:, 0] - best[:, -1] >= max(TIE, slack) * scale) | (ours.shape[1] == 1)
    sizes = batches_for(images)
    first = sum(sizes[:-1])  # of the batches after the small ones, which are all of the images in order
    of_all = slice(first, first + len(images))
    return Agreement(
        argmax_agreement=same[of_all].float().mean().item(),
        max_difference=(ours - theirs).abs().max().item(),
        images=len(images),
        decided_agreement=min(_share(same[of_all], decided[of_all]), _share(same[:first], decided[:first])),
        ties=int((~decided[of_all]).sum()),
        scale=scale,
        slack=slack,
        batches=sizes,
    )


def batches_for(images: Tensor) -> tuple[int, ...]:
    """The sizes BATCHES; of large images the last one is smaller, for a network holds many times what it reads."""
    *small, most = BATCHES
    return (*small, max(FEWEST, min(most, MOST_NUMBERS // max(1, images[0].numel()))))


def slack_of(module: Network, images: Tensor, tolerance: float) -> float:
    """What logits of two runtimes that are both right may differ by, as a share of the largest: at least `tolerance`.

    More, but never more than MOST_SLACK, where a change of the images by NUDGE moves the logits of `module` itself by more
    than half of that: integers jump where a value falls to the other side of an edge, and untrained weights carry that to
    the end.
    """
    drawn = generator(0, "nudge")
    moved = largest = 0.0
    with torch.no_grad():
        for part in images.split(batches_for(images)[-1]):
            before = module(part)
            after = module(part * (1 + NUDGE * torch.randn(part.shape, generator=drawn)))
            moved = max(moved, (after - before).abs().max().item())
            largest = max(largest, before.abs().max().item())
    return max(tolerance, min(MOST_SLACK, 2 * moved / largest)) if largest else tolerance


def check_same(module: Network, other: Network, images: Tensor, what: str, tolerance: float = TOLERANCE) -> None:
    """Compare `other`, which `what` names, with the network that it was made of, on `images` and on one of them alone.

    Where the network's own logits are not finite, as random weights may make them, nothing is compared. Raises
    VerificationFailed.
    """
    with torch.no_grad():
        for x in (images, images[:1]):
            ours, theirs = module(x), other(x)
            if ours.shape != theirs.shape:
                shapes = f"{tuple(theirs.shape)}, and the network {tuple(ours.shape)}"
                raise VerificationFailed(f"{what} gives logits {shapes}, for {len(x)} images; {_REPORT}")
            difference, scale = (ours - theirs).abs().max().item(), ours.abs().max().item()
            if difference <= tolerance * scale or not ours.isfinite().all():
                continue
            slack = slack_of(module, x, tolerance)
            if not difference <= slack * scale:
                found = f"logits up to {difference:.3g} apart, at most {slack * scale:.3g}"
                raise VerificationFailed(f"{what} gives other answers than the network: {found} ({len(x)} images); {_REPORT}")


def check_batches(name: str, module: nn.Module, images: Tensor) -> None:
    """Raise InvalidSetting if `module` (evaluation mode) answers otherwise for one image than for several at once."""
    try:
        with torch.no_grad():
            together, alone = module(images), module(images[:1])
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        first = str(error).strip().partition("\n")[0][:200]
        raise InvalidSetting(f"{name} does not run on one image and on {len(images)} ({first}); {_ANY_NUMBER}") from error
    if tuple(alone.shape) != (1, *together.shape[1:]):
        shapes = f"logits of shape {tuple(alone.shape)} for 1 image and {tuple(together.shape)} for {len(images)}"
        raise InvalidSetting(f"{name} gives {shapes}; {_ANY_NUMBER}")
    check = InvalidSetting(
        f"{name} answers otherwise for one image than for {len(images)} at once, and no file holds both ways; {_ANY_NUMBER}"
    )
    _raise_if_other(module, images, (together[:1], alone), check)


def noise_of(shape: tuple[int, int, int]) -> Tensor:
    """A few images of noise of `shape` (C, H, W)."""
    return torch.randn(_NOISE, *shape, generator=generator(0, "images"))


# -- parts

_ANY_NUMBER = "let its forward do the same for any number of images, and keep the first axis, as .flatten(1) does"
_REPORT = "keep what depends on values of tensors out of its forward; if nothing does, this is a fault: please report it"


def _batches(images: Tensor) -> Iterator[Tensor]:
    """Batches of the small sizes, then all images in batches of the largest size, repeated where they do not fill one."""
    *small, most = batches_for(images)
    repeated = images.repeat(-(-most // len(images)), *(1 for _ in images.shape[1:]))
    yield from (repeated[:size] for size in small)
    yield from images.split(most) if len(images) >= most else [repeated[:most]]


def _share(same: Tensor, decided: Tensor) -> float:
    return same[decided].float().mean().item() if decided.any() else 1.0


def _pair(module: Network, loaded: Network, images: Tensor) -> tuple[Tensor, Tensor]:
    ours, theirs = module(images), loaded(images)
    if ours.shape != theirs.shape:
        shapes = f"{tuple(theirs.shape)} for {len(images)} images, expected {tuple(ours.shape)}"
        raise VerificationFailed(f"the reloaded network gives logits {shapes}")
    return ours, theirs


def _raise_if_other(module: nn.Module, images: Tensor, logits: tuple[Tensor, Tensor], error: NasError) -> None:
    """Raise `error` if two tensors of logits of the same images differ by more than rounding does."""
    difference, scale = (logits[0] - logits[1]).abs().max().item(), logits[0].abs().max().item()
    if difference > TOLERANCE * scale and difference > slack_of(module, images, TOLERANCE) * scale:
        raise error
