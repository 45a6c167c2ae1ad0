"""A sweep for one's own data, planned to be done in the time there is, a reason for each key."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hawsweep import backend, catalogue, data, inspection, models, sweepplan
from hawsweep.designing import (
    ENOUGH_TRIALS,
    Basis,
    Design,
    choose_batch,
    choose_design,
    choose_width,
)
from hawsweep.drafttext import render, seconds_text, short, time_text
from hawsweep.errors import DataError, SpecError
from hawsweep.files import replace_text
from hawsweep.inspection import UNCUT, Columns, DataView
from hawsweep.planning import Workload
from hawsweep.rehearsal import FEW_PROMPTS, narrowest_layer, told_apart
from hawsweep.shapes import read_config
from hawsweep.space import suggested_learning_rate
from hawsweep.spec import SweepSpec
from hawsweep.sweepfile import check_sweep
from hawsweep.sweepplan import SweepPlan
from hawsweep.timing import Timing
from hawsweep.yamltext import parse_yaml


@dataclass(frozen=True)
class Draft:
    """A sweep that was made for somebody.

    Attributes:
        columns: Of a CSV.
        reasons: Why each key is as it is.
        warnings: What is wrong with the data or the plan, in words.
        text: The file.
    """

    spec: SweepSpec
    view: DataView
    columns: Columns | None
    plan: SweepPlan
    timing: Timing
    reasons: Mapping[str, str]
    warnings: tuple[str, ...]
    text: str


def draft_sweep(
    model: str,
    reference: str,
    hours: float,
    *,
    source: str | None = None,
    target: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Draft:
    """Look at data and machine, and plan a sweep that ends within ``hours``.

    Args:
        reference: Of the data.
        source: Column of a CSV; None for one that looks like it.
        target: The same of the translations.

    Raises:
        DataError: The data cannot be used as it is.
        ModelError: The model's shape is not known.
        MemoryBudgetError: Nothing fits.
        SpecError: The time is too short for three trials; the message has what would do.
    """
    keys, columns, reasons = _choose_data(reference, source, target)
    path = models.find_model(model)
    least = {
        "model": model,
        "data": keys,
        "train": {"mask_prompt": True, "max_seq_length": UNCUT},
        "search": {"learning_rate": {"choices": [1e-4]}},
    }
    uncut = check_sweep(least, "the drafted sweep")
    known = sweepplan.known_memory(uncut, backend.device_here())  # a model nobody knows: at once
    view = inspection.inspect_data(uncut, inspection.find_tokenizer(path, progress), progress)
    if not view.has_answers:
        raise DataError(
            f"{reference}: there are records without an answer to compare with. A sweep needs "
            "prompt and completion, or messages that end with the assistant's."
        )
    progress("planning")
    width = choose_width(view)
    config = (read_config(path) if path else catalogue.find_known(model)) or {}
    rate, batch_size = suggested_learning_rate(config), choose_batch(view, width)
    _keep_lengths(uncut, view, width)
    basis = Basis(
        model, keys, view, rate, narrowest_layer(known.shape), width, batch_size, hours * 3600
    )
    design = choose_design(basis)
    reasons |= _reasons(basis, design)
    timeout = time_text(max(0.5 * basis.seconds, basis.seconds - design.timing.after_s))
    head = _head(reference, model, hours, design)
    description = f"Learning rate and rank for {Path(reference).name} on {Path(model).name}, "
    description += f"planned for {hours:g} hours."
    content = {"description": description, **design.content, "timeout": timeout}
    text = render(content, reasons, head)
    spec = check_sweep(parse_yaml(text), "the drafted sweep")
    plan = replace(design.plan, spec=spec)
    warnings = tuple(_warnings(basis, spec, plan, path is not None))
    return Draft(spec, view, columns, plan, design.timing, reasons, warnings, text)


def write_draft(draft: Draft, path: Path, *, force: bool = False) -> None:
    """Write the file of a draft, and the folder it is in.

    Raises:
        SpecError: It is there already, or cannot be written.
    """
    check_free(path, force=force)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, draft.text)
    except OSError as fault:
        raise SpecError(f"{path} cannot be written: {fault.strerror}.") from fault


def check_free(path: Path, *, force: bool) -> None:
    """Refuse to write over a sweep.

    Raises:
        SpecError: It is there, and nobody said it may go.
    """
    if path.is_dir():
        raise SpecError(f"{path} is a folder. Name a file.")
    if path.exists() and not force:
        raise SpecError(f"{path} is there already. Give another NAME, or --force to replace it.")


def _choose_data(
    reference: str, source: str | None, target: str | None
) -> tuple[str | dict[str, Any], Columns | None, dict[str, str]]:
    path = inspection.csv_path(reference)
    if path is None:
        if source or target:
            raise DataError(f"{reference} is no CSV: --source and --target name its columns.")
        return reference, None, {"data": "as given"}
    chosen = inspection.choose_columns(path, source, target)
    n_rows = inspection.check_rows(path, chosen.source, chosen.target)
    named = chosen.target.strip()
    language = named if named.isalpha() and named[:1].isupper() else "English"
    # Enough of either to tell trials apart, but never most of a small data set.
    valid, test = (0.1, 0.1) if n_rows >= 300 else (0.2, 0.2) if n_rows >= 80 else (0.3, 0.0)
    keys = {
        "path": reference,
        "source": chosen.source,
        "target": chosen.target,
        "prompt": f"Translate to {language}: {{source}}",
        "valid_fraction": valid,
        "test_fraction": test,
    }
    reasons = {
        "path": f"{n_rows} pairs",
        "source": f"the column to translate from, {chosen.why}",
        "target": "the column to translate to",
        "prompt": "what the model is asked; another language, another prompt",
        "valid_fraction": f"{round(n_rows * valid)} pairs judge the trials",
        "test_fraction": (
            f"{round(n_rows * test)} pairs for the winner alone, at the end"
            if test
            else "none: all that can be spared judge the trials"
        ),
    }
    return keys, chosen, {f"data.{key}": reason for key, reason in reasons.items()}


def _keep_lengths(spec: SweepSpec, view: DataView, width: int) -> None:
    """What was counted, so that plans need not estimate it."""
    if not view.is_tokenized or view.count("train") != len(view.lengths):
        return
    lengths = np.minimum(view.lengths, width)
    n_targets = view.n_targets - (view.lengths - lengths)
    kept = n_targets > 0
    cut = spec.train.model_copy(update={"max_seq_length": width})
    fingerprint = data.load_data(spec.data).fingerprint()["train"]
    work = Workload(lengths[kept], n_targets[kept], "as tokenized")
    sweepplan.save_lengths(spec.model_copy(update={"train": cut}), fingerprint, work)


def _head(reference: str, model: str, hours: float, design: Design) -> list[str]:
    known = design.plan.memory
    return [
        f"Made by hawsweep init for {reference} and {model}, {hours:g} hours.",
        f"A trial takes about {seconds_text(design.timing.trial_s)} here, all about "
        f"{seconds_text(design.timing.total_s)}; speed: {known.speed.how}.",
        "What a key means: hawsweep explain KEY",
    ]


def _reasons(basis: Basis, design: Design) -> dict[str, str]:
    content, timing, plan = design.content, design.timing, design.plan
    seen = design.iters * basis.batch_size
    mean = float(basis.view.lengths.mean())
    evaluated = content["validation"]["max_examples"]
    n_cut = basis.view.n_longer(basis.width)
    how = plan.largest.how
    again = design.top * design.seeds
    return {
        "model": f"{plan.memory.shape.weight_bytes() / 1e9:.2f} GB of weights here",
        "train.batch_size": (
            f"{basis.batch_size} x {mean:.0f} tokens: "
            + ("larger ones would be few" if basis.is_small else "enough to keep a device busy")
        ),
        "train.iters": (
            f"{seen} examples, {seen / basis.n_train:.1f} epochs; fixed, as the best of all "
            "evaluations is kept anyway"
        ),
        "train.steps_per_eval": f"{design.iters // design.steps} evaluations: chances to prune",
        "train.num_layers": (
            "all: a new language is learned in the lower blocks too"
            if design.layers == -1
            else "the upper blocks: with all there is time or memory for too little"
        ),
        "train.max_seq_length": (
            f"the longest example has {int(basis.view.lengths.max())} tokens"
            + (f"; {n_cut} are truncated" if n_cut else "")
        ),
        "train.mask_prompt": "learn to answer, not to ask",
        "train.optimizer_config": "Adam's first steps are else 3 to 6 times too large",
        "train.lora_parameters.alpha": "scale = alpha / rank: rank does not shift the rate",
        "train.early_stopping_patience": "examples come several times: it may overfit",
        "search.learning_rate": (
            f"published sweeps suggest {short(basis.rate)}"
            + ("; a few updates want more" if basis.is_small else "")
        ),
        "search.lora_parameters.rank": "matters less than the rate" + f"; {how} at the largest",
        "memory.budget": plan.budget.how,
        "validation.max_examples": (
            f"of {basis.n_valid} for the loss: under 15 % of a trial's time"
            if evaluated < basis.n_valid
            else "all there are, for the loss"
        ),
        "pruning.name": (
            "too few trials to compare with"
            if content["pruning"]["name"] == "none"
            else "who is behind the median in validation loss is ended"
        ),
        "pruning.n_startup_trials": "to complete before any is ended",
        "pruning.n_warmup_steps": "a quarter of a trial: a low rate begins slowly",
        "sampler.name": "learns from earlier trials what to try next",
        "sampler.n_startup_trials": "a third at random first; two of them published sweeps suggest",
        "scoring.metric": "of the translations; chrf and bleu are recorded beside it",
        "scoring.max_examples": f"translated by each survivor: {seconds_text(timing.answers_s)}",
        "scoring.max_tokens": f"long references have {basis.answer_tokens:.0f}",
        "scoring.batch_size": "prompts at a time: as many as memory has room for, up to 16",
        "confirm.top": (
            f"the best again, to see which was lucky: {seconds_text(timing.again_s)}"
            if again
            else "no time for it: the winner may have been lucky"
        ),
        "confirm.seeds": "new seeds each",
        "trials": (
            f"as there is time for; about {timing.n_pruned} of them pruned early"
            if timing.n_pruned
            else "as there is time for"
        ),
        "timeout": "no trial starts later, so that the last ends in time",
    }


def _warnings(basis: Basis, spec: SweepSpec, plan: SweepPlan, is_here: bool) -> Iterator[str]:
    view, n_prompts = basis.view, spec.scoring.max_examples
    for name, split in view.splits.items():
        if split.n_repeated:
            yield f"{split.n_repeated} of {split.n_records} records of {name} are in it before."
        if split.n_empty:
            yield f"{split.n_empty} of {split.n_records} records of {name} are empty on one side."
    for leak in view.leaks:
        yield f"{leak}: scores measure memory there."
    if n_prompts < FEW_PROMPTS:
        few = "there are no more" if n_prompts == basis.n_valid else "more would take too long"
        yield (
            f"{n_prompts} prompts are too few to tell close trials apart ({few}): only scores that "
            f"differ by about {told_apart(n_prompts):.2f} or more."
        )
    if not view.count("test"):
        yield "There is no test split: the winner is judged by the prompts it was chosen by."
    if spec.trials < ENOUGH_TRIALS:
        yield (
            f"{spec.trials} trials are few: the sampler hardly learns from them. More --hours help."
        )
    if not is_here:
        yield f"{spec.model} is not here: the first start fetches it."
    if not plan.memory.is_calibrated:
        yield (
            "The speed was never measured here: the first start does that. For a better plan now: "
            "hawsweep plan NAME --calibrate, then this command again with --force."
        )
