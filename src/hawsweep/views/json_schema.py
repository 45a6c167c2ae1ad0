"""The types of ``--json``, which `hawsweep schema` prints as JSON Schema.

Losses are in nats per token, memory in bytes, times in seconds. Values that a trial has not reached
are null, and ends of intervals for which there are too few prompts.
"""

from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, with_config

from hawsweep.prepare.examine_database import Database
from hawsweep.prepare.finding import Finding
from hawsweep.prepare.preview import Preview
from hawsweep.results.compare_trials import Comparison
from hawsweep.results.curate import Doubtful
from hawsweep.results.curate_proof import Proof
from hawsweep.results.data_curve import DataCurve, SizeRow
from hawsweep.results.data_sources import Worth
from hawsweep.results.groups import GroupRow
from hawsweep.results.importance import Insight
from hawsweep.results.leaderboard import TrialRow
from hawsweep.results.marks import MarkedSystem
from hawsweep.results.price import PriceRow
from hawsweep.results.verdict import Verdict
from hawsweep.running.steer import Queued
from hawsweep.scoring.intervals import Interval
from hawsweep.scoring.score import Scores
from hawsweep.scoring.self_check import SelfCheck
from hawsweep.search.belief import Belief
from hawsweep.spec.reference import Key
from hawsweep.study.confirm import Confirmation
from hawsweep.trial.example_losses import ExampleLoss
from hawsweep.trial.token_losses import TokenLoss
from hawsweep.views.event_stream import LINES

_ALL_KEYS = ConfigDict(extra="forbid")  # of the dataclasses inside too


class _Output(BaseModel):
    model_config = _ALL_KEYS


@with_config(_ALL_KEYS)
@dataclass(frozen=True)
class PromptedOutput(Scores):
    """The untuned model's scores with the prompt that was the best of those tried."""

    n_examples: int | None = None
    instruction: int | None = None


class TestOutput(_Output):
    """The test split, where it was opened."""

    trial_number: int
    n_prompts: int
    n_opened: int
    base: Scores
    trial: Scores
    few_shot: PromptedOutput | None = None


class LeftOutput(_Output):
    """What is left of a study."""

    trials: int
    paused: int = Field(description="Of these, those that wait trained in part.")
    runs_with_new_seeds: int
    test: bool
    retention: bool
    seconds: float | None
    is_running: bool
    command: str = Field(description="What goes on with it, or comes next; empty where nothing.")


class ReviewOutput(_Output):
    """`hawsweep review`: what a person said so far, as numbers of sentences."""

    trial: int
    split: str
    n_trial: int = Field(description="The trial's answer is better.")
    n_base: int = Field(description="The untuned model's answer is better.")
    n_equal: int
    n_neither: int
    n_same: int = Field(description="Identical answers, which were not shown.")
    preference: Interval | None = Field(description="Share of the trial where one is better.")
    n_agreed: int = Field(description="The score prefers the same answer.")
    agreement: Interval | None = Field(description="Their share where one is better.")
    is_current: bool = Field(description="Whether the best trial still has these answers.")
    sentences: list[str]


class StatusOutput(_Output):
    """`hawsweep status`; why, groups and price where they were asked for."""

    study: str
    description: str
    test: TestOutput | None
    self_check: SelfCheck | None
    verdict: Verdict | None
    confirmed: list[Confirmation]
    review: ReviewOutput | None = Field(description="What a person said; null without a review.")
    why: Insight | None = None
    groups: list[GroupRow] | None = None
    price: list[PriceRow] | None = None
    known: Belief | None = Field(description="What the search knows; null before three trials.")
    trials: list[TrialRow]
    left: LeftOutput


class StudyOutput(_Output):
    """A study, in short."""

    name: str
    description: str
    trials: dict[str, int] = Field(description="Their number by state.")
    best_trial: int | None
    best_score: float | None
    base_score: float | None
    use: int | None = Field(description="The trial to use; null for none.")


class ListOutput(_Output):
    """`hawsweep list`."""

    studies: list[StudyOutput]
    folders_without_study: list[str] = Field(description="Their studies are in no database.")
    sweeps: dict[str, str] = Field(description="The file of each sweep.")


@with_config(_ALL_KEYS)
@dataclass(frozen=True)
class EnqueueOutput(Queued):
    """`hawsweep enqueue`: the queued setting and its trial."""


class BestOutput(_Output):
    """The study's best trial."""

    trial: int
    score: float | None
    evaluations: dict[int, float]


@with_config(_ALL_KEYS)
@dataclass(frozen=True, kw_only=True)
class ShowOutput(TrialRow):
    """`hawsweep show`; examples and tokens where they were asked for. Losses are by iteration."""

    study: str
    plan: dict[str, Any] | None
    continues: dict[str, int] | None
    evaluations: dict[int, float | None]
    train_losses: dict[int, float | None]
    best: BestOutput | None
    median_evaluations: dict[int, float | None]
    folder: str
    files: list[str]
    samples: list[dict[str, Any]]
    hardest_examples: list[ExampleLoss] | None = None
    easiest_examples: list[ExampleLoss] | None = None
    hardest_tokens: list[TokenLoss] | None = None


class PromptRow(_Output):
    """The untuned model with one prompt, on the validation prompts."""

    label: str
    model: str = Field(description="Empty in a study of one model.")
    n_examples: int
    instruction: int | None = Field(description="Its number from 1; null for the data's own.")
    is_chosen: bool = Field(description="Whether it is a baseline of the verdict.")
    score: float
    low: float | None
    high: float | None


class ShowBaseOutput(_Output):
    """`hawsweep show NAME base`."""

    study: str
    instructions: list[str]
    prompts: list[PromptRow]


@with_config(_ALL_KEYS)
@dataclass(frozen=True)
class CompareOutput(Comparison):
    """`hawsweep compare`: the second against the first, the most harmed items first."""


@with_config(_ALL_KEYS)
@dataclass(frozen=True, kw_only=True)
class SystemOutput(Scores):
    """One of several that answered the same items."""

    name: str
    lead: Annotated[Interval | None, Field(description="Over the next one.")]
    loss: float | None
    perplexity: float | None


class ScoreOutput(_Output):
    """`hawsweep score`, best first."""

    systems: list[SystemOutput]
    agreement: float | None = Field(description="Rank correlation of score and chrF.")
    reversed_pairs: list[tuple[str, str]]


class MarksOutput(_Output):
    """`hawsweep score --marks`."""

    study: str
    trial: int
    split: str
    systems: list[MarkedSystem]
    n_unknown: int = Field(description="Marks of answers that the study does not have.")
    n_right: int
    n_wrong: int
    separation: float | None = Field(
        description="Share of pairs of a right and a wrong answer that the score ranks so."
    )
    sentences: list[str]


class FitOutput(_Output):
    """How settings would be executed."""

    settings: dict[str, Any]
    fits: bool
    how: str
    peak_bytes: int
    needed_bytes: int
    tokens_per_s: float
    seconds: float


class EndOutput(FitOutput):
    """How the settings of the least or the most memory would be executed."""

    iters: int
    epochs: float
    memory: dict[str, int] = Field(
        description="Predicted bytes by part. Those from weights to loss add up to training; "
        "evaluation and translations are peaks of their own, cache is beside any of them."
    )


class ValueOutput(_Output):
    """A searched value, the other keys at what needs the least and the most memory."""

    value: Any
    smallest: FitOutput
    largest: FitOutput


class PlanOutput(_Output):
    """`hawsweep plan`."""

    model: str
    device: str
    memory_model: str
    error: float
    speed: str
    budget_bytes: float
    budget: str
    workers: int
    worker_bytes: int
    arrays_bytes: int
    lengths: str
    longest: int
    examples: int
    smallest: EndOutput
    largest: EndOutput
    search: dict[str, list[ValueOutput]]
    scoring_bytes: float
    seconds: float | None = Field(description="Of the whole sweep; null where nothing fits.")
    trial_seconds: float | None = Field(description="Of a trial that is not pruned.")
    prompts: int = Field(description="The untuned model is tried with, beside the data's own.")
    prompts_seconds: float | None


class PlansOutput(_Output):
    """`hawsweep plan` of a sweep that searches several models."""

    models: list[PlanOutput]


class AnswerOutput(_Output):
    """A system's answer."""

    output: str
    fault: str | None = Field(description="Whether it was cut at scoring.max_tokens.")


class TryOutput(_Output):
    """`hawsweep try`: a line for each prompt."""

    study: str
    trial: int
    checkpoint: int | None
    source: str
    answers: dict[str, AnswerOutput] = Field(description="Of base, few_shot and trial.")


class SourceOutput(_Output):
    """One of several data sets."""

    name: str
    n: int
    curve: DataCurve | None = Field(description="Of it alone; null where it has too few records.")
    alone: Worth | None = Field(description="In records of the largest source; null for that.")
    beside: Worth | None = Field(description="What it adds to all of the largest source.")


class DataSourcesOutput(_Output):
    """What the sources of the data are worth, the largest first."""

    study: str
    trial: int
    sources: list[SourceOutput]
    sentences: list[str]


class DataCurveOutput(_Output):
    """`hawsweep data-curve`."""

    study: str
    trial: int
    base_loss: float
    rows: list[SizeRow]
    n_seen: int = Field(description="Of all examples those a run took up to its best evaluation.")
    largest_loss: Interval | None = Field(
        description="With all data, as the smaller sizes predict it; null with fewer than four."
    )
    more: int = Field(description="A number of further examples; 0 where not all are seen.")
    expected_loss: Interval = Field(description="The validation loss with them.")
    loss_gain: Interval = Field(description="By how much they lower the validation loss.")
    score_gain: Interval = Field(description="By how much they raise the score.")
    sentences: list[str]
    sources: DataSourcesOutput | None = Field(description="With --sources.")


class CurateOutput(_Output):
    """`hawsweep curate`."""

    study: str
    trial: int
    n_records: int
    removed: list[Doubtful]
    unchecked: list[str] = Field(description="What could not be looked for.")
    folder: str | None = Field(description="Of the proposal; null where nothing is proposed.")
    is_ordered: bool = Field(description="Whether its records are ordered, the best first.")
    proof: Proof | None = Field(description="With --prove.")
    counts: dict[str, int] = Field(description="Records by the kind of doubt.")
    sentences: list[str]


class ExportOutput(BaseModel):
    """`hawsweep export`; more where more was asked for."""

    folder: str
    trial_number: int
    next: list[Any] = Field(description="Commands to type next.")


@with_config(_ALL_KEYS)
@dataclass(frozen=True)
class PreviewOutput(Preview):
    """`hawsweep preview`: a data set as a model sees it."""


class ValidateOutput(_Output):
    """`hawsweep validate`."""

    is_valid: bool
    findings: list[Finding]


class InitOutput(_Output):
    """`hawsweep init`."""

    path: str
    spec: dict[str, Any] = Field(description="What was written, by the sweep's keys.")
    reasons: dict[str, str] = Field(description="Why keys have their values.")
    warnings: list[str]
    splits: dict[str, dict[str, Any]]
    leaks: list[dict[str, Any]]
    columns: dict[str, Any] | None
    timing: dict[str, Any]


class DoctorOutput(_Output):
    """`hawsweep doctor`."""

    is_fine: bool
    database: Database
    machine: list[Finding]
    calibrations: list[dict[str, Any]] = Field(description="Measured steps of models here.")
    backup: Database | None
    backup_made: str | None = Field(description="Local time.")
    n_trial_dirs: int = Field(description="How many trials have a folder.")
    restore: str | None = Field(
        description="For a shell, where the database is lost: puts its backup back."
    )


OUTPUTS: dict[str, TypeAdapter[Any]] = {
    "list": TypeAdapter(ListOutput),
    "status": TypeAdapter(StatusOutput),
    "enqueue": TypeAdapter(EnqueueOutput),
    "show": TypeAdapter(ShowOutput | ShowBaseOutput),
    "compare": TypeAdapter(CompareOutput),
    "data-curve": TypeAdapter(DataCurveOutput),
    "curate": TypeAdapter(CurateOutput),
    "review": TypeAdapter(ReviewOutput | None),
    "score": TypeAdapter(ScoreOutput | MarksOutput),
    "init": TypeAdapter(InitOutput),
    "preview": TypeAdapter(PreviewOutput),
    "validate": TypeAdapter(ValidateOutput),
    "explain": TypeAdapter(list[Key], config=_ALL_KEYS),
    "plan": TypeAdapter(PlanOutput | PlansOutput),
    "try": TypeAdapter(TryOutput),
    "export": TypeAdapter(ExportOutput),
    "doctor": TypeAdapter(DoctorOutput),
}
# Of commands that print a line for each event.
STREAMS: dict[str, TypeAdapter[Any]] = {"start": TypeAdapter(reduce(or_, LINES))}
