"""Creating, opening and continuing studies, with their pruners."""

import gc
import json
import random
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import date
from typing import Any

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner, PercentilePruner
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError

from hawsweep.errors import SpecChangedError, StudyError
from hawsweep.files import replace_text
from hawsweep.layout import CONFIRM_SUFFIX, SPEC_FILE
from hawsweep.spec.space import by_dotted_key
from hawsweep.spec.sweep import SweepSpec, without_gone_keys
from hawsweep.study.attributes import (
    BASE,
    BASES,
    DATE,
    DESCRIPTION,
    EXTENDED,
    HOW,
    PATHS,
    SPEC,
    STARTS,
    STOP,
    VERSIONS,
)
from hawsweep.study.backup import tell_what_is_left
from hawsweep.study.located import located
from hawsweep.study.optuna_door import study_id
from hawsweep.study.place import Place, folder_name, printable
from hawsweep.study.provenance import start_record, versions
from hawsweep.study.storage import confirm_name, study_names
from hawsweep.text import SayProgress

_MOST_STARTS = 100


def create_study(
    storage: BaseStorage,
    place: Place,
    name: str,
    spec: SweepSpec,
    fingerprints: Mapping[str, str],
    *,
    accept_versions: bool = False,
) -> tuple[optuna.Study, bool]:
    """Create a study, or open it to go on. Either way the start is recorded.

    Args:
        fingerprints: Of the splits, the model and the metric; see ``provenance.fingerprints``.
        accept_versions: Go on even if the study was made with other versions of libraries.

    Returns:
        The study, and whether it is new.

    Raises:
        SpecChangedError: It was made with another spec, other data, another model or other
            versions.
        StudyError: The study's folder cannot be written.
    """
    folder = place.study_dir(name)
    asked = {**spec.fingerprint(), "fingerprints": dict(fingerprints)}
    if name in study_names(storage):
        study = load_study(storage, name, spec)
        differs = differences(study, spec, fingerprints, accept_versions=accept_versions)
        if not differs:
            _note_start(study)
            return study, False
        if not is_untouched(study):
            raise SpecChangedError(differs)
        # A start that failed before its first measurement has no results to agree with.
        optuna.delete_study(study_name=name, storage=storage)
    try:
        for made_again in ("base", "data", "confirm"):  # left from an earlier study of that name
            shutil.rmtree(folder / made_again, ignore_errors=True)
        (folder / "trials").mkdir(parents=True, exist_ok=True)
        header = json.dumps({"versions": versions(), "fingerprints": dict(fingerprints)})
        replace_text(folder / SPEC_FILE, f"# {header}\n{spec.dump_yaml()}")
    except OSError as fault:
        raise StudyError(
            f"{folder} cannot be written: {fault.strerror}. Choose another --studies-dir."
        ) from fault
    if confirm_name(name) in optuna.get_all_study_names(storage):
        optuna.delete_study(study_name=confirm_name(name), storage=storage)
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        direction="maximize",
        pruner=make_pruner(spec),
    )
    name_metric(study, spec.scoring.metric.replace("_", " "))
    study.set_user_attr(SPEC, asked)
    study.set_user_attr(VERSIONS, versions())
    study.set_user_attr(DESCRIPTION, spec.description)
    study.set_user_attr(DATE, date.today().isoformat())
    _note_start(study)
    return study, True


def differences(
    study: optuna.Study,
    spec: SweepSpec,
    fingerprints: Mapping[str, str],
    *,
    accept_versions: bool = False,
) -> str:
    """Why a study with results cannot go on so, and what to do; empty if it can."""
    name, asked = study.study_name, {**spec.fingerprint(), "fingerprints": dict(fingerprints)}
    if changes := _changes(_spec_with_defaults(study, asked), asked):
        return (
            f"Study {name!r} was made with another spec: {changes}. "
            "Start it under another name with --study, or restore the value."
        )
    known = study.user_attrs.get(VERSIONS, {})
    others = "" if accept_versions else _changes(known, {**known, **versions()})
    if not others:
        return ""
    return (
        f"Study {name!r} was made with other versions, so its numbers and new "
        f"ones may not be comparable: {others}. Start it under another name with --study, "
        "install those versions, or go on with --accept-versions."
    )


def name_metric(study: optuna.Study, name: str) -> None:
    """Set the name of the score for Optuna's dashboard and plots."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([name])


def _note_start(study: optuna.Study) -> None:
    starts = [*study.user_attrs.get(STARTS, []), start_record()]
    # The first one tells this study from a later one of its name.
    study.set_user_attr(STARTS, [starts[0], *starts[1:][1 - _MOST_STARTS :]])


def load_study(storage: BaseStorage, name: str, spec: SweepSpec | None = None) -> optuna.Study:
    """Open a study; with ``spec``, to go on with its pruner.

    Raises:
        StudyError: There is no such study; the message lists the studies. Or hawsweep does not
            allow the name.
    """
    name = folder_name(name)
    try:
        study = optuna.load_study(storage=storage, study_name=name)
    except KeyError as fault:
        known = ", ".join(map(printable, study_names(storage))) or "none"
        raise StudyError(
            f"There is no study {name!r}. Studies here: {known}. `hawsweep list` shows them."
        ) from fault
    if spec is not None:
        study.pruner = make_pruner(spec)
    return study


def await_study(
    storage: BaseStorage,
    name: str,
    say: SayProgress,
    sleep: Callable[[float], None] = time.sleep,
) -> optuna.Study:
    """Open a study as soon as it is started.

    Args:
        say: Called once if there is no such study yet.
    """
    name, is_told = folder_name(name), False
    while True:
        with suppress(StudyError):
            study = load_study(storage, name)
            if HOW in study.user_attrs:  # all that a start writes is there
                return study
        if not is_told:
            is_told = True
            known = ", ".join(map(printable, study_names(storage))) or "none"
            say(f"Waiting for study {name!r} to be started. Studies there: {known}. Ctrl-C ends it")
        sleep(random.uniform(1.0, 3.0))


def read_trials(study: optuna.Study) -> optuna.Study:
    """Read a study's trials now. Ended trials are not read again later.

    Garbage collection is off meanwhile: it would take a third of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        study.get_trials(deepcopy=False)
    finally:
        if was_enabled:
            gc.enable()
    return study


def make_pruner(spec: SweepSpec) -> BasePruner:
    """Optuna's pruner that ``pruning`` names; none where trials are promoted."""
    asked = spec.pruning
    if asked.name in ("none", "promote"):
        return NopPruner()
    when = {
        "n_startup_trials": asked.n_startup_trials,
        "n_warmup_steps": asked.n_warmup_steps,
        "n_min_trials": asked.n_min_trials,
    }
    if asked.name == "median":
        return MedianPruner(**when)
    return PercentilePruner(asked.percentile, **when)


def check_same_here(study: optuna.Study, fingerprints: Mapping[str, str]) -> None:
    """Refuse to run a study's trials where they would give other numbers.

    Args:
        fingerprints: Of data, models and metric on this machine.

    Raises:
        SpecChangedError: They, or versions of libraries, differ; the message has both values.
    """
    starts = study.user_attrs.get(STARTS) or [{}]
    known = {
        **study.user_attrs.get(SPEC, {}).get("fingerprints", {}),
        **starts[-1].get("versions", study.user_attrs.get(VERSIONS, {})),
    }
    here = {**known, **versions(), **fingerprints}
    if changes := _changes({**here, **known}, here, "{} is {} there and {} here"):
        raise SpecChangedError(
            f"Study {study.study_name!r} is run with something else than this machine has, so its "
            f"numbers would not be comparable: {changes}. Install the same versions; --model and "
            "--data say where model and data are on this machine."
        )


def date_of(study: optuna.Study) -> date:
    """The date for chat templates that ask the clock, the same all study long: of its start."""
    kept, starts = study.user_attrs.get(DATE), study.user_attrs.get(STARTS)
    if kept is not None:
        return date.fromisoformat(kept)
    return date.fromtimestamp(starts[0]["time"]) if starts else date.today()


def check_tokens(study: optuna.Study, *, differs: bool) -> None:
    """Refuse to go on with a study of an earlier version that learned other tokens.

    Args:
        differs: Whether the model's tokens differ from mlx_lm's, which earlier versions took.

    Raises:
        SpecChangedError: They do, and it has results.
    """
    is_older = study.user_attrs.get(DATE) is None
    if is_older and differs and not is_untouched(study):
        raise SpecChangedError(
            f"Study {study.study_name!r} was begun by a version of hawsweep that trained other "
            "tokens with this model's chat template, so its numbers and new ones are not "
            "comparable. Start it under another name with --study."
        )


def stop_asked(study: optuna.Study) -> int:
    """Whether the study is to stop: 0 no, 1 after the current evaluation, 2 now."""
    return study.user_attrs.get(STOP) or 0


def spec_to_run(storage: BaseStorage, name: str, spec: SweepSpec) -> tuple[SweepSpec, str]:
    """The sweep as the study ``name`` runs it, and what that changes, in words.

    A study of an earlier version, which searches ``iters``, goes on with that.
    """
    pruning = ""
    if name in study_names(storage):
        study = load_study(storage, name)
        before = known_spec(study)
        if before is not None and before.pruning.name != spec.pruning.name:
            pruning = (
                f"pruning was {before.pruning.name}, is {spec.pruning.name}: it decides which "
                "trials go on from now"
            )
        if "iters" in study.user_attrs.get(SPEC, {}).get("search", {}):
            return spec, pruning
    spec, longest = spec.trained_longest()
    return spec, longest or pruning


def spec_of(
    study: optuna.Study, trial: FrozenTrial | None = None, place: Place | None = None
) -> SweepSpec:
    """The spec of a study, with the values of the last start and what was added to them; for a
    trial, with its model as the only one; for a place, with model and data as they are found from
    the current folder.
    """
    spec = extended(study, spec_of_start(study))
    if trial is not None:
        queued = trial.system_attrs.get("fixed_params", {})
        spec = spec.of_model(spec.model_of({**queued, **trial.params}))
    return spec if place is None else located(spec, study.user_attrs.get(PATHS, {}), place)


def spec_of_start(study: optuna.Study) -> SweepSpec:
    """The spec of a study, with the values of the last start."""
    attributes = study.user_attrs
    content = {key: value for key, value in attributes[SPEC].items() if key != "fingerprints"}
    return SweepSpec.model_validate(without_gone_keys({**content, **attributes.get(HOW, {})}))


def extended(study: optuna.Study, spec: SweepSpec) -> SweepSpec:
    """A start's spec with what `hawsweep extend` added to its values. A start with other values
    goes by its own.

    Args:
        spec: As the start asked: what was added is added once.
    """
    added = study.user_attrs.get(EXTENDED, {}).items()
    return spec.model_copy(
        update={key: now for key, (asked, now) in added if getattr(spec, key) == asked}
    )


def known_spec(study: optuna.Study) -> SweepSpec | None:
    """The spec of a study; None of one that another program made, or a version with other keys."""
    try:
        return spec_of(study)
    except (KeyError, ValidationError):
        return None


def newest(storage: BaseStorage, place: Place) -> str:
    """The name of the study started last.

    Raises:
        StudyError: There is none. The message says what is left of others in ``place``.
    """
    summaries = [
        each
        for each in optuna.get_all_study_summaries(storage, include_best_trial=False)
        if not each.study_name.endswith(CONFIRM_SUFFIX)
    ]
    if not summaries:
        left = tell_what_is_left(place)
        raise StudyError(
            f"The database has no studies. {left}"
            if left
            else "There are no studies yet. Start one: hawsweep start lr-rank"
        )
    return str(max(summaries, key=study_id).study_name)


def is_untouched(study: optuna.Study) -> bool:
    """Whether a study has no results: the next start may make it anew."""
    trials = study.get_trials(deepcopy=False)
    is_measured = study.user_attrs.keys() & {BASE, BASES}
    return not is_measured and all(t.state == TrialState.WAITING for t in trials)


def _spec_with_defaults(study: optuna.Study, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The keys and fingerprints that a study was made with. Keys newer than the study have their
    defaults, and newer fingerprints their present values.
    """
    stored: dict[str, Any] = study.user_attrs.get(SPEC, {})
    known = {**asked["fingerprints"], **stored.get("fingerprints", {})}
    spec = known_spec(study)
    return stored if spec is None else {**spec.fingerprint(), "fingerprints": known}


def _changes(
    before: Mapping[str, Any], now: Mapping[str, Any], words: str = "{} was {}, is {}"
) -> str:
    """The differences, each key with both values; empty without differences."""
    was, is_now = by_dotted_key(before), by_dotted_key(now)
    return "; ".join(
        f"the content of {content} has changed ({was.get(key)}, now {is_now.get(key)})"
        if (content := key.removeprefix("fingerprints.")) != key
        else words.format(key, was.get(key, "not set"), is_now.get(key, "not set"))
        for key in sorted({**was, **is_now})
        if was.get(key) != is_now.get(key)
    )
