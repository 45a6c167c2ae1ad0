"""Systems side by side on the same items: columns of a table, a model, or a trial's checkpoints."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import optuna

from hawsweep.data.columns import is_group
from hawsweep.data.load import choose_subset, load_data
from hawsweep.data.records import Record, Records
from hawsweep.data.table import full_rows, open_table
from hawsweep.data.tokens import encode
from hawsweep.errors import DataError, HawsweepError, ModelError, ScoringError
from hawsweep.files import read_regular
from hawsweep.layout import CHECKPOINT_DIR, CONFIG_FILE, SPEC_FILE
from hawsweep.models import resolve
from hawsweep.models.config_file import CONFIG_BYTES
from hawsweep.models.hub import here
from hawsweep.models.load import LoadedModel, load_model
from hawsweep.scoring.intervals import Interval, difference_interval, rank_correlation
from hawsweep.scoring.score import Score, Scorer
from hawsweep.spec.read import read_sweep
from hawsweep.spec.scoring import ScoringSpec
from hawsweep.spec.space import apply_settings
from hawsweep.spec.sweep import DataSpec, SweepSpec
from hawsweep.spec.train import TrainSpec
from hawsweep.study.place import Place
from hawsweep.study.study import date_of, spec_of
from hawsweep.study.trials import trial_of
from hawsweep.text import SayProgress, counted
from hawsweep.training.adapters import adapted, load_adapter
from hawsweep.training.evaluation import make_evaluator, perplexity


@dataclass(frozen=True)
class System:
    """One of several systems that answered the same items.

    Attributes:
        lead: The difference of its score to the next one's; None for the last.
        loss: Of the split's answers, in nats per token; None where no model was loaded for it.
    """

    name: str
    score: Score
    lead: Interval | None
    loss: float | None = None

    @property
    def perplexity(self) -> float | None:
        """Perplexity of a token of the split's answers."""
        return None if self.loss is None else perplexity(self.loss)


@dataclass(frozen=True)
class Ranking:
    """Systems, best first.

    Attributes:
        agreement: Spearman's correlation of their scores with their chrF; None for fewer than
            three.
        reversed_pairs: Neighbours in the reverse order by chrF.
    """

    systems: tuple[System, ...]
    agreement: float | None
    reversed_pairs: tuple[tuple[str, str], ...]

    def to_plain(self) -> dict[str, Any]:
        """As plain values, for ``--json``."""
        return {
            "systems": [
                {
                    "name": each.name,
                    **each.score.summary(),
                    "lead": None if each.lead is None else vars(each.lead),
                    "loss": each.loss,
                    "perplexity": each.perplexity,
                }
                for each in self.systems
            ],
            "agreement": self.agreement,
            "reversed_pairs": self.reversed_pairs,
        }


def rank(scores: Mapping[str, Score], losses: Mapping[str, float] | None = None) -> Ranking:
    """Order systems that answered the same items, and compare each with the next.

    Args:
        losses: Of systems by name; see ``System``.
    """
    ordered = sorted(scores.items(), key=lambda item: -item[1].score)
    leads: list[Interval | None] = [
        difference_interval(_values(one), _values(other))
        for (_, one), (_, other) in pairwise(ordered)
    ]
    systems = tuple(
        System(name, score, lead, (losses or {}).get(name))
        for (name, score), lead in zip(ordered, [*leads, None], strict=True)
    )
    pairs = tuple(
        (one.name, other.name)
        for one, other in pairwise(systems)
        if one.score.chrf < other.score.chrf
    )
    agreement = rank_correlation(
        [each.score.score for each in systems], [each.score.chrf for each in systems]
    )
    return Ranking(systems, agreement, pairs)


def score_file(path: Path, source: str, reference: str, spec: ScoringSpec) -> Ranking:
    """Score every other column of a table against its column ``reference``.

    An empty cell is an empty answer, and counted as a fault. A column ``group`` is no system.

    Raises:
        DataError: The file is no table, has no such columns, no rows, or rows without a source or a
            reference.
    """
    rows = _read_rows(path, (source, reference))
    records = [
        Record({"prompt": row[source], "completion": row[reference]}, f"{path}:{number}")
        for number, row in rows
    ]
    names = [name for name in rows[0][1] if name not in (source, reference) and not is_group(name)]
    if not names:
        raise DataError(f"{path} has no column beside {source} and {reference} to score.")
    scorer = _scorer(spec)
    outputs = {name: [row[name] for _, row in rows] for name in names}
    # All at once: batches of texts of similar length have little padding.
    scorer.embedder.embed([text for texts in outputs.values() for text in texts])
    return rank({name: scorer.compare(records, texts) for name, texts in outputs.items()})


def data_to_score(
    reference: str, trained: Path, source: str | None, target: str | None
) -> DataSpec:
    """The data that a model answers. If it is of a study that has them, they have the study's
    columns, prompt and split.

    Args:
        trained: The folder of the adapter, else of the model, which may be a fused one.
        source, target: Columns of a table; None: the study's, or chosen.
    """
    found = DataSpec(path=reference)
    for folder in trained.absolute().parents:
        if (kept := folder / SPEC_FILE).is_file():
            with suppress(HawsweepError):  # of another version
                same = (d for d in read_sweep(kept).data if here(d.path) == here(reference))
                found = next(same, found)
            break
    asked = {"source": source, "target": target}
    return found.model_copy(update={key: each for key, each in asked.items() if each})


def score_model(
    reference: str,
    adapter_path: Path | None,
    data: DataSpec,
    split: str,
    spec: ScoringSpec,
    progress: SayProgress = lambda _: None,
) -> Ranking:
    """Let a model answer a split's prompts, and measure its loss on the whole split; with an
    adapter, both without and with it.

    Raises:
        DataError: The split is empty.
        ModelError: The model or the adapter cannot be loaded.
    """
    if adapter_path is not None and not os.path.lexists(adapter_path / CONFIG_FILE):
        raise ModelError(f"{adapter_path} has no {CONFIG_FILE}. Give an adapter's folder.")
    splits = load_data((data,), progress)
    records = list(choose_subset(getattr(splits, split), spec.max_examples, 0))
    if not records:
        raise DataError(f"{data.path} has no records in its split {split}.")
    scorer = _scorer(spec)
    path = resolve.resolve_model(reference, progress)
    scores, losses = {}, {}
    train = _trained_as(adapter_path)
    for name, adapter in (("model", None), ("with adapter", adapter_path)):
        if name == "model" or adapter is not None:
            loaded = load_model(path, adapter)
            progress(f"{name}: loss on {counted(len(getattr(splits, split)), 'record')} of {split}")
            losses[name] = _loss(loaded, getattr(splits, split), train)
            progress(f"{name}: answering {counted(len(records), 'prompt')} of {split}")
            scores[name] = scorer.score(loaded, records)
    return rank(scores, losses)


def _trained_as(adapter_path: Path | None) -> TrainSpec:
    """How an adapter was trained, as far as a loss depends on it."""
    known: dict[str, Any] = {}
    if adapter_path is not None:
        with suppress(ValueError, OSError):  # loading the adapter names the fault
            config = json.loads(read_regular(adapter_path / CONFIG_FILE, CONFIG_BYTES))
            known = {key: config[key] for key in ("mask_prompt", "max_seq_length") if key in config}
    return TrainSpec.model_validate({"mask_prompt": True, **known})


def _loss(loaded: LoadedModel, records: Records, train: TrainSpec) -> float:
    examples = encode(records, loaded.template, train).examples
    longest = int(examples.lengths.max())  # no batch needs more memory than the longest alone
    return make_evaluator(loaded.model, examples, None, max_tokens=longest)(0).val_loss


def score_checkpoints(
    study: optuna.Study, place: Place, number: int, progress: SayProgress = lambda _: None
) -> Ranking:
    """Score every checkpoint that a trial kept, on the validation prompts.

    Raises:
        ScoringError: The trial kept none.
        StudyError: There is no such trial.
    """
    trial = trial_of(study, number)
    folder = place.trial_dir(study.study_name, number) / CHECKPOINT_DIR
    kept = sorted(folder.glob("[0-9]*"))
    if not kept:
        raise ScoringError(
            f"Trial {number} kept no checkpoints. Set train.keep_checkpoints before a sweep."
        )
    spec: SweepSpec = spec_of(study, trial, place)
    scorer = _scorer(spec.scoring, trust_remote_code=spec.trust_remote_code)
    path = resolve.resolve_model(spec.model, progress)
    trusted = spec.trust_remote_code
    loaded = load_model(path, trust_remote_code=trusted, today=date_of(study))
    valid = load_data(spec.data, progress).valid
    records = list(choose_subset(valid, spec.scoring.max_examples, spec.seed))
    scores = {}
    with adapted(loaded.model, apply_settings(spec.train, trial.params)):
        for checkpoint in kept:
            progress(f"checkpoint {int(checkpoint.name)} of {len(kept)} kept")
            load_adapter(loaded.model, checkpoint)
            scores[f"iteration {int(checkpoint.name)}"] = scorer.score(loaded, records)
    return rank(scores)


def _scorer(spec: ScoringSpec, *, trust_remote_code: bool = False) -> Scorer:
    embedder = resolve.resolve_embedder(spec.embedder)
    return Scorer(embedder, spec, trust_remote_code=trust_remote_code)


def _values(score: Score) -> list[float]:
    return [sample.score for sample in score.samples]


def _read_rows(path: Path, needed: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    with open_table(path) as (columns, numbered):
        for name in needed:
            if name not in columns:
                raise DataError(
                    f"{path} has no column {name!r}. Its columns: {', '.join(columns)[:500]}. Name "
                    "two by --source and --reference."
                )
        return list(full_rows(path, numbered, needed))
