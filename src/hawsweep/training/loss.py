"""The loss of each target token, without ever holding the logits of all of them.

The logits of a long batch are the largest array of a training step: 1,024 tokens of a vocabulary of
262,144 take 1 GB, and automatic differentiation keeps several of that size. Here the head and the
cross-entropy run over one slice of tokens at a time, and a slice's gradient is made in the same
pass: the gradient of a token's loss by its logits is softmax minus the target, which the loss has
nearly computed already. So only that gradient is kept, as wide as the hidden states, no value is
computed twice, and each exponential is taken once.
"""

import math
from collections.abc import Callable
from typing import Any

from hawsweep.machine.backend import is_cpu, mx, nn

from hawsweep.training.forward import hidden_at, logits_at, model_head


def target_losses(
    model: Any,
    arrays: tuple[Any, ...],
    n_frozen: int = 0,
    tokens_at_once: int | None = None,
    gradient: bool = False,
) -> Any:
    """Cross-entropy of each target token in nats, 0 for padding, ``[targets]``.

    Args:
        arrays: A batch's inputs, positions, targets and weights, and the states after ``n_frozen``
            blocks.
        tokens_at_once: Tokens whose logits are held at the same time; None for all. With a head
            that is itself trained, always all.
        gradient: Whether the losses will be differentiated. The head's parameters then get no
            gradient, unless one of them is trained.
    """
    inputs, positions, targets, weights, states = arrays
    head = model_head(model)
    if head is None or (gradient and head.is_trained):
        logits = logits_at(model, inputs, positions, n_frozen, states)
        return nn.losses.cross_entropy(logits.astype(mx.float32), targets) * weights
    hidden = hidden_at(model, inputs, positions, n_frozen, states)
    losses_of = _differentiable_losses if gradient else _losses
    n_tokens = len(targets)
    if tokens_at_once is None or tokens_at_once >= n_tokens:
        return losses_of(head, hidden, targets)[0] * weights
    losses, before = [], None
    for start in range(0, n_tokens, tokens_at_once):
        part = hidden[start : start + tokens_at_once]
        # Else MLX runs ahead and holds more slices.
        if gradient and before is not None:
            part = mx.depends(part, [before])
        loss, before = losses_of(head, part, targets[start : start + tokens_at_once])
        if not gradient:
            mx.eval(loss)
        losses.append(loss)
    return mx.concatenate(losses) * weights


def _losses(head: Callable[[Any], Any], hidden: Any, targets: Any) -> tuple[Any, Any]:
    loss, _, _ = _loss_and_exponentials(head(hidden).astype(mx.float32), targets)
    return loss, loss


def _differentiable_losses(
    head: Callable[[Any], Any], hidden: Any, targets: Any
) -> tuple[Any, Any]:
    """The losses of a slice, and their gradients by its hidden states, ``[tokens, hidden]``."""

    def weighted_logits(hidden: Any) -> tuple[Any, Any]:
        logits = head(hidden).astype(mx.float32)
        # Differentiated as if weighted by constants: so the head's own derivative is used,
        # whatever it does to the logits, and the logits are computed once.
        loss, by_logits = _loss_and_gradient(mx.stop_gradient(logits), targets)
        return (logits * by_logits).sum(), loss

    @mx.custom_function
    def losses_and_gradient(hidden: Any) -> tuple[Any, Any]:
        outputs: Any
        outputs, gradients = mx.vjp(
            weighted_logits, [hidden], [mx.array(1.0), mx.zeros(len(targets))]
        )
        return outputs[1], gradients[0]

    @losses_and_gradient.vjp
    def _(_: Any, cotangents: Any, outputs: Any) -> Any:
        return (cotangents[0][:, None] * outputs[1]).astype(outputs[1].dtype)

    made: Any = losses_and_gradient(hidden)
    return made[0], mx.stop_gradient(made[1])


def _loss_and_gradient(logits: Any, targets: Any) -> tuple[Any, Any]:
    """Cross-entropy, and softmax minus the target, each exponential taken once."""
    loss, exponentials, total = _loss_and_exponentials(logits, targets)
    probabilities, chosen = exponentials / total, targets[:, None]
    of_target = mx.take_along_axis(probabilities, chosen, axis=-1)
    return loss, mx.put_along_axis(probabilities, chosen, of_target - 1, axis=-1)


def _loss_and_exponentials(logits: Any, targets: Any) -> tuple[Any, Any, Any]:
    """Cross-entropy, and the softmax's numerators and denominators."""
    largest = mx.max(logits, axis=-1, keepdims=True)
    exponentials = _exp(logits - largest)
    total = exponentials.sum(axis=-1, keepdims=True)
    of_target = mx.take_along_axis(logits, targets[:, None], axis=-1)
    return (largest + mx.log(total) - of_target)[:, 0], exponentials, total


def _exp(values: Any) -> Any:
    # On a CPU MLX's exp takes three times as long as its power, and most of the loss's time.
    return mx.power(math.e, values) if is_cpu() else mx.exp(values)
