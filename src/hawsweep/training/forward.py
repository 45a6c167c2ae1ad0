"""Runs a model in parts: the frozen blocks once, the trained blocks, and the head for counted
tokens.

Nearly every model of mlx-lm has a body (``model.model``: embeddings, blocks, norm) that gives
hidden states, and itself makes logits of them (tied or not, soft-capped, scaled). The parts here
run the model's own code with a block or the body replaced by something that gives back what was
computed before.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hawsweep.machine.backend import mx, utils


def body_holder(model: Any) -> Any:
    """The module whose ``model`` is the body: the model or its language part; None without one."""
    holder = getattr(model, "language_model", model)
    body = getattr(holder, "model", None)
    return holder if callable(body) and hasattr(body, "layers") else None


def hidden_at(
    model: Any, inputs: Any, positions: Any, n_blocks: int = 0, states: Any = None
) -> Any:
    """The hidden states before the head at some places, ``[positions, hidden]``; see
    ``logits_at``. Only for a model with a body.
    """
    body = body_holder(model).model
    hidden = (body if n_blocks == 0 else _resumed(body, n_blocks, states))(inputs, cache=None)
    return hidden.reshape(-1, hidden.shape[-1])[positions]


def logits_at(
    model: Any, inputs: Any, positions: Any, n_blocks: int = 0, states: Any = None
) -> Any:
    """The logits at some places of the flattened inputs, ``[positions, vocabulary]``.

    With a masked prompt most places do not count, and the vocabulary is the widest matrix of a
    small model.

    Args:
        inputs: Token ids, ``[batch, width]``.
        positions: Indices into ``batch * width``.
        n_blocks: Blocks that need not run, because ``states`` are their outputs.
    """
    head = model_head(model)
    if head is None:
        logits = model(inputs)
        return logits.reshape(-1, logits.shape[-1])[positions]
    return head(hidden_at(model, inputs, positions, n_blocks, states))


class Head:
    """The head: hidden states ``[tokens, hidden]`` to logits ``[tokens, vocabulary]``.

    Attributes:
        is_trained: Whether one of its parameters is trainable now.
    """

    def __init__(self, model: Any, holder: Any) -> None:
        self._holder = holder
        trained = (name for name, _ in utils.tree_flatten(model.trainable_parameters()))
        inside = tuple(f"{body_path(model)}.{part}." for part in ("layers", "norm"))
        self.is_trained = not all(name.startswith(inside) for name in trained)

    def __call__(self, hidden: Any) -> Any:
        """The logits."""
        view = copy.copy(self._holder)
        view["model"] = _StandIn(self._holder.model, given=hidden[None])
        return view(mx.zeros((1, 1), mx.int32))[0]


def model_head(model: Any) -> Head | None:
    """The head of a model; None for one without a body."""
    holder = body_holder(model)
    return None if holder is None else Head(model, holder)


def body_path(model: Any) -> str:
    """The name of the body among the model's modules."""
    return "model" if not hasattr(model, "language_model") else "language_model.model"


class FrozenBlocks:
    """The hidden states after the frozen blocks, computed once per batch.

    A sweep's trials see the same batches in the same order and start from the same base, so the
    outputs of the blocks below the first adapted one are the same in every trial and evaluation.
    They are always computed separately, so that a trial's numbers do not depend on kept outputs.

    Args:
        budget_bytes: The most bytes kept; other outputs are computed again.

    Attributes:
        n_blocks: The number of blocks that need not run; 0 outside of ``in_use``.
    """

    def __init__(self, model: Any, budget_bytes: int) -> None:
        self._model = model
        self.n_blocks = 0
        self._budget_bytes = budget_bytes
        self._kept_bytes = 0
        self._kept: dict[tuple[int, str, tuple[int, ...]], Any] = {}

    def set_budget(self, budget_bytes: float) -> None:
        """Set the most bytes to keep; if more is kept, all of it is dropped."""
        self._budget_bytes = int(max(0, budget_bytes))
        if self._kept_bytes > self._budget_bytes:
            self.forget()

    def forget(self) -> None:
        """Drop all outputs: the examples have changed."""
        self._kept.clear()
        self._kept_bytes = 0

    @property
    def kept_bytes(self) -> int:
        """The bytes kept now."""
        return self._kept_bytes

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Skip the blocks below the first trainable parameter."""
        self.n_blocks = self._count()
        try:
            yield
        finally:
            self.n_blocks = 0

    def states(self, split: str, indices: Sequence[int], inputs: Any) -> Any:
        """The outputs of the frozen blocks for a batch, ``[batch, width, hidden]``; None without
        frozen blocks.

        Args:
            split: The split that ``indices`` are of.
        """
        if self.n_blocks == 0:
            return None
        key = (self.n_blocks, split, tuple(indices))
        if key not in self._kept:
            states = _below(body_holder(self._model).model, self.n_blocks, inputs)
            mx.eval(states)
            if self._kept_bytes + states.nbytes > self._budget_bytes:
                return states
            self._kept[key] = states
            self._kept_bytes += states.nbytes
        return self._kept[key]

    def _count(self) -> int:
        holder = body_holder(self._model)
        names = [name for name, _ in utils.tree_flatten(self._model.trainable_parameters())]
        if holder is None or not names:
            return 0
        path = f"{body_path(self._model)}.layers."
        if not all(name.startswith(path) for name in names):
            return 0
        lowest = min(int(name.removeprefix(path).split(".")[0]) for name in names)
        return lowest if self._can_resume(holder, lowest) else 0

    def _can_resume(self, holder: Any, n_blocks: int) -> bool:
        if n_blocks == 0:
            return False
        inputs = mx.arange(6).reshape(2, 3)
        was_training = self._model.training
        self._model.eval()  # dropout has no keys outside of a training step
        try:
            whole = holder.model(inputs, cache=None)
            resumed = _resumed(holder.model, n_blocks, _below(holder.model, n_blocks, inputs))
            parts = resumed(inputs, cache=None)
        except (TypeError, ValueError, AttributeError, IndexError):
            return False  # blocks of another shape than assumed here
        finally:
            self._model.train(was_training)
        return bool(mx.allclose(whole, parts, rtol=1e-4, atol=1e-5))


def _below(body: Any, n_blocks: int, inputs: Any) -> Any:
    """The hidden states that enter block ``n_blocks``."""
    seen: list[Any] = []
    view = copy.copy(body)
    probe = _StandIn(body.layers[n_blocks], seen=seen)
    rest = [_StandIn(block) for block in body.layers[n_blocks + 1 :]]
    view["layers"] = [*body.layers[:n_blocks], probe, *rest]
    view(inputs, cache=None)
    return seen[0]


def _resumed(body: Any, n_blocks: int, states: Any) -> Any:
    """The body with its first blocks replaced by their outputs."""
    view = copy.copy(body)
    first = _StandIn(body.layers[0], given=states)
    between = [_StandIn(block) for block in body.layers[1:n_blocks]]
    view["layers"] = [first, *between, *body.layers[n_blocks:]]
    return view


class _StandIn:
    """Has every attribute of the block or body it replaces, but does not run it: passes its input
    on, or gives ``given`` instead; records its input in ``seen``.
    """

    def __init__(self, original: Any, given: Any = None, seen: list[Any] | None = None) -> None:
        self._original = original
        self._given = given
        self._seen = seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    def __call__(self, states: Any = None, *_: Any, **__: Any) -> Any:
        if self._seen is not None:
            self._seen.append(states)
        return states if self._given is None else self._given
