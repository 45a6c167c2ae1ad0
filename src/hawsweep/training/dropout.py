"""Dropout whose masks depend only on the seed, the iteration and the layer.

MLX's draws from the process-wide generator each time it runs. With gradient checkpointing a block
runs twice, so its backward pass would see other masks than its forward pass, and whether a trial
was checkpointed would change its result.
"""

from typing import Any

from hawsweep.machine.backend import mx, nn

import numpy as np


class DropoutKeys:
    """The keys of one step's masks, one for each registered layer."""

    def __init__(self) -> None:
        self._n_layers = 0
        self._keys: Any = None

    def add_layer(self) -> int:
        """Register one more layer; give its place."""
        self._n_layers += 1
        return self._n_layers - 1

    def start_step(self, key: Any) -> None:
        """Make the keys of a step from the step's key; see ``step_key``."""
        self._keys = mx.random.split(key, self._n_layers)

    def of_layer(self, number: int) -> Any:
        """The key of a layer in this step."""
        return self._keys[number]


class Dropout(nn.Module):  # type: ignore[misc]  # MLX has no types
    """Zeroes a share of its input in training, and scales up the rest."""

    def __init__(self, p: float, keys: DropoutKeys) -> None:
        super().__init__()
        self._keep, self._keys, self._number = 1 - p, keys, keys.add_layer()

    def __call__(self, x: Any) -> Any:
        """The masked input in training; else the input."""
        if not self.training:
            return x
        mask = mx.random.bernoulli(self._keep, x.shape, key=self._keys.of_layer(self._number))
        return (mask * x) * (1 / self._keep)


def put_dropout(model: Any, p: float) -> None:
    """Replace MLX's dropout in every LoRA layer of a model."""
    keys = DropoutKeys()
    for module in model.modules():
        if p > 0 and "lora_a" in module:
            module.dropout = Dropout(p, keys)


def dropout_keys(model: Any) -> DropoutKeys | None:
    """The keys shared by a model's dropout layers; None without such layers."""
    layers = (module for module in model.modules() if isinstance(module, Dropout))
    first = next(layers, None)
    return None if first is None else first._keys


def step_key(seed: int, iteration: int, part: int = 0) -> Any:
    """The key of a step, from the run's seed, the iteration and the part of the batch."""
    state = np.random.SeedSequence([seed, iteration, part]).generate_state(1, np.uint64)
    return mx.random.key(int(state[0]))
