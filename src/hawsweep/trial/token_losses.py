"""The tokens of the validation answers that a trial found hardest."""

from dataclasses import dataclass
from heapq import nlargest
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna

from hawsweep.data.load import choose_subset, load_data
from hawsweep.data.tokens import encode_record
from hawsweep.errors import StudyError
from hawsweep.layout import ADAPTER_DIR, WEIGHTS_FILE
from hawsweep.models import resolve
from hawsweep.models.load import load_model
from hawsweep.spec.space import apply_settings
from hawsweep.study.place import Place
from hawsweep.study.study import date_of, spec_of
from hawsweep.study.trials import trial_of
from hawsweep.text import SayProgress


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
    from hawsweep.training.adapters import adapted, load_adapter

    trial = trial_of(study, number)
    adapter = place.trial_dir(study.study_name, number) / ADAPTER_DIR
    if not (adapter / WEIGHTS_FILE).is_file():
        raise StudyError(
            f"Trial {number} of study {study.study_name!r} has no adapter: it did not train, or "
            "only those of the best trials are kept, which `keep` says."
        )
    spec = spec_of(study, trial)
    valid = load_data(spec.data, progress).valid
    records = choose_subset(valid, spec.scoring.max_examples, spec.seed)
    path = resolve.resolve_model(spec.model, progress)
    trusted = spec.trust_remote_code
    loaded = load_model(path, trust_remote_code=trusted, today=date_of(study))
    decode, found = loaded.tokenizer.decode, []
    with adapted(loaded.model, apply_settings(spec.train, trial.params)):
        load_adapter(loaded.model, adapter)
        loaded.model.eval()
        for record in records:
            progress(f"losses on {len(records)} answers")
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
