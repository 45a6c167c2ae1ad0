"""A model card: model, data, settings, scores, and limits."""

import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from hawsweep.data.load import load_data
from hawsweep.errors import DataError, HawsweepError
from hawsweep.export.card_metadata import metadata, metric_name, name_of, reference_name
from hawsweep.export.fidelity import Check
from hawsweep.export.ollama import common_system
from hawsweep.files import read_json_lines
from hawsweep.layout import SAMPLE_FILES
from hawsweep.markdown import code, fenced, plain
from hawsweep.results.groups import groups
from hawsweep.results.leaderboard import TrialRow, leaderboard
from hawsweep.results.verdict import judge_study
from hawsweep.spec.space import MODEL
from hawsweep.spec.sweep import SweepSpec
from hawsweep.study.baselines import base_dir_of
from hawsweep.study.confirm import confirmations, winner
from hawsweep.study.place import Place
from hawsweep.study.study import spec_of

# The most characters of a quoted sentence.
_LONGEST = 1000


@dataclass(frozen=True)
class Piece:
    """One exported part, for the card.

    Attributes:
        name: ``adapters`` or ``fused``.
        path: Relative to the card's folder.
    """

    name: str
    path: str
    check: Check
    is_dequantized: bool = False


@dataclass(frozen=True)
class Released:
    """The exported parts that a card describes beside the trial.

    Attributes:
        checkpoint: The adapter's iteration if it is not the trial's best; else None.
        repo: The card's Hugging Face repository, or None.
        has_modelfile: Whether a Modelfile is beside the card.
    """

    pieces: Sequence[Piece] = ()
    checkpoint: int | None = None
    repo: str | None = None
    has_modelfile: bool = False

    def piece(self, name: str) -> Piece | None:
        """The part of that name, or None."""
        return next((each for each in self.pieces if each.name == name), None)


def card(
    opened: optuna.Study,
    place: Place,
    trial: FrozenTrial,
    released: Released = Released(),
) -> str:
    """The card of a trial's adapter, in Markdown with the metadata that Hugging Face reads.

    It names no folder of this machine. ``released`` has the exported parts, if there are any.
    """
    spec = spec_of(opened, trial)
    rows = {row.label: row for row in leaderboard(opened)}
    row = rows[str(trial.number)]
    sections = [
        _head(opened, spec, trial, released),
        _measured(opened, place, spec, rows.values(), row, released),
        _groups(opened, place, trial),
        _limits(opened, place, spec, trial, released),
        _settings(opened, spec, trial),
        _exported(released),
        _use(opened, spec, released),
        _reproduce(opened, spec),
    ]
    front = metadata(
        opened,
        spec,
        row,
        is_fused=released.piece("fused") is not None,
        is_measured=released.checkpoint is None,
    )
    text = "\n\n".join(each for each in sections if each)
    return f"---\n{front}---\n\n{text}\n"


def _head(opened: optuna.Study, spec: SweepSpec, trial: FrozenTrial, released: Released) -> str:
    kind = trial.params.get("fine_tune_type", spec.train.fine_tune_type)
    what = "weights" if kind == "full" else f"adapter ({kind})"
    made = f"fused from an {what}" if released.piece("fused") else f"as an {what}"
    sources = " and ".join(f"{code(name_of(each.path))}" for each in spec.data)
    text = (
        f"{code(name_of(spec.model))}, fine-tuned on {sources}, {made}. It is trial "
        f"{trial.number} of the sweep {plain(opened.study_name)} by hawsweep"
    )
    if released.checkpoint is not None:
        text += (
            f", its checkpoint at iteration {released.checkpoint}: the scores below are those of "
            f"the trial's best, at iteration {trial.user_attrs.get('best_iteration')}, where "
            "no other iteration is named"
        )
    described = plain(spec.description, _LONGEST)
    title = released.repo.split("/")[-1] if released.repo else opened.study_name
    parts = [f"# {plain(title)}", described, f"{text}."]
    return "\n\n".join(part for part in parts if part)


def _measured(
    opened: optuna.Study,
    place: Place,
    spec: SweepSpec,
    rows: Any,
    row: TrialRow,
    released: Released,
) -> str:
    kind = metric_name(spec.scoring.metric)
    n_prompts = len(
        read_json_lines(base_dir_of(opened, place, int(row.label)) / SAMPLE_FILES["base"])
    )
    lines = [
        "## How well it does",
        "",
        f"Score: mean {plain(kind)} of greedy answers to "
        + (f"{n_prompts} validation prompts" if n_prompts else "validation prompts")
        + f" of at most {spec.scoring.max_tokens} tokens"
        + (f", embedded by {code(name_of(spec.scoring.embedder))}" if _embeds(spec) else "")
        + ", with its 95 % interval over the prompts.",
        "",
        "| | validation loss | score | 95 % | chrF | BLEU |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for each in rows:
        if each is row or each.state == "base":
            label = f"**trial {each.label}**" if each is row else plain(each.label)
            lines.append(f"| {label} | " + " | ".join(_cells(each)) + " |")
    lines += _test_lines(opened, row)
    again = [each for each in confirmations(opened) if str(each.trial_number) == row.label]
    if again:
        scores = ", ".join(f"{score:.4f}" for score in again[0].scores)
        lines += [
            "",
            f"The same settings trained with new seeds scored {scores}; it was chosen at "
            f"{again[0].selected:.4f}.",
        ]
    verdict = judge_study(opened, place)
    if verdict is not None and verdict.winner == f"trial {row.label}":
        lines += ["", *(f"{plain(each, _LONGEST)}  " for each in verdict.sentences)]
    return "\n".join(lines)


def _embeds(spec: SweepSpec) -> bool:
    return spec.scoring.metric == "semantic_similarity"


def _cells(row: TrialRow) -> list[str]:
    def number(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    has_ends = row.low is not None and row.high is not None
    return [
        number(row.val_loss, ".3f"),
        number(row.score, ".4f"),
        f"{row.low:.3f} to {row.high:.3f}" if has_ends else "",
        number(row.chrf, ".1f"),
        number(row.bleu, ".1f"),
    ]


def _test_lines(opened: optuna.Study, row: TrialRow) -> list[str]:
    test = opened.user_attrs.get("test", {})
    if str(test.get("trial_number")) != row.label:
        return ["", "The test split was not opened for this trial."]
    lines = [
        "",
        f"Test split ({test['n_prompts']} prompts, opened for the winner alone):"
        if "n_prompts" in test
        else "Test split, opened for the winner alone:",
        "",
        "| | score | chrF | BLEU |",
        "| --- | --- | --- | --- |",
    ]
    labels = {"trial": f"**trial {row.label}**", "base": "base", "few_shot": "base with examples"}
    for key, label in labels.items():
        if key in test:
            values = test[key]
            numbers = [f"{values['score']:.4f}" if "score" in values else ""]
            numbers += [
                f"{values[name]:.1f}" if name in values else "" for name in ("chrf", "bleu")
            ]
            lines.append(f"| {label} | " + " | ".join(numbers) + " |")
    return lines


def _groups(opened: optuna.Study, place: Place, trial: FrozenTrial) -> str:
    best = winner(opened)
    test = opened.user_attrs.get("test", {}).get("trial_number")
    judged = test if test is not None else best and best.number
    rows = groups(opened, place) if judged == trial.number else []
    if not rows:
        return ""
    worse = [row for row in rows if row.gain.mean < 0]
    named = ", ".join(f"{plain(row.group)} ({row.gain.mean:+.3f})" for row in worse)
    lines = [
        "## By kind of prompt",
        "",
        f"It scores lower than the base in {named}." if worse else "It is worse in none of them.",
        "",
        "| group | prompts | base | this | gain |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        lines.append(
            f"| {plain(row.group)} | {row.n_prompts} | {row.base:.3f} | {row.trial:.3f} | "
            f"{row.gain.mean:+.3f} |"
        )
    return "\n".join(lines)


def _limits(
    opened: optuna.Study, place: Place, spec: SweepSpec, trial: FrozenTrial, released: Released
) -> str:
    check = opened.user_attrs.get("self_check", {})
    said = []
    if math.isfinite(check.get("detectable", math.inf)):
        said.append(
            f"{check['n_prompts']} validation prompts tell apart scores that differ by "
            f"{check['detectable']:.3f} or more."
        )
    said.append(
        "The trial was chosen by its score on the validation prompts, so that score is somewhat "
        "too high; go by the test split."
        if opened.user_attrs.get("test", {}).get("trial_number") == trial.number
        else "The trial was chosen by its score on the validation prompts, so that score is "
        "somewhat too high. There is no score on prompts that took no part in the choice."
    )
    said += [plain(text, _LONGEST) for text in check.get("warnings", ())]
    said.append(
        "Not measured: prompts unlike those of this data; abilities of the base that this model "
        "may have lost; whether answers are safe or fair; decoding other than greedy. No person "
        "judged the answers."
    )
    faults = trial.user_attrs.get("faults") or {}
    if faults:
        kinds = ", ".join(f"{count} {plain(kind)}" for kind, count in faults.items())
        said.append(f"Faulty answers among the validation prompts: {kinds}.")
    return "\n".join(["## Limits", "", *(f"- {each}" for each in said)])


def _settings(opened: optuna.Study, spec: SweepSpec, trial: FrozenTrial) -> str:
    prints = opened.user_attrs["spec"].get("fingerprints", {})
    lines = ["## Data and settings", "", "| | records : fingerprint |", "| --- | --- |"]
    for name in ("train", "valid", "test"):
        if name in prints:
            lines.append(f"| {name} | {code(str(prints[name]))} |")
    own = prints.get(f"model {spec.model}", prints.get("model"))
    if own is not None:
        lines.append(f"| base model | {code(str(own))} |")
    fixed = spec.train.model_dump(mode="json", exclude_defaults=True)
    settings = {**dict(_dotted(fixed)), **trial.params}
    settings.pop(MODEL, None)  # named above; it may be a folder of this machine
    lines += [
        "",
        "Settings not listed are hawsweep's defaults. The trial's adapter is the one of iteration "
        f"{trial.user_attrs.get('best_iteration', 'unknown')}, where validation loss was least.",
        "",
        fenced(json.dumps(settings, indent=2, ensure_ascii=False), "json"),
    ]
    return "\n".join(lines)


def _dotted(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _exported(released: Released) -> str:
    if not released.pieces:
        return ""
    lines = [
        "## Checks of these files",
        "",
        "Each file was loaded and translated the same validation prompts in the same batches.",
        "",
        "| file | score | the trial's | identical answers | nearly identical |",
        "| --- | --- | --- | --- | --- |",
    ]
    for each in released.pieces:
        check = each.check
        shares = ["" if part is None else f"{part:.0%}" for part in (check.identical, check.near)]
        expected = "" if check.expected is None else f"{check.expected:.4f}"
        name = f"{each.name}, dequantized" if each.is_dequantized else each.name
        lines.append(f"| {name} | {check.score:.4f} | {expected} | {shares[0]} | {shares[1]} |")
    return "\n".join(lines)


def system_message(spec: SweepSpec) -> str | None:
    """The system message of all training records; None if there is none, or it is not known."""
    try:
        return common_system(load_data(spec.data).train)
    except DataError:  # the data was moved
        return None


def generate_command(
    model: str, adapter: str | None, system: str | None, prompt: str = "..."
) -> str:
    """The command with which mlx-lm answers as the study did."""
    words = ["mlx_lm.generate", "--model", model]
    words += ["--adapter-path", adapter] if adapter else []
    words += ["--system-prompt", system] if system else []
    return shlex.join([*words, "--prompt", prompt, "--temp", "0"])


def _use(opened: optuna.Study, spec: SweepSpec, released: Released) -> str:
    try:
        system = system_message(spec)
    except HawsweepError:
        system = None
    base, repo = name_of(spec.model), released.repo
    fused = released.piece("fused")
    lines: list[str] = []
    if fused is not None:
        lines.append(generate_command(repo or fused.path, None, system))
    elif repo:
        lines.append(shlex.join(["hf", "download", repo, "--local-dir", "adapters"]))
        lines.append(generate_command(base, "adapters", system))
    else:
        lines.append(generate_command(base, "adapters", system))
    if released.has_modelfile:
        name = (repo or opened.study_name).split("/")[-1].lower()
        lines.append(f"ollama create {shlex.quote(name)} -f Modelfile")
    return "## How to use it\n\n" + fenced("\n".join(lines), "bash")


def _reproduce(opened: optuna.Study, spec: SweepSpec) -> str:
    versions = opened.user_attrs.get("versions", {})
    pairs = ", ".join(f"{plain(name)} {code(value)}" for name, value in versions.items())
    shown = spec.model_copy(
        update={
            "model": reference_name(spec.model),
            "data": tuple(
                each.model_copy(update={"path": reference_name(each.path)}) for each in spec.data
            ),
            "scoring": spec.scoring.model_copy(
                update={"embedder": reference_name(spec.scoring.embedder)}
            ),
        }
    )
    return (
        f"## How to reproduce it\n\nMade with {pairs}. `hawsweep start` runs this sweep:\n\n"
        "<details><summary>the sweep</summary>\n\n"
        f"{fenced(shown.dump_yaml().rstrip(), 'yaml')}\n\n</details>"
    )
