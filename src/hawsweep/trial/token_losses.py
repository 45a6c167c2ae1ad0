"""The tokens of the validation answers that a trial found hardest."""

from dataclasses import dataclass
from heapq import nlargest
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna

from hawsweep.data.load import choose_subset, load_data
from hawsweep.data.tokens import encode_record
from hawsweep.study.place import Place
from hawsweep.study.study import spec_of
from hawsweep.study.trials import trial_of
from hawsweep.text import SayProgress, counted
from hawsweep.trial.adapted_model import adapted_model


@dataclass(frozen=True)
class TokenLoss:
    """A token of an answer that the model was to predict.

    Attributes:
        loss: In nats.
        token: Its text.
        before: The answer up to it.
        after: The answer behind it.
        where: File and line of the record.
    """

    loss: float
    token: str
    before: str
    after: str
    where: str


def hardest_tokens(
    study: optuna.Study,
    place: Place,
    number: int,
    n: int,
    progress: SayProgress = lambda _: None,
) -> list[TokenLoss]:
    """The ``n`` tokens of highest loss in the answers to the validation prompts that are scored.

    Raises:
        StudyError: There is no such trial, or its adapter was not kept.
    """
    spec = spec_of(study, trial_of(study, number), place)
    with adapted_model(study, place, number, progress) as loaded:
        valid = load_data(spec.data, progress).valid
        records = choose_subset(valid, spec.scoring.max_examples, spec.seed)
        decode, found = loaded.tokenizer.decode, []
        for record in records:
            progress(f"losses on {counted(len(records), 'answer')}")
            encoded = encode_record(record, loaded.template, mask_prompt=spec.train.mask_prompt)
            tokens = encoded.tokens[: spec.train.max_seq_length]
            start = max(1, encoded.start)
            losses = _losses(loaded.model, tokens)[start - 1 :]
            for at, loss in enumerate(losses.tolist(), start):
                parts = tokens[at : at + 1], tokens[start:at], tokens[at + 1 :]
                found.append((loss, parts, record.where))
    return [
        TokenLoss(loss, decode(token), decode(before), decode(after), where)
        for loss, (token, before, after), where in nlargest(n, found, key=lambda each: each[0])
    ]


def _losses(model: Any, tokens: list[int]) -> npt.NDArray[np.float32]:
    """The loss of each token but the first, ``[tokens - 1]``, in nats."""
    from hawsweep.machine.backend import mx, nn

    row = mx.array(tokens)[None]
    losses = nn.losses.cross_entropy(model(row[:, :-1]).astype(mx.float32), row[:, 1:])
    return np.array(losses[0])
