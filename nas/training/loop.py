"""The one training loop: supernets, networks alone, fine-tuning. What differs is the objective that is given to it.

Every random number is a function of (seed, epoch) or (seed, step), so a run that is killed and resumed ends with the
same weights as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch import Tensor

from nas.data.augment import Augmentation, augment, normalize
from nas.data.dataset import Dataset, epoch_batches
from nas.errors import InvalidSetting, TrainingDiverged, not_known
from nas.rundir import RunDir
from nas.torch_seeding import generator
from nas.weights import from_bytes, to_bytes

# yields one loss after another for (images, targets, step); each is back-propagated before the next is computed
Objective = Callable[[Tensor, Tensor, int], Iterator[Tensor]]
# the writing of checkpoints may take up to so much of the time
CHECKPOINT_SHARE = 0.02
# times the first loss, and the largest weight: beyond these no lower learning rate brings a training back
MOST_LOSS, MOST_GROWTH = 10.0, 1000.0


@dataclass(frozen=True)
class TrainConfig:
    """How to train. `lr` is the peak of a cosine schedule after a linear warm-up over the fraction `warmup` of the steps.

    `steps`, where given, ends the training within an epoch, or after more of them than `epochs`.

    Raises InvalidSetting if a number is out of its range.
    """

    epochs: int
    batch_size: int
    optimizer: str = "sgd"
    lr: float = 0.1
    weight_decay: float = 1e-4
    warmup: float = 0.05
    clip_norm: float = 5.0
    precision: str = "fp32"
    seed: int = 0
    steps: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "steps"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InvalidSetting(f"{name} is {getattr(self, name)}; a training needs at least 1")
        for name in ("lr", "clip_norm"):
            if not getattr(self, name) > 0:
                raise InvalidSetting(f"{name} is {getattr(self, name)}; choose a positive number")
        if not self.weight_decay >= 0:
            raise InvalidSetting(f"weight_decay is {self.weight_decay}; choose 0 to turn it off, or more")


@dataclass(frozen=True)
class Progress:
    """What a finished step reports; `loss` is the first of the objective's losses."""

    step: int
    steps: int
    epoch: int
    loss: float
    lr: float


def sgd(parameters: list[dict], config: TrainConfig) -> torch.optim.Optimizer:
    """Stochastic gradient descent with Nesterov momentum 0.9."""
    return torch.optim.SGD(parameters, lr=config.lr, momentum=0.9, nesterov=True)


def adamw(parameters: list[dict], config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019)."""
    return torch.optim.AdamW(parameters, lr=config.lr)


OPTIMIZERS: dict[str, Callable[[list[dict], TrainConfig], torch.optim.Optimizer]] = {"sgd": sgd, "adamw": adamw}


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Linear warm-up, then cosine to zero."""
    warmup = max(1, round(config.warmup * steps))
    if step < warmup:
        return config.lr * (step + 1) / warmup
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def steps_per_epoch(data: Dataset, config: TrainConfig) -> int:
    """Number of full batches of an epoch."""
    return len(epoch_batches(len(data.train), config.batch_size, config.seed, 0))


def total_steps(data: Dataset, config: TrainConfig) -> int:
    """Number of steps of a whole training."""
    return config.steps or config.epochs * steps_per_epoch(data, config)


def train(
    module: nn.Module,
    objective: Objective,
    data: Dataset,
    augmentation: Augmentation,
    config: TrainConfig,
    checkpoints: Checkpoints,
) -> Iterator[Progress]:
    """Train `module` in place on data.train, from the last checkpoint if there is one; yields after every step.

    Raises TrainingDiverged if a loss or the gradient is not finite; the weights and the checkpoint stay those before it.
    """
    device = next(module.parameters()).device
    optimizer = make_optimizer(module, config)
    per_epoch = steps_per_epoch(data, config)
    steps = total_steps(data, config)
    step = checkpoints.restore(module, optimizer)
    health = Health(module)
    module.train()
    for epoch in range(step // per_epoch, math.ceil(steps / per_epoch)):
        batches = epoch_batches(len(data.train), config.batch_size, config.seed, epoch)[step % per_epoch :]
        for raw, labels in data.train.batches(batches[: steps - step]):
            lr = learning_rate(config, step, steps)
            for group in optimizer.param_groups:
                group["lr"] = lr
            images = normalize(raw, data.mean, data.std, device)
            images, targets = augment(images, labels.to(device), augmentation, generator(config.seed, "augment", step))
            optimizer.zero_grad(set_to_none=True)
            loss = _backward(objective(images, targets, step), config.precision, device)
            norm = nn.utils.clip_grad_norm_(module.parameters(), config.clip_norm)
            if not (math.isfinite(loss) and math.isfinite(number(norm))):
                if health.is_spoiled(module):
                    checkpoints.go_back()
                raise TrainingDiverged(_diverged(loss, number(norm), step, lr, checkpoints))
            if health.is_good(loss):
                checkpoints.was_good(step)
            optimizer.step()
            step += 1
            checkpoints.save(module, optimizer, step, last=step == steps)
            yield Progress(step, steps, epoch, loss, lr)


def make_optimizer(module: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Build the optimizer; norms and biases are not decayed. Raises InvalidSetting for an unknown name."""
    if config.optimizer not in OPTIMIZERS:
        raise InvalidSetting(f"optimizer {not_known(config.optimizer, OPTIMIZERS)}")
    parameters = list(module.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return OPTIMIZERS[config.optimizer](groups, config)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Context in which convolutions and products run in bf16, if that is the precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def number(value: Tensor) -> float:
    """Read a tensor of one element from its device: the one place where a training waits for a GPU."""
    return float(value.detach())


def _backward(losses: Iterator[Tensor], precision: str, device: torch.device) -> float:
    """Accumulate the gradients of all losses; returns the first. A loss that is not finite ends it at once."""
    first = math.nan
    for i in range(1_000):
        with autocast(precision, device):
            loss = next(losses, None)
        if loss is None:
            break
        value = number(loss)
        first = value if i == 0 else first
        if not math.isfinite(value):
            return value
        loss.backward()
    return first


def _diverged(loss: float, norm: float, step: int, lr: float, checkpoints: Checkpoints) -> str:
    what = f"loss {loss:g}, gradient norm {norm:g}"
    kept = f"the checkpoint of step {checkpoints.step} is kept" if checkpoints.step else "no step before it is worth keeping"
    kept = kept if checkpoints.run else "no checkpoint was asked for"
    where = f"training diverged at step {step} ({what}, learning rate {lr:.3g})"
    return f"{where}; {kept}. Try a lower --lr, or --train-precision fp32"


class Health:
    """Tells weights that a training has spoiled: they, or the loss, have grown beyond what it can come back from."""

    def __init__(self, module: nn.Module) -> None:
        self._size, self._first, self._last = _largest(module), math.nan, math.nan

    def is_good(self, loss: float) -> bool:
        """Whether the weights that gave a finite loss are worth keeping."""
        self._first = loss if math.isnan(self._first) else self._first
        self._last = loss
        return loss <= MOST_LOSS * max(self._first, 1.0)

    def is_spoiled(self, module: nn.Module) -> bool:
        """Whether the weights of now, which gave a loss that is not finite, are not worth keeping."""
        return self._last > MOST_LOSS * max(self._first, 1.0) or not _largest(module) <= MOST_GROWTH * max(self._size, 1.0)


def _largest(module: nn.Module) -> float:
    return max((number(p.detach().abs().max()) for p in module.parameters() if p.numel()), default=0.0)


class Checkpoints:
    """Saves weights and optimizer state of one training under one name in a run directory; without one, does nothing.

    Every step is saved as long as that takes little of the time (CHECKPOINT_SHARE); of faster steps, as many as that allows.
    """

    def __init__(self, run: RunDir | None = None, name: str = "") -> None:
        self.run, self.name, self.step = run, name, 0
        self._cost, self._last = 0.0, -math.inf
        self._saved: tuple[int, bytes] | None = None
        self._good: tuple[int, bytes] | None = None

    def restore(self, module: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> int:
        """Load the last checkpoint, if any; returns the number of steps done. Without `optimizer`, the weights alone.

        Raises CorruptRun.
        """
        found = self.run.load_checkpoint(self.name) if self.run else None
        if found is None:
            return 0
        tensors = from_bytes(found[0])
        module.load_state_dict({n[6:]: t for n, t in tensors.items() if n.startswith("model.")})
        if optimizer is not None:
            _restore_optimizer(optimizer, tensors)
        self.step = int(found[1]["step"])
        self._good = self.step, found[0]  # where there is none better, it is what is gone back to
        return self.step

    def was_good(self, step: int) -> None:
        """The weights of `step` gave a loss that is worth keeping them."""
        if self._saved is not None and self._saved[0] == step:
            self._good = self._saved

    def go_back(self) -> None:
        """Put the last good checkpoint in the place of the last one; without one the training starts again."""
        if self.run is None:
            return
        if self._good is None:
            self.run.remove_checkpoint(self.name)
            self.step = 0
        else:
            self.step, payload = self._good
            self.run.save_checkpoint(self.name, payload, {"step": self.step}, durable=True)

    def save(self, module: nn.Module, optimizer: torch.optim.Optimizer, step: int, last: bool) -> None:
        """Write a checkpoint if it is the last one, or if enough time has passed for it to be cheap."""
        start = time.monotonic()
        if self.run is None or not (last or start - self._last >= self._cost / CHECKPOINT_SHARE):
            return
        tensors = {f"model.{n}": t for n, t in module.state_dict().items()}
        for index, fields in optimizer.state_dict()["state"].items():
            tensors |= {f"optim.{index}.{n}": t for n, t in fields.items() if isinstance(t, Tensor)}
        self._saved = step, to_bytes(tensors)
        self.run.save_checkpoint(self.name, self._saved[1], {"step": step}, durable=last)
        self.step, self._last = step, time.monotonic()
        self._cost = self._last - start


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load the state that is among the tensors of a checkpoint."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optim."):
            _, index, field = name.split(".", 2)
            state.setdefault(int(index), {})[field] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
