"""What commands print with ``--json``: the types that `hawsweep schema` shows as JSON Schema.

Losses are in nats per token, memory in bytes, times in seconds. What a trial has not come to, and
ends of intervals that so few prompts leave open, are null.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, RootModel


class _Output(BaseModel):
    model_config = ConfigDict(extra="forbid")


class IntervalOutput(_Output):
    """A mean and what holds the true one in ``level`` of all cases."""

    mean: float
    low: float | None
    high: float | None
    level: float


class TrialOutput(_Output):
    """A line of the leaderboard."""

    label: str = Field(description="The trial's number; base, 4-shot base, or a reference's name.")
    state: str = Field(
        description="complete, pruned, infeasible, fail, running, waiting, base or reference."
    )
    settings: dict[str, Any] = Field(description="What the study varies, by the sweep's keys.")
    val_loss: float | None = Field(description="Of the best evaluation.")
    best_iteration: int | None
    score: float | None = Field(description="By scoring.metric.")
    low: float | None = Field(description="Of the score's 95 % interval.")
    high: float | None
    similarity: float | None
    chrf: float | None
    bleu: float | None
    tokens_per_s: float | None
    peak_memory_bytes: int | None
    time_s: float | None
    faults: dict[str, int] | None = Field(description="How many answers have which fault.")
    confirmed: float | None = Field(description="Mean score of its settings with new seeds.")
    reason: str | None = Field(description="Why it ended as it did.")
    nats_per_byte: float | None = Field(description="val_loss, comparable between models.")


class ScoresOutput(_Output):
    """What a model scores on a list of prompts."""

    score: float
    low: float | None
    high: float | None
    similarity: float
    chrf: float
    bleu: float
    exact_match: float
    length_ratio: float
    time_s: float
    faults: dict[str, int]


class TestOutput(_Output):
    """The test split, where it was opened."""

    trial_number: int
    n_prompts: int
    n_opened: int
    base: ScoresOutput
    trial: ScoresOutput
    few_shot: ScoresOutput | None = None


class LeadOutput(_Output):
    """The winner against another."""

    label: str
    gain: IntervalOutput
    on_test: bool
    model: str = Field(description="The other's, where there are several.")


class VerdictOutput(_Output):
    """What the scores allow to say."""

    winner: str
    ships: bool = Field(description="Whether it is better than every baseline.")
    baselines: list[LeadOutput]
    runner_up: LeadOutput | None
    ties: list[str]
    prefer: str
    sentences: list[str]
    models: list[LeadOutput] = Field(description="The winner against the best of each other model.")


class ConfirmationOutput(_Output):
    """A trial's settings, trained again with new seeds."""

    trial_number: int
    selected: float
    scores: list[float]


class MarginalOutput(_Output):
    """The trials that had a setting in a part of its range."""

    part: str
    n_trials: int
    mean: float
    best: float


class InsightOutput(_Output):
    """Which settings mattered."""

    n_trials: int
    importance: dict[str, float]
    marginals: dict[str, list[MarginalOutput]]
    agreement: float | None


class GroupOutput(_Output):
    """What is gained on the prompts of one group."""

    group: str
    n_prompts: int
    base: float
    trial: float
    gain: IntervalOutput


class SelfCheckOutput(_Output):
    """The metric's scale, and what its prompts can tell apart."""

    floor: float
    ceiling: float
    base: float
    n_prompts: int
    detectable: float | None
    wanted: float
    n_needed: int
    warnings: list[str]


class LeftOutput(_Output):
    """What is left of a study."""

    trials: int
    runs_with_new_seeds: int
    test: bool
    seconds: float | None
    is_running: bool
    command: str = Field(description="What goes on with it, or comes next; empty where nothing.")


class StatusOutput(_Output):
    """`hawsweep status`; why and groups where they were asked for."""

    study: str
    description: str
    test: TestOutput | None
    self_check: SelfCheckOutput | None
    verdict: VerdictOutput | None
    confirmed: list[ConfirmationOutput]
    why: InsightOutput | None = None
    groups: list[GroupOutput] | None = None
    trials: list[TrialOutput]
    left: LeftOutput


class StudyOutput(_Output):
    """A study, in short."""

    name: str
    description: str
    trials: dict[str, int] = Field(description="Their number by state.")
    best_trial: int | None
    best_score: float | None
    base_score: float | None


class ListOutput(_Output):
    """`hawsweep list`."""

    studies: list[StudyOutput]
    sweeps: dict[str, str] = Field(description="The file of each sweep.")


class BestOutput(_Output):
    """The study's best trial."""

    trial: int
    score: float | None
    evaluations: dict[int, float]


class ExampleOutput(_Output):
    """A training example and its losses when trained on."""

    mean: float
    last: float
    count: int
    source: str
    reference: str | None
    where: str


class ShowOutput(TrialOutput):
    """`hawsweep show`; examples where they were asked for. Losses are by iteration."""

    study: str
    plan: dict[str, Any] | None = Field(description="How it is executed; text is that in words.")
    continues: dict[str, int] | None = Field(description="The trial and iteration it goes on from.")
    evaluations: dict[int, float | None] = Field(description="Validation losses.")
    train_losses: dict[int, float | None]
    best: BestOutput | None
    median_evaluations: dict[int, float | None] = Field(description="Of the finished trials.")
    folder: str
    files: list[str]
    samples: list[dict[str, Any]]
    hardest_examples: list[ExampleOutput] | None = None
    easiest_examples: list[ExampleOutput] | None = None


class ItemOutput(_Output):
    """A prompt and what both said."""

    source: str
    reference: str
    outputs: tuple[str, str]
    scores: tuple[float, float]
    group: str | None
    gain: float


class CompareOutput(_Output):
    """`hawsweep compare`: the second against the first, the most harmed items first."""

    labels: tuple[str, str]
    gain: IntervalOutput
    n_better: int
    n_worse: int
    items: list[ItemOutput]
    groups: list[GroupOutput]


class SystemOutput(ScoresOutput):
    """One of several that answered the same items."""

    name: str
    lead: IntervalOutput | None = Field(description="Over the next one.")


class ScoreOutput(_Output):
    """`hawsweep score`, best first."""

    systems: list[SystemOutput]
    agreement: float | None = Field(description="Rank correlation of score and chrF.")
    reversed_pairs: list[tuple[str, str]]


class FitOutput(_Output):
    """How settings would be executed."""

    settings: dict[str, Any]
    fits: bool
    how: str
    peak_bytes: int
    needed_bytes: int
    tokens_per_s: float
    seconds: float


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
    smallest: FitOutput
    largest: FitOutput
    search: dict[str, list[ValueOutput]]
    scoring_bytes: float
    seconds: float | None = Field(description="Of the whole sweep; null where nothing fits.")
    trial_seconds: float | None = Field(description="Of a trial that is not pruned.")


class PlansOutput(_Output):
    """`hawsweep plan` of a sweep that searches several models."""

    models: list[PlanOutput]


class AnyPlanOutput(RootModel[PlanOutput | PlansOutput]):
    """`hawsweep plan`."""


class ExportOutput(BaseModel):
    """`hawsweep export`; more where more was asked for."""

    folder: str
    trial_number: int
    next: list[Any] = Field(description="Commands to type next.")


class FindingOutput(_Output):
    """Something that was looked at."""

    subject: str
    state: str = Field(description="ok, warning or fault.")
    text: str
    remedy: str


class ValidateOutput(_Output):
    """`hawsweep validate`."""

    is_valid: bool
    findings: list[FindingOutput]


class KeyOutput(_Output):
    """A key of a sweep."""

    name: str
    kind: str
    limits: list[str]
    default: str = Field(description="As YAML; empty where it is not set.")
    is_required: bool
    meaning: str
    source: str
    example: str
    search_example: str


class ExplainOutput(RootModel[list[KeyOutput]]):
    """`hawsweep explain`."""


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


class DatabaseOutput(_Output):
    """The state of a database."""

    where: str
    state: str
    detail: str
    studies: dict[str, dict[str, int]]


class DoctorOutput(_Output):
    """`hawsweep doctor`."""

    is_fine: bool
    database: DatabaseOutput
    machine: list[FindingOutput]
    backup: DatabaseOutput | None
    backup_made: str | None = Field(description="Local time.")
    n_trial_dirs: int = Field(description="How many trials have a folder.")
    restore: str | None = Field(
        description="For a shell, where the database is lost: puts its backup back."
    )


OUTPUTS: dict[str, type[BaseModel]] = {
    "list": ListOutput,
    "status": StatusOutput,
    "show": ShowOutput,
    "compare": CompareOutput,
    "score": ScoreOutput,
    "init": InitOutput,
    "validate": ValidateOutput,
    "explain": ExplainOutput,
    "plan": AnyPlanOutput,
    "export": ExportOutput,
    "doctor": DoctorOutput,
}
