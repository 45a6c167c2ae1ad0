"""How much data is enough: the winner's settings trained on parts of the data, and the curve."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.trial import FrozenTrial, TrialState

from hawsweep.errors import StudyError
from hawsweep.layout import LOSSES_FILE
from hawsweep.results.companion import SIZE, companion_spec
from hawsweep.scoring.intervals import LEVEL, Interval
from hawsweep.spec.space import Choices, apply_settings
from hawsweep.spec.sweep import DataSpec, SweepSpec
from hawsweep.spec.train import TrainSpec
from hawsweep.study.attributes import BEST_ITERATION, SELF_CHECK, VAL_LOSS
from hawsweep.study.baselines import base_values
from hawsweep.study.confirm import confirming_study, winner
from hawsweep.study.optuna_door import storage_of
from hawsweep.study.place import Place
from hawsweep.study.storage import study_names
from hawsweep.study.study import load_study, spec_of
from hawsweep.study.trials import n_records

_MOST_SIZES, FEWEST_SIZES = 5, 3
_SMALLEST = 20
_PATIENCE = 3
_DRAWS = 4000
# The most noise of a run, as a share of its loss, and of what its score lacks: of few prompts.
_LOSS_NOISE, _SCORE_NOISE = 0.05, 0.3
# From this share of the gain on, a part of the data is said to do.
_ENOUGH = 0.9
# Of all examples, those before the best of some evaluations in a pass are nearly all.
_ALL = 0.9


@dataclass(frozen=True)
class SizeRow:
    """The runs on so many training examples.

    Attributes:
        val_loss: The lowest of each run in nats per token, the mean of the seeds.
        score: The mean of the seeds.
        best_iteration: Of the first seed.
        share: Of what all data lower the untuned model's loss by, as the curve has it.
        fitted_loss: Of the curve.
    """

    size: int
    n_seeds: int
    val_loss: float
    score: float
    best_iteration: int | None
    share: Interval
    fitted_loss: Interval


@dataclass(frozen=True)
class DataCurve:
    """Loss and score by the number of training examples.

    Attributes:
        trial: Whose settings were trained, of the study ``study``.
        base_loss: Of the untuned model on the same validation set.
        n_seen: Examples that a run on all data took up to its best evaluation, in one pass at most.
        largest_loss: With all data, as the smaller sizes alone predict it; None with too few.
        more: A number of further examples; 0 where a run does not see all that there are.
        expected_loss: With them.
        loss_gain: By how much they are expected to lower the loss; ``score_gain``: to raise the
            score.
    """

    study: str
    trial: int
    base_loss: float
    rows: tuple[SizeRow, ...]
    n_seen: int
    largest_loss: Interval | None
    more: int
    expected_loss: Interval
    loss_gain: Interval
    score_gain: Interval

    def to_plain(self) -> dict[str, Any]:
        """As plain values, for ``--json``."""
        return {**asdict(self), "sentences": self.sentences()}

    def sentences(self) -> list[str]:
        """What the curve says, in words."""
        *parts, whole = self.rows
        row = next((each for each in parts if each.share.mean >= _ENOUGH), parts[-1])
        share = row.share
        if share.low == share.high:
            same = f"{row.size:,} examples give what {whole.size:,} give"
            said = [f"{same}: a run sees no more of them."]
        else:
            said = [
                f"{row.size:,} examples give {share.mean:.0%} (95 % {share.low:.0%} to "
                f"{share.high:.0%}) of what {whole.size:,} give, by validation loss."
            ]
        if (told := self.largest_loss) is not None:
            said.append(
                f"The smaller sizes alone predict a loss of {told.mean:.4f} (95 % {told.low:.4f} "
                f"to {told.high:.4f}) with {whole.size:,}; it is {whole.val_loss:.4f}."
            )
        loss, score = self.loss_gain, self.score_gain
        if self.more:
            said.append(
                f"{self.more:,} more are expected to lower the loss by {loss.mean:.4f} (95 % "
                f"{loss.low:.4f} to {loss.high:.4f}), and to raise the score by {score.mean:.4f} "
                f"({score.low:.4f} to {score.high:.4f})."
            )
        else:
            said.append(
                f"By its best evaluation a run on all {whole.size:,} has seen {self.n_seen:,} of "
                "them: until then more examples change nothing. More iterations may tell."
            )
        return said


@dataclass(frozen=True)
class Source:
    """A sweep's data with one data set alone to train on.

    Attributes:
        n: Its training records.
        n_valid: Validation records of the loss, by default as many as its lengths ask for.
    """

    data: tuple[DataSpec, ...]
    n: int
    n_valid: int | None = None

    def changes(self, spec: SweepSpec) -> dict[str, Any]:
        """What it changes in a sweep."""
        if self.n_valid is None:
            return {"data": self.data}
        known = spec.validation.model_dump(exclude_unset=True)
        return {"data": self.data, "validation": {**known, "max_examples": self.n_valid}}


class PowerLaw:
    """Values that fall with the number of examples, and what is known of their curve:

    ``scale * (floor + (1 - floor) * ((n + late) / (smallest + late)) ** -power)``, with noise: a
    power law that may begin late (pow4 of Domhan, Springenberg and Hutter 2015). Small data falls
    slowly first, as long as its runs overfit.

    The posterior is computed on a grid of floor (uniform below 1), power (0.05 to 6), noise (0.2 %
    to ``most_noise`` of the value; both uniform in logarithm) and beginning (at once or late,
    equally likely), exactly in the scale.

    Args:
        sizes: ``[runs]``; several runs may have one size.
        values: Of each run, above 0, ``[runs]``.

    Attributes:
        misfit: Of the nearest curve, the root of the mean square over the runs, as a share.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        values: Sequence[float],
        seed: int = 0,
        most_noise: float = _LOSS_NOISE,
    ) -> None:
        n, y = np.asarray(sizes, float), np.asarray(values, float)
        self._smallest = n.min()
        floors = np.linspace(0.0, 0.99, 60)[:, None, None, None]
        powers = np.geomspace(0.05, 6, 60)[None, :, None, None]
        late = (self._smallest * np.array([0.0, 1, 3, 10, 30, 100]))[None, None, :, None]
        noises = np.geomspace(0.002, most_noise, 14)[None, None, None, :]
        # Over the values, as the noise is a share of them, [floors, powers, late, runs].
        falls = ((n + late) / (self._smallest + late)) ** -powers
        shape = (floors + (1 - floors) * falls) / y
        squares = (shape**2).sum(-1, keepdims=True)
        scale = shape.sum(-1, keepdims=True) / squares
        misfit = ((1 - scale * shape) ** 2).sum(-1, keepdims=True)
        self.misfit = float(np.sqrt(misfit.min() / len(y)))
        log = -(len(y) - 1) * np.log(noises) - misfit / (2 * noises**2) - np.log(squares) / 2
        log = log - np.log(np.where(late > 0, late.size - 1, 1))
        chance = np.exp(log - log.max()).ravel()
        generator = np.random.default_rng(seed)
        drawn = generator.choice(chance.size, _DRAWS, p=chance / chance.sum())
        at_floor, at_power, at_late, at_noise = np.unravel_index(drawn, log.shape)
        self._floor, self._power = floors[at_floor, 0, 0, 0], powers[0, at_power, 0, 0]
        self._late, self._noise = late[0, 0, at_late, 0], noises[0, 0, 0, at_noise]
        spread = self._noise / np.sqrt(squares[at_floor, at_power, at_late, 0])
        self._scale = generator.normal(scale[at_floor, at_power, at_late, 0], spread)
        self._generator = generator

    def at(self, size: float) -> npt.NDArray[np.float64]:
        """The curve at a size, without noise, ``[draws]``."""
        falls = ((size + self._late) / (self._smallest + self._late)) ** -self._power
        found: npt.NDArray[np.float64] = self._scale * (self._floor + (1 - self._floor) * falls)
        return found

    def size_at(self, value: float) -> npt.NDArray[np.float64]:
        """The size at which a run's value is this one, with noise, ``[draws]``; infinite where the
        curve stays above it.
        """
        noisy = value * (1 + self._generator.normal(0, self._noise))
        rest = (noisy / self._scale - self._floor) / (1 - self._floor)
        with np.errstate(divide="ignore", over="ignore"):
            times = np.maximum(rest, 0) ** (-1 / self._power)
        found: npt.NDArray[np.float64] = (self._smallest + self._late) * times - self._late
        return np.maximum(found, 0)

    def run_at(self, size: float) -> npt.NDArray[np.float64]:
        """What a run would measure, with noise, ``[draws]``."""
        found: npt.NDArray[np.float64] = self.at(size) * (
            1 + self._generator.normal(0, self._noise)
        )
        return found


def curve_name(name: str, trial: int) -> str:
    """The name of the study that holds the runs of a trial's settings on parts of the data."""
    return f"{name}-sizes-{trial}"


def sizes_of(study: optuna.Study) -> list[int]:
    """The sizes of a study that trained parts of the data.

    Raises:
        StudyError: It is another kind of study.
    """
    asked = spec_of(study).search.get(SIZE)
    if not isinstance(asked, Choices):
        raise StudyError(
            f"Study {study.study_name!r} does not train parts of its data. Give another name with "
            "--study."
        )
    return sorted(int(each) for each in asked.choices)


def curve_spec(
    study: optuna.Study,
    trial: FrozenTrial,
    place: Place,
    sizes: Sequence[int] | None,
    n_seeds: int,
    source: Source | None = None,
) -> SweepSpec:
    """The sweep that trains a trial's settings on parts of the data, each within the larger.

    Each size ends where its validation loss stops falling, and counts with its best evaluation.

    Args:
        sizes: Numbers of training examples; all are added. By default up to five.
        n_seeds: How often each is trained.
        source: The data set to train on, which may have too few examples for a curve.

    Raises:
        StudyError: There are too few examples, or a size is none.
    """
    spec = spec_of(study, trial)
    train = apply_settings(spec.train, trial.params)
    n = n_records(study, "train") if source is None else source.n
    if source is not None and sizes is not None:
        sizes = [each for each in sizes if each <= n]
    chosen = sorted({*(_usual_sizes(n, train.batch_size) if sizes is None else sizes), n})
    if chosen[-1] > n or chosen[0] < train.batch_size:
        raise StudyError(
            f"The sizes are {', '.join(map(str, chosen))}, but must be from {train.batch_size}, "
            f"which is a batch, to {n}, the training records of study {study.study_name!r}."
        )
    if len(chosen) < FEWEST_SIZES and source is None:
        raise StudyError(
            f"A data curve takes {FEWEST_SIZES} sizes or more. Study {study.study_name!r} has {n} "
            f"training records, for these: {', '.join(map(str, chosen))}."
        )
    patience = train.early_stopping_patience or _PATIENCE
    return companion_spec(
        study,
        trial,
        place,
        chosen,
        n_seeds,
        description=f"How much data the settings of trial {trial.number} of {study.study_name} "
        "need.",
        train={"early_stopping_patience": patience},
        **({} if source is None else source.changes(spec)),
    )


def _usual_sizes(n: int, batch_size: int) -> list[int]:
    smallest = max(_SMALLEST, batch_size)
    if n < smallest:
        return [n]
    found = np.geomspace(smallest, n, _MOST_SIZES)
    return [n if each >= n else int(float(f"{each:.2g}")) for each in found]


def read_curve(study: optuna.Study, name: str, trial: int) -> DataCurve:
    """The curve of a study that trained a trial's settings on parts of the data.

    Args:
        name: Of the study with that trial.

    Raises:
        StudyError: Fewer than three sizes are complete, or no curve is near their losses.
    """
    runs = _runs(study)
    sizes = sorted({size for size, _ in runs})
    train = spec_of(study).train
    base = base_values(study, {})
    if len(sizes) < FEWEST_SIZES or not base:
        raise StudyError(
            f"{len(sizes)} sizes are complete, and a curve takes {FEWEST_SIZES}. Their runs are in "
            f"study {study.study_name!r}."
        )
    ceiling = float((study.user_attrs.get(SELF_CHECK) or {}).get("ceiling", 1.0))
    losses = _loss_curve(runs, train)
    if losses.misfit > 2 * _LOSS_NOISE:
        raise StudyError(
            f"The losses of {len(sizes)} sizes follow no curve that falls and levels off: the "
            f"nearest is {losses.misfit:.0%} away from them. Their runs are in study "
            f"{study.study_name!r}."
        )
    # What is missing to the right answers falls like a loss.
    missing = [max(ceiling - (each.value or 0.0), 1e-3 * (abs(ceiling) or 1.0)) for _, each in runs]
    scores = PowerLaw(
        [_seen(size, each, train) for size, each in runs], missing, most_noise=_SCORE_NOISE
    )
    base_loss = float(base["val_loss"])
    seen = dict.fromkeys(sizes, 0)
    for size, each in runs:
        seen[size] = max(seen[size], _seen(size, each, train))
    most = seen[sizes[-1]]
    more = int(float(f"{most / 2:.2g}")) if most >= _ALL * sizes[-1] else 0

    if np.quantile(losses.at(most), (1 + LEVEL) / 2) >= base_loss:
        raise StudyError(
            f"All {sizes[-1]:,} examples do not surely lower the untuned model's validation loss "
            f"({base_loss:.4f}), so that parts of them give no share of it. Their runs are in "
            f"study {study.study_name!r}."
        )

    def row(size: int) -> SizeRow:
        of_it = [each for at, each in runs if at == size]
        has_seen = min(seen[size], most)  # a part's best evaluation may be later
        share = (base_loss - losses.at(has_seen)) / (base_loss - losses.at(most))
        return SizeRow(
            size,
            len(of_it),
            float(np.mean([_loss(each) for each in of_it])),
            float(np.mean([each.value for each in of_it])),
            of_it[0].user_attrs.get(BEST_ITERATION),
            _interval(share),
            _interval(losses.at(has_seen)),
        )

    def gain(curve: PowerLaw) -> Interval:
        return _interval(curve.at(most) - curve.at(most + more))

    largest = None
    if len(sizes) > FEWEST_SIZES:
        fewer = [(at, each) for at, each in runs if at < sizes[-1]]
        largest = _interval(_loss_curve(fewer, train).run_at(most))
    return DataCurve(
        name,
        trial,
        base_loss,
        tuple(map(row, sizes)),
        most,
        largest,
        more,
        _interval(losses.at(most + more)),
        gain(losses),
        gain(scores),
    )


def known_curve(study: optuna.Study) -> DataCurve | None:
    """The curve of the best trial's settings; None before three sizes of it were trained."""
    best, storage = winner(study), storage_of(study)
    if best is None:
        return None
    name = curve_name(study.study_name, best.number)
    if name not in study_names(storage):
        return None
    try:
        return read_curve(load_study(storage, name), study.study_name, best.number)
    except StudyError:
        return None


def lowest_losses(study: optuna.Study) -> list[tuple[int, float]]:
    """The size and the lowest validation loss of each complete run."""
    return [(size, _loss(each)) for size, each in _runs(study)]


def loss_curve(study: optuna.Study) -> PowerLaw:
    """The curve of validation loss by the number of examples that a run saw."""
    return _loss_curve(_runs(study), spec_of(study).train)


def _loss_curve(runs: Sequence[tuple[int, FrozenTrial]], train: TrainSpec) -> PowerLaw:
    seen = [_seen(size, each, train) for size, each in runs]
    return PowerLaw(seen, [_loss(each) for _, each in runs])


def n_measured(study: optuna.Study, place: Place) -> int | None:
    """On how many validation records a study's losses were measured; None if that is gone."""
    for _, trial in _runs(study):
        path = place.trial_dir(study.study_name, trial.number) / LOSSES_FILE
        if path.exists():
            return len(np.load(path))
    return None


def _runs(study: optuna.Study) -> list[tuple[int, FrozenTrial]]:
    again = confirming_study(study)
    trials = [*study.get_trials(deepcopy=False), *(again.get_trials() if again else ())]
    return [
        (int(each.params[SIZE]), each)
        for each in trials
        if each.state == TrialState.COMPLETE and VAL_LOSS in each.user_attrs
    ]


def _seen(size: int, trial: FrozenTrial, train: TrainSpec) -> int:
    """Of a run's examples about how many it took up to its best evaluation."""
    iteration = trial.user_attrs.get(BEST_ITERATION)
    if iteration is None:
        return size
    return min(size, int(iteration * train.batch_size / train.augment.growth))


def _loss(trial: FrozenTrial) -> float:
    return float(trial.user_attrs[VAL_LOSS])


def _interval(draws: npt.NDArray[np.float64]) -> Interval:
    low, high = (float(each) for each in np.quantile(draws, ((1 - LEVEL) / 2, (1 + LEVEL) / 2)))
    return Interval(float(draws.mean()), low, high)
