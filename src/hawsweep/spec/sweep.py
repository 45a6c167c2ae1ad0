"""SweepSpec: the keys of a sweep, their schema and fingerprint. Reading one from a file:
read.py.

The keys of ``train`` and ``search`` are mlx_lm.lora's, with its meaning and defaults; what hawsweep
adds or changes is said at the key.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, field_validator, model_validator

from hawsweep.spec.checks import NEWS, check_artifacts, check_keep, check_news, check_trackers
from hawsweep.spec.scoring import RetentionSpec, ScoringSpec, with_data
from hawsweep.spec.space import MODEL, Choices, Search, SearchValue, as_text
from hawsweep.spec.train import Section, TrainSpec, count_or
from hawsweep.spec.yaml_text import dump_yaml
from hawsweep.text import counted
from hawsweep.units import parse_duration, parse_share, parse_size

# Keys of a sweep that have no influence on a trial's numbers.
HOW_IT_RUNS = (
    *("trials", "timeout", "workers", "memory", "confirm", "machine", "keep", "notify"),
    *("pruning", "sampler", "stop_when", "report_to", "prefer", "artifacts", "retention"),
)
# Keys that sweeps of earlier versions have, and what to do instead.
GONE_KEYS = {
    "machine.window": (
        "remove it, and have the system's scheduler (cron or launchd) start the sweep with a "
        "timeout"
    ),
    "machine.on_battery": (
        "remove it; `hawsweep stop` ends a sweep, and the same start goes on with it"
    ),
    "machine.on_memory_pressure": (
        "remove it; memory.budget and memory.reserve leave memory to other programs"
    ),
}
_MOST_WORKERS = 64

Duration = Annotated[float, BeforeValidator(parse_duration)]
AutoOrCount = Annotated[int | Literal["auto"], count_or("auto", 1)]
Normalize = Literal["none", "nfc", "okina"]


class DataSpec(Section):
    """The source of the records, if it needs more than a name."""

    path: str = Field(min_length=1, examples=["path: pairs.csv"])
    """A bundled name, a folder, a file (.csv, .tsv, .jsonl, .json, .parquet or .txt) or a Hugging
    Face data set."""
    revision: str | None = Field(
        None, min_length=1, examples=["path: my-name/my-pairs, revision: v1.0"]
    )
    """Of a Hugging Face data set: its branch, tag or commit; the main branch by default."""
    source: str | None = Field(None, examples=["path: pairs.csv, source: Hawaiian"])
    """Table: the column to translate from; by default chosen by the names and contents of the
    columns."""
    target: str | None = Field(None, examples=["path: pairs.csv, target: English"])
    """Table: the column to translate to; by default chosen as source is."""
    group: str | None = Field(None, min_length=1, examples=["path: pairs.csv, group: register"])
    """The column of a table, or the key of JSON records, with each record's group, by which scores
    are compared; by default the one named group."""
    prompt: str = Field(
        "Translate to English: {source}",
        examples=['path: pairs.csv, prompt: "Translate to English: {source}"'],
    )
    """Table: the user's message."""
    valid_fraction: float = Field(
        0.1, ge=0, lt=1, examples=["path: pairs.csv, valid_fraction: 0.2"]
    )
    """File: share of its records for validation."""
    test_fraction: float = Field(0.1, ge=0, lt=1, examples=["path: pairs.csv, test_fraction: 0.2"])
    """File: share of its records for the final test."""
    seed: int = Field(0, ge=0, lt=2**32, examples=["path: pairs.csv, seed: 1"])
    """File: seed of the split."""
    split_by: Literal["record", "source"] = Field(
        "record", examples=["path: pairs.csv, split_by: source"]
    )
    """File: source keeps records that ask the same in one split, such as several translations of a
    text: in two they let a score measure memory. Only where they are few, at most five or a tenth
    of the split."""
    weight: float = Field(
        1.0, ge=0, le=1000, examples=["data: [pairs.csv, {path: proverbs, weight: 3}]"]
    )
    """In a list of data sets: how often its training records come in an epoch; 0.5 is a random half
    of them each time, 0 leaves them out and keeps its validation and test records."""
    normalize: Normalize = Field("none", examples=["path: pairs.csv, normalize: okina"])
    """How texts are written: nfc composes characters (Unicode NFC); okina also writes the okina of
    Hawaiian texts as ʻ (U+02BB) where an apostrophe, quotation mark or grave accent stands for it;
    none leaves them as they are."""

    @model_validator(mode="after")
    def _something_to_train_on(self) -> "DataSpec":
        if self.valid_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"valid_fraction {self.valid_fraction:g} and test_fraction {self.test_fraction:g} "
                "leave nothing to train on; lower one"
            )
        return self

    @field_validator("prompt")
    @classmethod
    def _has_source(cls, value: str) -> str:
        if "{source}" not in value:
            raise ValueError("must contain {source}, where the text to translate goes")
        return value


class ValidationSpec(Section):
    """The frozen validation set for the loss."""

    max_examples: AutoOrCount = Field("auto", examples=["max_examples: 100"])
    """A larger split is reduced to a seeded subset of this size; auto: as large as keeps evaluation
    under 15 % of a trial's time."""
    batch_size: AutoOrCount = Field("auto", examples=["batch_size: 8"])
    """Examples evaluated at a time, fewer where memory has no room, no influence on the loss; auto:
    as many as need no more memory than training."""


def _check_amount(value: object, form: str = "a size such as 2GB or a share such as 10%") -> str:
    parse = parse_share if str(value).endswith("%") else parse_size
    parse(value, form)
    return str(value)


def _check_budget(value: object) -> str:
    if value == "auto":
        return "auto"
    return _check_amount(value, "auto, a size such as 24GB or a share such as 75%")


def _check_reserve(value: object) -> str:
    text = _check_amount(value)
    if text.endswith("%") and parse_share(text) == 1:
        raise ValueError("must be below 100%, which leaves nothing")
    return text


class MemorySpec(Section):
    """The memory of all workers together."""

    budget: Annotated[Literal["auto"] | str, PlainValidator(_check_budget)] = Field(
        "auto", examples=["budget: 24GB"]
    )
    """Memory for all workers together: a size such as 24GB, 22GiB, 800MB, or a share of the
    machine's such as 75%; auto: the free memory, at most what a GPU may take."""
    reserve: Annotated[str, PlainValidator(_check_reserve)] | None = Field(
        None, examples=["reserve: 10%"]
    )
    """Part of the budget left to other programs: a size such as 2GB or a share such as 10%; by
    default 10% where budget is auto, else nothing."""

    @model_validator(mode="after")
    def _something_left(self) -> "MemorySpec":
        if self.reserve is None or self.budget == "auto":
            return self
        if any(amount.endswith("%") for amount in (self.budget, self.reserve)):
            return self  # the machine decides
        if parse_size(self.reserve) >= parse_size(self.budget):
            raise ValueError(
                f"reserve is {self.reserve}, must be below budget, which is {self.budget}"
            )
        return self


class PruningSpec(Section):
    """How trials that fall behind in validation loss are given up."""

    name: Literal["promote", "median", "percentile", "none"] = Field(
        "promote", examples=["name: median"]
    )
    """promote: trials pause at an eighth, a quarter and half of their iterations, and the better
    half of them goes on; median, percentile: Optuna's, a trial is ended where its val loss is
    behind that of earlier ones; none: each is trained whole."""
    percentile: float = Field(50.0, gt=0, lt=100, examples=["name: percentile, percentile: 25"])
    """percentile: share of the trials to keep."""
    n_startup_trials: int = Field(4, ge=0, examples=["n_startup_trials: 3"])
    """median, percentile: trials to complete before any is pruned."""
    n_warmup_steps: int = Field(0, ge=0, examples=["n_warmup_steps: 400"])
    """median, percentile: iterations of a trial before it may be pruned."""
    n_min_trials: int = Field(2, ge=1, examples=["n_min_trials: 3"])
    """median, percentile: completed trials needed at an iteration to compare with."""


class SamplerSpec(Section):
    """How settings are proposed."""

    name: Literal["gp", "tpe", "random"] = Field("gp", examples=["name: random"])
    """gp learns what to try next from the val losses of all trials, also unfinished ones, and never
    repeats a setting; tpe, Optuna's, learns from scores; random does not learn."""
    n_startup_trials: int = Field(10, ge=0, examples=["n_startup_trials: 6"])
    """tpe: random trials before the model decides."""


def _check_gain(value: object) -> str:
    if parse_share(value, "a share such as 0.2%") == 1:
        raise ValueError("must be below 100%")
    return str(value)


class StopSpec(Section):
    """When a sweep has nothing more to say."""

    expected_gain: Annotated[str, PlainValidator(_check_gain)] | None = Field(
        None, examples=["expected_gain: 0.2%"]
    )
    """No setting begins once another hour is expected to lower the lowest val loss by less than
    this share; paused trials go on, and the best are confirmed."""


class ConfirmSpec(Section):
    """The best trials are trained again with new seeds, and ranked by those."""

    top: int = Field(3, ge=0, le=1000, examples=["top: 2"])
    """Trials to confirm; 0 for none."""
    seeds: int = Field(2, ge=1, le=1000, examples=["seeds: 1"])
    """New seeds for each."""


class MachineSpec(Section):
    """How the sweep shares its machine; no influence on a trial's numbers."""

    nice: int = Field(5, ge=0, le=19, examples=["nice: 10"])
    """How much the workers give way to other programs."""
    keep_awake: bool = Field(True, examples=["keep_awake: false"])
    """Keep the machine awake while the sweep runs."""
    # One that is well shows life about every five seconds.
    hang_timeout: Duration = Field(1200.0, ge=10.0, examples=["hang_timeout: 30m"])
    """A worker without a sign of life for so long is ended: seconds, or 90s, 20m, 8h."""


def keep_count(keep: str) -> int | None:
    """The number of trials whose adapters are kept; None for all."""
    return None if keep == "all" else int(keep.removeprefix("best "))


def _data_specs(value: object) -> object:
    """One data set or several, each a name or keys, as a list of keys."""
    listed = value if isinstance(value, list | tuple) else [value]
    if not listed:
        raise ValueError("must name at least one data set")
    return [{"path": each} if isinstance(each, str) else each for each in listed]


class SweepSpec(Section):
    """A whole sweep."""

    description: str = Field("", examples=["description: Which rank is enough for our glossary."])
    """The question of the sweep, for people."""
    model: str = Field(
        min_length=1,
        examples=[
            "model: mlx-community/gemma-3-4b-it-4bit",
            "{choices: [smollm2-135m-instruct, mlx-community/gemma-3-1b-it]}",
        ],
    )
    """A bundled name, a folder, or a Hugging Face repository, maybe with @ and a revision; left out
    where search.model has several."""
    data: Annotated[tuple[DataSpec, ...], BeforeValidator(_data_specs)]
    train: TrainSpec = Field(default_factory=TrainSpec)
    search: dict[str, Search] = Field(
        examples=["search: {learning_rate: {low: 1e-5, high: 1e-3, log: true}}"]
    )
    enqueue: tuple[dict[str, Annotated[SearchValue, BeforeValidator(as_text)]], ...] | None = Field(
        None, examples=["enqueue: [{learning_rate: 2e-4}]"]
    )
    """Settings to try first; by default four around what published sweeps suggest."""
    memory: MemorySpec = Field(default_factory=MemorySpec)
    validation: ValidationSpec = Field(default_factory=ValidationSpec)
    pruning: PruningSpec = Field(default_factory=PruningSpec)
    sampler: SamplerSpec = Field(default_factory=SamplerSpec)
    scoring: ScoringSpec = Field(default_factory=ScoringSpec)
    retention: Annotated[RetentionSpec, BeforeValidator(with_data)] | None = None
    confirm: ConfirmSpec = Field(default_factory=ConfirmSpec)
    prefer: Literal["best", "cheap"] = Field("best", examples=["prefer: cheap"])
    """Of the trials that are not told apart from the best by the validation prompts, the one to
    use: the best, or the one that takes least by its settings (examples trained, then rank)."""
    trials: int = Field(20, ge=1, le=10**6, examples=["trials: 16"])
    """Trials to finish, pruned ones included."""
    stop_when: StopSpec = Field(default_factory=StopSpec)
    timeout: Duration | None = Field(None, examples=["timeout: 8h"])
    """No trial starts after this time: 90s, 20m, 8h. Of it the runs with new seeds get theirs."""
    workers: Annotated[int | Literal["auto"], count_or("auto", 1, _MOST_WORKERS)] = Field(
        "auto", examples=["workers: 2"]
    )
    """Processes that train at the same time; auto: as many as make it faster."""
    machine: MachineSpec = Field(default_factory=MachineSpec)
    keep: Annotated[str, PlainValidator(check_keep)] = Field("best 10", examples=["keep: best 3"])
    """Adapters that stay on disk: all, or those of the trials with the highest scores, such as
    best 3; small files always stay."""
    notify: Annotated[tuple[str, ...], BeforeValidator(check_news)] = Field(
        NEWS, examples=["notify: [end, failure]"]
    )
    """Events of which `--notify` or `HAWSWEEP_NOTIFY` notifies: start, a new best trial, end,
    failure."""
    report_to: Annotated[tuple[str, ...], BeforeValidator(check_trackers)] = Field(
        (), examples=["report_to: trackio"]
    )
    """Trackers that get a run for each trial: trackio, wandb, mlflow, or a list of them; where and
    with which key, their own environment variables say."""
    artifacts: Annotated[str | None, BeforeValidator(check_artifacts)] = Field(
        None, examples=["artifacts: s3://bucket/prefix"]
    )
    """Where several machines put the files of their trials: s3://bucket/prefix, or the absolute
    path of a folder that all of them have; by default they stay on the machines that made them."""
    seed: int = Field(0, ge=0, lt=2**32, examples=["seed: 1"])
    """Seed of the sampler and of the validation subset."""
    trust_remote_code: bool = Field(False, examples=["trust_remote_code: true"])
    """Run code that comes with a model."""

    @model_validator(mode="before")
    @classmethod
    def _first_model(cls, content: Any) -> Any:
        """If models are searched, set ``model`` to the first of them."""
        if not isinstance(content, dict) or "model" in content:
            return content
        search = content.get("search")
        if not isinstance(search, dict) or "model" not in search:
            return content
        asked = search["model"]
        is_plain = isinstance(asked, dict)
        choices = asked.get("choices") if is_plain else getattr(asked, "choices", None)
        known = isinstance(choices, list | tuple) and choices and choices[0]
        # A value that is no name is reported as a fault of search.model.
        return {**content, "model": known if isinstance(known, str) and known else "?"}

    @model_validator(mode="after")
    def _longest_of_searched(self) -> "SweepSpec":
        """If lengths are searched, all but a trial's training examples have the longest."""
        asked = self.search.get("max_seq_length")
        if asked is None or "max_seq_length" in self.train.model_fields_set:
            return self
        # Else it is reported as a fault.
        if all(isinstance(each, int | float) for each in asked.given):
            train = self.train.model_copy()
            # Not as a key that the sweep sets beside the searched one.
            train.__dict__["max_seq_length"] = int(max(map(float, asked.given)))
            self.__dict__["train"] = train
        return self

    @field_validator("data")
    @classmethod
    def _has_weight(cls, value: tuple[DataSpec, ...]) -> tuple[DataSpec, ...]:
        if not any(each.weight for each in value):
            raise ValueError("has nothing to train on: weight is 0. Give one a weight above 0")
        return value

    @property
    def models(self) -> tuple[str, ...]:
        """The models that trials train: those of ``search.model``, else the one."""
        asked = self.search.get(MODEL)
        return tuple(map(str, asked.choices)) if isinstance(asked, Choices) else (self.model,)

    @property
    def searches_models(self) -> bool:
        """Whether the model is one of the settings that the study varies."""
        return MODEL in self.search

    def of_model(self, model: str) -> "SweepSpec":
        """The sweep as if it had this one of its models alone."""
        if not self.searches_models:
            return self
        search = {key: asked for key, asked in self.search.items() if key != MODEL}
        return self.model_copy(update={"model": model, "search": search})

    def model_of(self, settings: Mapping[str, Any]) -> str:
        """The model of a trial with these settings."""
        return str(settings.get(MODEL, self.model))

    def ends_of(self, key: str) -> tuple[int, int]:
        """The smallest and the largest value of a whole number in ``train`` or ``search``."""
        asked = self.search.get(key)
        numbers = [getattr(self.train, key)] if asked is None else [*map(int, asked.given)]
        return min(numbers), max(numbers)

    def trained_longest(self) -> tuple["SweepSpec", str]:
        """The sweep with ``iters`` as an outcome, and what changed, in words: at a constant rate a
        run contains every shorter one, so each trial is trained with the most ``iters``.

        Where rates change over a trial, or nothing else is searched, it is the same sweep.
        """
        others = {key: asked for key, asked in self.search.items() if key != "iters"}
        if "iters" not in self.search or not others or self._changes_with_length():
            return self, ""
        _, most = self.ends_of("iters")
        train = self.train.model_copy(update={"iters": most})
        enqueue = self.enqueue and tuple(
            {key: value for key, value in settings.items() if key != "iters"}
            for settings in self.enqueue
        )
        text = (
            f"each trial is trained for {counted(most, 'iteration')}, and its best evaluation is "
            "its result: at a constant rate that contains every shorter one of search.iters"
        )
        return self.model_copy(update={"search": others, "train": train, "enqueue": enqueue}), text

    def _changes_with_length(self) -> bool:
        """Whether a run with fewer ``iters`` may be no part of a longer one."""
        schedule, orders = self.train.lr_schedule, self.search.get("order")
        return (
            schedule.name != "constant"
            or schedule.depends_on_length()
            or any(key.startswith("lr_schedule.") for key in self.search)
            or self.train.order == "curriculum"
            or orders is not None
        )

    def fingerprint(self) -> dict[str, Any]:
        """The keys that decide a trial's numbers, as plain values; a study keeps them.

        How many trials, for how long, by how many workers, in how much memory and when may change.
        """
        content = self.model_dump(mode="json", exclude={"description", *HOW_IT_RUNS})
        content["train"].pop("grad_checkpoint")
        for shown in ("references", "difference"):
            content["scoring"].pop(shown)
        return content

    def digest(self) -> str:
        """A short hash of ``fingerprint``."""
        text = json.dumps(self.fingerprint(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def dump_yaml(self) -> str:
        """The spec as resolved, every default written out, in a form ``read_sweep`` reads."""
        content = self.model_dump(mode="json", exclude_none=True)
        if self.searches_models:
            content.pop(MODEL)
        for key in self.search:
            section = content["train"]
            *parents, last = key.split(".")
            for part in parents:
                section = section.get(part, {})
            section.pop(last, None)
        return dump_yaml(content)


def without_gone_keys(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A spec that an earlier version stored, without the keys in ``GONE_KEYS``."""
    return {
        section: {key: each for key, each in value.items() if f"{section}.{key}" not in GONE_KEYS}
        if isinstance(value, Mapping)
        else value
        for section, value in stored.items()
    }


def short_names(models: Iterable[str]) -> dict[str, str]:
    """Each model's name without its organisation or folder, where that is enough to tell it."""
    listed = list(models)
    last = {model: model.rstrip("/").rsplit("/", 1)[-1] or model for model in listed}
    ends = list(last.values())
    return {model: end if ends.count(end) == 1 else model for model, end in last.items()}
