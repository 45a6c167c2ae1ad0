"""Drafts a sweep for given data that fits the given time, with a reason for each key."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hawsweep.data.columns import Columns, find_group, language_of, open_pairs
from hawsweep.data.load import data_file, is_table, load_data
from hawsweep.data.record_file import read_record_file
from hawsweep.errors import DataError, ModelError, SpecError
from hawsweep.files import replace_text
from hawsweep.machine import backend
from hawsweep.models import resolve
from hawsweep.models.config_file import read_config
from hawsweep.models.hub import download_command, is_repository
from hawsweep.models.known_configs import find_known, near
from hawsweep.planning.check_settings import narrowest_layer
from hawsweep.planning.sweep_plan import SweepPlan, known_memory
from hawsweep.planning.sweep_time import Timing
from hawsweep.planning.workload import Workload, save_lengths
from hawsweep.prepare.design import (
    ENOUGH_TRIALS,
    Basis,
    Design,
    choose_batch,
    choose_design,
    choose_width,
)
from hawsweep.prepare.inspect_data import (
    UNCUT,
    DataView,
    find_template,
    inspect_data,
)
from hawsweep.prepare.reasons import reasons_of
from hawsweep.prepare.sweep_text import render
from hawsweep.prepare.validate import (
    FEW_PROMPTS,
    mixed_writing,
    odd_groups,
    repeated_or_empty,
    told_apart,
)
from hawsweep.scoring.embedding import LONGER_EMBEDDER
from hawsweep.search.distributions import suggested_learning_rate
from hawsweep.spec.read import check_sweep
from hawsweep.spec.sweep import SweepSpec
from hawsweep.spec.yaml_text import parse_yaml
from hawsweep.text import SayProgress, counted, duration, time_text


@dataclass(frozen=True)
class Draft:
    """A drafted sweep.

    Attributes:
        columns: The columns taken of a table; else None.
        reasons: The reason for each key's value.
        warnings: Faults of the data or the plan, in words.
        text: The content of the file.
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
    progress: SayProgress = lambda _: None,
) -> Draft:
    """Examine data and machine, and plan a sweep that ends within ``hours``.

    Args:
        reference: The data reference.
        source: The table's column to translate from; None: chosen by its name or content.
        target: The same for the translations.

    Raises:
        DataError: The data cannot be used as it is.
        ModelError: The model's shape is not known.
        MemoryBudgetError: Nothing fits.
        SpecError: The time is too short for three trials; the message says how much is enough.
    """
    keys, columns, reasons = _choose_data(reference, source, target)
    basis = _look(model, keys, hours * 3600, progress)
    design = choose_design(basis)
    reasons |= reasons_of(basis, design)
    timeout = time_text(max(0.5 * basis.seconds, basis.seconds - design.timing.after_s))
    description = f"Learning rate and rank for {Path(reference).name} on {Path(model).name}, "
    description += f"planned for {hours:g} hours."
    content = {"description": description, **design.content, "timeout": timeout}
    text = render(content, reasons, _head(reference, model, hours, design))
    spec = check_sweep(parse_yaml(text), "the drafted sweep")
    plan = replace(design.plan, spec=spec)
    warnings = tuple(_warnings(basis, spec, plan))
    return Draft(spec, basis.view, columns, plan, design.timing, reasons, warnings, text)


def _look(model: str, keys: str | dict[str, Any], seconds: float, progress: SayProgress) -> Basis:
    is_bundled = model in resolve.BUNDLED  # it is installed, perhaps not converted yet
    path = resolve.resolve_model(model, progress) if is_bundled else resolve.find_model(model)
    if path is None and not is_repository(model):
        raise ModelError(
            f"The model {model!r} is no folder here, and no repository, which is named "
            f"ORGANISATION/NAME.{near(model)}"
        )
    least = {
        "model": model,
        "data": keys,
        "train": {"mask_prompt": True, "max_seq_length": UNCUT},
        "search": {"learning_rate": {"choices": [1e-4]}},
    }
    uncut = check_sweep(least, "the drafted sweep")
    known = known_memory(uncut, backend.device_here())  # unknown models fail at once
    template = find_template(path, trust_remote_code=False, progress=progress)
    view = inspect_data(uncut, template, progress)
    progress("planning")
    width = choose_width(view)
    _keep_lengths(uncut, view, width)
    config = (read_config(path) if path else find_known(model)) or {}
    return Basis(
        model,
        keys,
        view,
        suggested_learning_rate(config),
        narrowest_layer(known.shape),
        width,
        choose_batch(view, width),
        seconds,
        known.shape.n_layers,
    )


def write_draft(draft: Draft, path: Path, *, force: bool = False) -> None:
    """Write the file of a draft, and the folder it is in.

    Raises:
        SpecError: It exists already, or cannot be written.
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
        SpecError: The file exists, and --force was not given; or commands would not find it.
    """
    if path.is_dir():
        raise SpecError(f"{path} is a folder. Name a file.")
    if path.suffix not in (".yaml", ".yml"):
        raise SpecError(f"{path} is no name of a sweep's file: it must end in .yaml.")
    if path.exists() and not force:
        raise SpecError(f"{path} is there already. Give another NAME, or --force to replace it.")


def _choose_data(
    reference: str, source: str | None, target: str | None
) -> tuple[str | dict[str, Any], Columns | None, dict[str, str]]:
    path = data_file(reference)
    if path is None or not is_table(path, source, target):
        if source or target:
            raise DataError(
                f"{reference} is no table: --source and --target name its columns. Leave them out, "
                "and name the keys prompt and completion; or save it as a CSV."
            )
        if path is None:
            return reference, None, {"data": "as given"}
        keys, reasons = _choose_shares(len(read_record_file(path)), "records")
        return {"path": reference, **keys}, None, _of_data(reasons)
    with open_pairs(path, source, target) as (chosen, rows):
        group, n_pairs = find_group((row for _, row in rows), chosen.others)
    shares, reasons = _choose_shares(n_pairs, "pairs")
    if chosen.group is None and group is not None:
        others = tuple(name for name in chosen.others if name != group)
        chosen = replace(chosen, group=group, others=others)
    language = language_of(chosen.target)
    if language is None and language_of(chosen.source) != "English":
        language = "English"
    keys = {
        "path": reference,
        "source": chosen.source,
        "target": chosen.target,
        **({} if chosen.group is None else {"group": chosen.group}),
        "prompt": f"Translate to {language}: {{source}}" if language else "Translate: {source}",
        **shares,
    }
    reasons |= {
        "source": f"the column to translate from, {chosen.why}",
        "target": "the column to translate to",
        "group": "the column of each row's group: scores are compared by group",
        "prompt": "what the model is asked; another language, another prompt",
    }
    return keys, chosen, _of_data(reasons)


def _choose_shares(n_records: int, kind: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The shares of a file's records for validation and test, and the reasons."""
    # Enough of both to tell trials apart, but never most of a small data set.
    valid, test = (0.1, 0.1) if n_records >= 300 else (0.2, 0.2) if n_records >= 80 else (0.3, 0.0)
    reasons = {
        "path": f"{n_records} {kind}",
        "valid_fraction": f"about {round(n_records * valid)} {kind} judge the trials",
        "test_fraction": (
            f"about {round(n_records * test)} {kind} for the winner alone, at the end"
            if test
            else "none: the data is too small for a test split"
        ),
    }
    reasons["split_by"] = "those that ask the same stay in one split, if they are few"
    return {"valid_fraction": valid, "test_fraction": test, "split_by": "source"}, reasons


def _of_data(reasons: Mapping[str, str]) -> dict[str, str]:
    return {f"data.{key}": reason for key, reason in reasons.items()}


def _keep_lengths(spec: SweepSpec, view: DataView, width: int) -> None:
    """Save the counted lengths, so that plans need not estimate them."""
    if not view.is_tokenized or view.count("train") != len(view.lengths):
        return
    lengths = np.minimum(view.lengths, width)
    n_targets = view.n_targets - (view.lengths - lengths)
    kept = n_targets > 0
    cut = spec.train.model_copy(update={"max_seq_length": width})
    fingerprint = load_data(spec.data).fingerprint()["train"]
    work = Workload(lengths[kept], n_targets[kept], "as tokenized")
    save_lengths(spec.model_copy(update={"train": cut}), fingerprint, work)


def _head(reference: str, model: str, hours: float, design: Design) -> list[str]:
    known = design.plan.memory
    return [
        f"Made by `hawsweep init` for {reference} and {model}, {hours:g} hours.",
        f"A trial takes about {duration(design.timing.trial_s)} here, all about "
        f"{duration(design.timing.total_s)}; speed: {known.speed.how}.",
        "What a key means: hawsweep explain KEY",
    ]


def _warnings(basis: Basis, spec: SweepSpec, plan: SweepPlan) -> Iterator[str]:
    view, n_prompts = basis.view, spec.scoring.max_examples
    yield from (f"{each.text}." for each in repeated_or_empty(view))
    yield from (f"{each}." for each in view.warnings)
    yield from (f"{each.text}. {each.remedy}" for each in mixed_writing(view))
    yield from (f"{each.text}." for each in odd_groups(spec, view))
    if view.unread:
        yield f"{view.unread[:1].upper()}{view.unread[1:]}. {LONGER_EMBEDDER}"
    for leak in view.leaks:
        yield f"{leak}: their score is too high."
    if n_prompts < FEW_PROMPTS:
        few = "the data has no more" if n_prompts == basis.n_valid else "more would take too long"
        yield (
            f"{counted(n_prompts, 'prompt')} cannot tell close trials apart ({few}): scores must "
            f"differ by about {told_apart(n_prompts):.2f} or more."
        )
    if not view.count("test"):
        yield "There is no test split: the winner is judged by the prompts it was chosen by."
    if spec.trials < ENOUGH_TRIALS:
        yield (
            f"{counted(spec.trials, 'trial')} in all: the sampler hardly learns from so few. More "
            "--hours help."
        )
    if resolve.find_model(spec.model) is None:
        how = download_command(spec.model)
        yield f"{spec.model} is not here: the first start fetches it. To fetch it now{how}."
    if not plan.memory.is_calibrated:
        yield (
            "The speed was never measured here: the first start does. For a better plan run "
            "`hawsweep plan NAME --calibrate`, then this command again with --force."
        )
