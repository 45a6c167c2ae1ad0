"""The objects shared by a worker's trials: model, data as tokens, frozen sets."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hawsweep.machine.backend import device_here, limit_cache, mx

import numpy as np
import numpy.typing as npt

from hawsweep.data.augment import Augmented, augment
from hawsweep.data.batches import lengths_of, targets_of, training_order
from hawsweep.data.load import Splits, choose_indices, choose_subset
from hawsweep.data.records import Record, Records
from hawsweep.data.tokens import Encoded, Example, encode, encode_record
from hawsweep.data.validation_set import choose_size, targets_per_byte
from hawsweep.files import cached_array
from hawsweep.machine.memory import available_bytes
from hawsweep.models.load import LoadedModel
from hawsweep.planning.check_settings import (
    check_batch_size,
    check_model,
    check_train_samples,
    differing_trains,
)
from hawsweep.planning.peak import Execution, slice_tokens
from hawsweep.planning.trial_plan import (
    CostModel,
    Plan,
    choose_plan,
    evaluation_tokens,
    most_evaluated,
    smallest_plan,
)
from hawsweep.planning.workload import Workload
from hawsweep.scoring.score import Answer, Score, Scorer, reference_of, translate
from hawsweep.spec.space import choices_of
from hawsweep.spec.sweep import SweepSpec
from hawsweep.spec.train import TrainSpec
from hawsweep.training.adapters import adapted
from hawsweep.training.evaluation import Evaluation, make_evaluator
from hawsweep.training.forward import FrozenBlocks
from hawsweep.training.optimizers import check_optimizer
from hawsweep.training.train import Interrupted
from hawsweep.trial.prompts import Prompt, choose_prompts

# The share of a worker's budget for outputs of the frozen blocks.
_FROZEN_SHARE = 0.1


@dataclass
class TrialContext:
    """The objects that every trial of a worker shares.

    Attributes:
        train: The training examples of the running trial and variants of them; see ``cut``.
        augmented: The records they are of.
        valid: The frozen validation set for the loss.
        valid_prompts: Validation records whose prompts survivors translate.
        prompts_in_valid: The places of their examples in ``valid``; None if they are not in it, or
            the loss counts prompts too.
        prompts: Those that the untuned model is tried with beside the data's own; maybe none.
        mlx_data_dir: The folder with the same data for ``mlx_lm.lora``.
        memory: The model's memory model; None for an unknown architecture without calibration.
        budget_bytes: For MLX's arrays.
        tokens_at_once: Tokens that go through the head at a time, by the latest plan.
        evaluation_tokens: Padded tokens evaluated at a time.
        targets_per_byte: The factor that makes validation losses of several models comparable;
            None for one model.
        difficulty: The curriculum's order of training examples, ``[examples]``, or None.
        should_stop: Whether the running trial is asked to stop.
        on_batch: Called after each batch that is evaluated or answered.
    """

    spec: SweepSpec
    loaded: LoadedModel
    train: Encoded
    augmented: Augmented
    valid: Sequence[Example]
    valid_prompts: list[Record]
    test_prompts: list[Record]
    prompts: list[Prompt]
    scorer: Scorer
    mlx_data_dir: Path
    frozen: FrozenBlocks
    memory: CostModel | None
    budget_bytes: float
    tokens_at_once: int
    evaluation_tokens: int
    targets_per_byte: float | None = None
    prompts_in_valid: list[int] | None = None
    difficulty: npt.NDArray[np.float32] | None = None
    should_stop: Callable[[], bool] = lambda: False
    on_batch: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self._uncut = self.train

    def cut(self, max_seq_length: int) -> None:
        """Cut the training examples to a trial's length. The validation set is the same for all."""
        train = self._uncut.cut(max_seq_length)
        if len(train.examples) != len(self.train.examples) or np.any(
            lengths_of(train.examples) != lengths_of(self.train.examples)
        ):
            self.train = train
            self.frozen.forget()

    def evaluator(self, examples: Sequence[Example] | None = None) -> Callable[[int], Evaluation]:
        """An evaluation on the frozen validation set, or on other examples."""
        asked = self.spec.validation.batch_size
        return make_evaluator(
            self.loaded.model,
            self.valid if examples is None else examples,
            None if asked == "auto" else asked,
            max_tokens=self.evaluation_tokens,
            frozen=self.frozen if examples is None else None,
            tokens_at_once=self.tokens_at_once,
            on_batch=self.on_batch,
        )

    def comparable_loss(self, val_loss: float) -> float:
        """The validation loss by which trials are compared: in nats per token, or per byte with
        several models.
        """
        return val_loss if self.targets_per_byte is None else val_loss * self.targets_per_byte

    def score(self, records: Sequence[Record]) -> Score:
        """The scored answers of the model in its present state to the records' prompts.

        Raises:
            Interrupted: The trial was asked to stop.
        """
        return self.scorer.score(self.loaded, records, self._after_batch)

    def answers(self, records: Sequence[Record]) -> list[Answer]:
        """The answers of the model in its present state to the records' prompts.

        Raises:
            Interrupted: The trial was asked to stop.
        """
        return translate(self.loaded, records, self.spec.scoring, self._after_batch)

    def _after_batch(self) -> None:
        self.on_batch()
        if self.should_stop():
            raise Interrupted

    def reference_perplexity(self, evaluation: Evaluation) -> float:
        """Of the validation prompts' references, a token, as the model is now.

        Args:
            evaluation: Of the model as it is now: mostly it knows.
        """
        if self.prompts_in_valid is not None:
            chosen = [self.valid[i] for i in self.prompts_in_valid]
            n_targets = np.array([example.n_targets for example in chosen])
            losses = evaluation.example_losses[self.prompts_in_valid]
            loss = float(losses @ n_targets / n_targets.sum())
            return replace(evaluation, val_loss=loss).perplexity
        train = self.spec.train.model_copy(update={"mask_prompt": True})
        examples = encode(self.valid_prompts, self.loaded.template, train).examples
        return self.evaluator(examples)(0).perplexity

    def workload(self, *, with_variants: bool = True) -> Workload:
        """The lengths of the training examples."""
        lengths, targets = lengths_of(self.train.examples), targets_of(self.train.examples)
        if not with_variants:
            plain = self.augmented.is_plain(self.train.record_indices)
            lengths, targets = lengths[plain], targets[plain]
        return Workload(lengths, targets, "as tokenized")

    def plan(self, train: TrainSpec, below_bytes: float | None = None) -> Plan | None:
        """The plan of a trial; None if no plan fits. See ``trial_plan.choose_plan``."""
        if self.memory is None:
            execution = Execution(
                train.batch_size, train.grad_checkpoint is True, self.tokens_at_once
            )
            return Plan(execution, 0, 0, 0.0)
        return choose_plan(self.memory, train, self.workload(), self.budget_bytes, below_bytes)

    def shortfall_bytes(self, train: TrainSpec) -> float:
        """The bytes that the smallest plan of a trial is above the budget."""
        assert self.memory is not None
        least = smallest_plan(self.memory, train, self.workload()).needed_bytes
        return least - self.budget_bytes

    def execute(self, plan: Plan) -> None:
        """Make room for a plan: fewer outputs are kept, and evaluations are as large as fits."""
        limit_cache(plan.peak_bytes)
        self.frozen.set_budget(
            min(_FROZEN_SHARE * self.budget_bytes, self.budget_bytes - plan.needed_bytes)
        )
        self.tokens_at_once = plan.execution.tokens_at_once or self.tokens_at_once
        self.limit_evaluation(plan.execution)

    def limit_evaluation(self, execution: Execution) -> None:
        """Evaluate as many examples at a time as fit; on "auto" by the lengths of training."""
        if self.memory is None:
            return
        work = self.workload()
        if self.spec.validation.batch_size != "auto":
            work = Workload(lengths_of(self.valid), targets_of(self.valid), "as tokenized")
        self.evaluation_tokens = evaluation_tokens(
            self.memory, work, execution, self.budget_bytes, most_evaluated(self.spec)
        )

    def order(self, train: TrainSpec) -> Iterator[tuple[int, ...]]:
        """The batches of a trial, as indices of training examples."""
        chosen = self.augmented.chosen(self.train.record_indices, train, self.spec.seed)
        weights = self.train.weights
        difficulty = self._difficulty() if train.order == "curriculum" else None
        order = training_order(
            lengths_of(self.train.examples)[chosen],
            train.batch_size,
            train.seed,
            weights=None if weights is None else weights[chosen],
            difficulty=None if difficulty is None else difficulty[chosen],
            n_batches=train.iters,
            is_ranked=train.difficulty == "place",
        )
        return (tuple(chosen[list(batch)].tolist()) for batch in order)

    def _difficulty(self) -> npt.NDArray[np.float32] | None:
        if self.difficulty is None:
            return None
        kept = np.isin(self._uncut.record_indices, self.train.record_indices)
        return self.difficulty[kept]


def make_context(
    spec: SweepSpec,
    loaded: LoadedModel,
    splits: Splits,
    scorer: Scorer,
    mlx_data_dir: Path,
    base_dir: Path,
    memory: CostModel | None = None,
    budget_bytes: float | None = None,
    records: Sequence[int] | None = None,
) -> TrialContext:
    """Tokenize the data, choose the validation subsets, and raise faults of every trial.

    Args:
        base_dir: Keeps the base model's loss on the training examples for a curriculum.
        memory: The model's memory model.
        budget_bytes: For MLX's arrays; None: the available memory.
        records: The validation records for the loss, shared by several models; see
            ``validation_set.shared_records``.

    Raises:
        DataError: A record cannot be used, or there are fewer than a batch.
        ModelError: The model cannot be trained as the spec says.
        SpecError: An optimizer has an option that it does not know.
    """
    check_model(spec, loaded.config)
    for each in differing_trains(spec):
        check_optimizer(each)
        with adapted(loaded.model, each):
            pass
    augmented = augment(spec, splits.train)
    weights = None if splits.weights is None else splits.weights[augmented.origins]
    train = encode(augmented.records, loaded.template, spec.train, weights)
    shortest, _ = spec.ends_of("max_seq_length")
    check_batch_size(spec, int(augmented.is_plain(train.cut(shortest).record_indices).sum()))
    check_train_samples(spec, len(splits.train))
    encoded = encode(splits.valid, loaded.template, spec.train)
    valid = encoded.examples
    for record in splits.test:  # a record refused after the night would cost the night
        encode_record(record, loaded.template, mask_prompt=spec.train.mask_prompt)
    prompts = list(choose_subset(splits.valid, spec.scoring.max_examples, spec.seed))
    test = list(choose_subset(splits.test, 2 * spec.scoring.max_examples, spec.seed))
    for record in (*prompts, *test):
        reference_of(record)
    if records is None:
        size = choose_size(spec, lengths_of(train.examples), lengths_of(valid))
        chosen = choose_indices(len(valid), size, spec.seed)
    else:
        chosen = np.searchsorted(encoded.record_indices, records).tolist()
    context = TrialContext(
        spec,
        loaded,
        train,
        augmented,
        [valid[i] for i in chosen],
        prompts,
        test,
        choose_prompts(spec, loaded, splits, [*prompts, *test]),
        scorer,
        mlx_data_dir,
        FrozenBlocks(loaded.model, 0),
        memory,
        available_bytes() if budget_bytes is None else budget_bytes,
        slice_tokens(loaded.model(mx.zeros((1, 1), mx.int32)).shape[-1], device_here()),
        most_evaluated(spec) * int(lengths_of(train.examples).max()),
    )
    context.limit_evaluation(Execution(1, False, context.tokens_at_once))  # of the base
    if records is not None:
        taken = splits.valid.take(records)
        context.targets_per_byte = targets_per_byte(spec, taken, context.valid, loaded.tokenizer)
    context.prompts_in_valid = _prompts_in_valid(spec, encoded, chosen, len(splits.valid))
    context.difficulty = _difficulty(context, splits.train, base_dir)
    return context


def _prompts_in_valid(
    spec: SweepSpec, encoded: Encoded, chosen: Sequence[int], n_records: int
) -> list[int] | None:
    if not spec.train.mask_prompt:
        return None
    at = {int(encoded.record_indices[i]): position for position, i in enumerate(chosen)}
    prompts = choose_indices(n_records, spec.scoring.max_examples, spec.seed)
    return [at[i] for i in prompts] if all(i in at for i in prompts) else None


def _difficulty(
    context: TrialContext, records: Records, base_dir: Path
) -> npt.NDArray[np.float32] | None:
    spec = context.spec
    if "curriculum" not in choices_of(spec.search.get("order"), spec.train.order):
        return None
    if spec.train.difficulty == "length":
        return lengths_of(context.train.examples).astype(np.float32)
    if spec.train.difficulty == "place":
        origins = context.augmented.origins[context.train.record_indices]
        return records.order_in_files()[origins].astype(np.float32)
    train, fingerprint = spec.train, context.augmented.records.fingerprint
    measured = (spec.model, fingerprint, train.max_seq_length, train.mask_prompt)
    digest = hashlib.sha256(repr(measured).encode()).hexdigest()[:12]
    return cached_array(
        base_dir / f"train_losses-{digest}.npy",
        lambda: context.evaluator(context.train.examples)(0).example_losses,
    )
