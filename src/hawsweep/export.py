"""Leaving the study: a trial's adapter for mlx_lm, alone and fused, checked by what they say."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from hawsweep import confirm, data, models, study, trials
from hawsweep.adapters import CONFIG_FILE, WEIGHTS_FILE
from hawsweep.baselines import baseline_of
from hawsweep.errors import ExportError
from hawsweep.scoring import Scorer
from hawsweep.spec import SweepSpec

# How far the mean similarity of the same translations may move.
SIMILARITY_TOLERANCE = 0.01


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        similarity: Of the trial when it was scored.
        adapter_similarity: Of the exported adapter, loaded anew, on the same prompts.
        fused_similarity: The same of the fused model; None where none was asked for.
        dequantized: Whether the fused model had to leave its base's quantization to keep the
            adapter.
    """

    folder: Path
    trial_number: int
    similarity: float
    adapter_similarity: float
    fused_similarity: float | None = None
    dequantized: bool = False


def export_trial(
    opened: optuna.Study,
    place: study.Place,
    *,
    trial_number: int | None = None,
    fuse: bool = False,
    force: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Write ``export/adapters`` and, with ``fuse``, ``export/fused``; the best trial's by default.

    Each is loaded again and translates the validation prompts; it counts as exported only when the
    similarity is the trial's within ``SIMILARITY_TOLERANCE``.

    Raises:
        ExportError: There is no such adapter, an export is there already, or it does not do what
            the trial did.
        StudyError: There is no such trial.
    """
    trial = _choose(opened, trial_number)
    folder = place.study_dir(opened.study_name) / "export"
    if folder.exists() and not force:
        raise ExportError(f"{folder} is there already. Use --force to replace it.")
    source = place.trial_dir(opened.study_name, trial.number) / "adapters"
    for name in (WEIGHTS_FILE, CONFIG_FILE):
        if not (source / name).is_file():
            raise ExportError(
                f"Trial {trial.number} has no {source / name}: it did not end, or keep in the "
                "sweep did not keep it. Export another trial with --trial."
            )
    building = folder.with_name("~export")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        exported = _build(opened, trial, source, building, fuse, progress)
        shutil.rmtree(folder, ignore_errors=True)
        building.replace(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return replace(exported, folder=folder)


def _build(
    opened: optuna.Study,
    trial: FrozenTrial,
    source: Path,
    building: Path,
    fuse: bool,
    progress: Callable[[str], None],
) -> Exported:
    spec = study.spec_of(opened, trial)
    base = models.resolve_model(spec.model, progress)
    adapters = building / "adapters"
    adapters.mkdir()
    for name in (WEIGHTS_FILE, CONFIG_FILE):
        shutil.copy2(source / name, adapters / name)
    expected = trial.user_attrs["similarity"]
    check = _Check(spec)
    progress("checking the adapter's translations")
    adapter_similarity = check(base, adapters)
    if abs(adapter_similarity - expected) > SIMILARITY_TOLERANCE:
        raise ExportError(
            f"The adapter of trial {trial.number}, loaded anew, scores "
            f"{adapter_similarity:.4f}, but the trial scored "
            f"{expected:.4f}. Has the model at {base} or the data changed?"
        )
    exported = Exported(building, trial.number, expected, adapter_similarity)
    if fuse:
        exported = _fuse(base, adapters, building / "fused", exported, check, progress)
    (building / "README.md").write_text(_card(opened, spec, trial, exported), encoding="utf-8")
    return exported


def _fuse(
    base: Path,
    adapters: Path,
    target: Path,
    exported: Exported,
    check: "_Check",
    progress: Callable[[str], None],
) -> Exported:
    tried = []
    for dequantize in (False, True):
        progress("fusing" + (" dequantized" if dequantize else ""))
        shutil.rmtree(target, ignore_errors=True)
        _run_mlx_lm_fuse(base, adapters, target, dequantize)
        progress("checking the fused model's translations")
        similarity = check(target)
        tried.append(f"{similarity:.4f}{' dequantized' if dequantize else ''}")
        if abs(similarity - exported.similarity) <= SIMILARITY_TOLERANCE:
            return replace(exported, fused_similarity=similarity, dequantized=dequantize)
    raise ExportError(
        f"The fused model scores {' and '.join(tried)}, but the trial scored "
        f"{exported.similarity:.4f}: fusing lost the "
        "adapter. Use the adapter with mlx_lm.generate --adapter-path instead (export "
        "without --fuse)."
    )


def _run_mlx_lm_fuse(base: Path, adapters: Path, target: Path, dequantize: bool) -> None:
    command = [sys.executable, "-m", "mlx_lm", "fuse", "--model", str(base)]
    command += ["--adapter-path", str(adapters), "--save-path", str(target)]
    command += ["--dequantize"] if dequantize else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise ExportError(f"mlx_lm.fuse failed with exit code {done.returncode}: {last}")


class _Check:
    """Scores what was written on the trial's validation prompts, in the same batches."""

    def __init__(self, spec: SweepSpec) -> None:
        self._spec = spec
        records = data.load_data(spec.data).valid
        chosen = data.choose_subset(records, spec.scoring.max_examples, spec.seed)
        self._prompts = list(chosen)
        self._scorer = Scorer(models.resolve_embedder(spec.scoring.embedder), spec.scoring)

    def __call__(self, model: Path, adapters: Path | None = None) -> float:
        loaded = models.load_model(model, adapters, trust_remote_code=self._spec.trust_remote_code)
        return self._scorer.score(loaded, self._prompts).similarity


def _choose(opened: optuna.Study, number: int | None) -> FrozenTrial:
    if number is None:
        best = confirm.winner(opened)
        if best is None:
            raise ExportError(
                f"Study {opened.study_name!r} has no complete trial yet. Go on with hawsweep start."
            )
        return best
    trial = trials.trial_of(opened, number)
    if trial.state != TrialState.COMPLETE:
        raise ExportError(
            f"Trial {number} is {trial.state.name.lower()}, only complete ones can be exported."
        )
    return trial


def _card(opened: optuna.Study, spec: SweepSpec, trial: FrozenTrial, exported: Exported) -> str:
    untuned = baseline_of(opened, trial)
    base: Mapping[str, Any] = {} if untuned is None else untuned.values
    settings = json.dumps(trial.params, indent=2)
    kind = trial.params.get("fine_tune_type", spec.train.fine_tune_type)
    trained_on = ", ".join(f"`{each.path}`" for each in spec.data)
    lines = [
        f"# Trial {trial.number} of the sweep {opened.study_name}",
        "",
        f"An adapter ({kind}) for `{spec.model}`, trained on {trained_on} by hawsweep.",
        "",
        "| | validation loss | similarity | chrF |",
        "| --- | --- | --- | --- |",
        f"| base | {base.get('val_loss', float('nan')):.3f} | "
        f"{base.get('similarity', float('nan')):.4f} "
        f"| {base.get('chrf', float('nan')):.1f} |",
        f"| this adapter | {trial.user_attrs['val_loss']:.3f} | {exported.similarity:.4f} "
        f"| {trial.user_attrs['chrf']:.1f} |",
        "",
        f"Best checkpoint at iteration {trial.user_attrs['best_iteration']}. Settings:",
        "",
        "```json",
        settings,
        "```",
        "",
        "`adapters/` is read by `mlx_lm.generate --adapter-path`; `fused/`, where present, "
        "is a model of its own.",
        "",
    ]
    return "\n".join(lines)
