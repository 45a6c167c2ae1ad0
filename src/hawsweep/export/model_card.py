"""A model card: model, data, settings, scores, and limits."""

import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from hawsweep.data.load import load_data
from hawsweep.data.tokens import common_system
from hawsweep.errors import DataError, HawsweepError
from hawsweep.export.card_metadata import (
    metadata,
    metric_name,
    name_of,
    reference_name,
    transformers_base,
)
from hawsweep.export.folder import Part
from hawsweep.files import read_json_lines
from hawsweep.layout import SAMPLE_FILES
from hawsweep.markdown import render
from hawsweep.models.hub import split_revision
from hawsweep.results.groups import GroupRow, groups
from hawsweep.results.leaderboard import leaderboard
from hawsweep.results.review import review_of
from hawsweep.results.verdict import judge_study
from hawsweep.spec.space import MODEL
from hawsweep.spec.sweep import SweepSpec
from hawsweep.study.attributes import SELF_CHECK, SPEC, VERSIONS
from hawsweep.study.baselines import base_dir_of, prompt_text
from hawsweep.study.confirm import confirmations, winner
from hawsweep.study.place import Place
from hawsweep.study.study import spec_of
from hawsweep.study.trials import read_test
from hawsweep.text import number, opened_text

_TEMPLATE = Path(__file__).parent / "pages" / "model_card.md.j2"
# The most characters of a quoted sentence.
_LONGEST = 1000


@dataclass(frozen=True)
class Released:
    """The exported parts that a card describes beside the trial.

    Attributes:
        checkpoint: The adapter's iteration if it is not the trial's best; else None.
        repo: The card's Hugging Face repository, or None.
        has_modelfile: Whether a Modelfile is beside the card.
        switches: See ``Asking``.
    """

    parts: Sequence[Part] = ()
    checkpoint: int | None = None
    repo: str | None = None
    has_modelfile: bool = False
    switches: Mapping[str, bool] = field(default_factory=dict)

    @property
    def fused(self) -> Part | None:
        """The fused model, or None."""
        return next((each for each in self.parts if each.name == "fused"), None)


def card(
    study: optuna.Study,
    place: Place,
    trial: FrozenTrial,
    released: Released = Released(),
) -> str:
    """The card of a trial's adapter, in Markdown with the metadata that Hugging Face reads.

    It names no folder of this machine. ``released`` has the exported parts, if there are any.
    """
    attrs, spec = study.user_attrs, spec_of(study, trial, place)
    rows = leaderboard(study)
    row = next(each for each in rows if each.label == str(trial.number))
    kind = trial.params.get("fine_tune_type", spec.train.fine_tune_type)
    check, test, verdict = (
        attrs.get(SELF_CHECK, {}),
        read_test(study) or {},
        judge_study(study, place),
    )
    is_winner = verdict is not None and verdict.winner == f"trial {row.label}"
    is_fused, reviewed = released.fused is not None, review_of(study, place)
    base_samples = base_dir_of(study, place, trial.number) / SAMPLE_FILES["base"]
    again = [each for each in confirmations(study) if each.trial_number == trial.number]
    return render(
        _TEMPLATE,
        front=metadata(
            study, spec, row, is_fused=is_fused, is_measured=released.checkpoint is None
        ),
        title=released.repo.split("/")[-1] if released.repo else study.study_name,
        study=study,
        spec=spec,
        trial=trial,
        released=released,
        kind="weights" if kind == "full" else f"adapter ({kind})",
        n_prompts=len(read_json_lines(base_samples)),
        row=row,
        rows=[each for each in rows if each is row or each.state == "base"],
        few_shot_label=_few_shot_label(test),
        test=test if test.get("trial_number") == trial.number else None,
        again=again[0] if again else None,
        sentences=verdict.sentences if verdict is not None and is_winner else (),
        reviewed=reviewed.sentences() if reviewed and reviewed.trial == trial.number else (),
        keeps=is_winner and verdict is not None and verdict.retention is not None,
        groups=_groups(study, place, trial),
        check=check,
        is_detectable=math.isfinite(check.get("detectable", math.inf)),
        fingerprints=_fingerprints(study, spec_of(study, trial)),
        settings=json.dumps(_settings(spec, trial), indent=2, ensure_ascii=False),
        commands=_commands(study, spec, released),
        in_peft=(
            _in_peft(spec, released.repo)
            if any(each.name == "peft" for each in released.parts)
            else None
        ),
        versions=attrs.get(VERSIONS, {}),
        sweep=_shown(spec).dump_yaml().rstrip(),
        longest=_LONGEST,
        opened=opened_text(test.get("n_opened", 0)),
        name_of=name_of,
        metric_name=metric_name,
        number=number,
    )


def _few_shot_label(test: Mapping[str, Any]) -> str:
    prompt = test.get("few_shot", {})
    return f"base with {prompt_text(prompt) if prompt.get('instruction') else 'examples'}"


def _groups(study: optuna.Study, place: Place, trial: FrozenTrial) -> list[GroupRow]:
    """Of the trial that they are known of."""
    best = winner(study)
    test = (read_test(study) or {}).get("trial_number")
    judged = test if test is not None else best and best.number
    return groups(study, place) if judged == trial.number else []


def _fingerprints(study: optuna.Study, spec: SweepSpec) -> dict[str, Any]:
    prints = study.user_attrs[SPEC].get("fingerprints", {})
    found = {name: prints[name] for name in ("train", "valid", "test") if name in prints}
    own = prints.get(f"model {spec.model}", prints.get("model"))
    return found if own is None else {**found, "base model": own}


def _settings(spec: SweepSpec, trial: FrozenTrial) -> dict[str, Any]:
    fixed = spec.train.model_dump(mode="json", exclude_defaults=True)
    settings = {**dict(_dotted(fixed)), **trial.params}
    settings.pop(MODEL, None)  # named above; it may be a folder of this machine
    return settings


def _dotted(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def system_message(spec: SweepSpec) -> str | None:
    """The system message of all training records; None if there is none, or it is not known."""
    try:
        return common_system(load_data(spec.data).train)
    except DataError:  # the data was moved
        return None


@dataclass(frozen=True)
class Asking:
    """How mlx-lm has to ask, so that a model answers as the study did.

    Attributes:
        system: The system message of all training data, or None.
        max_tokens: Of an answer.
        switches: Options that the base's chat template needs; see ``ChatTemplate.switches``.
    """

    system: str | None
    max_tokens: int
    switches: Mapping[str, bool] = field(default_factory=dict)

    def command(self, model: str, adapter: str | None, prompt: str = "...") -> str:
        """The command of mlx-lm."""
        words = ["mlx_lm.generate", "--model", model]
        words += ["--adapter-path", adapter] if adapter else []
        words += ["--system-prompt", self.system] if self.system else []
        if self.switches:
            words += ["--chat-template-config", json.dumps(dict(self.switches))]
        words += ["--prompt", prompt, "--max-tokens", str(self.max_tokens), "--temp", "0"]
        return shlex.join(words)


def _commands(study: optuna.Study, spec: SweepSpec, released: Released) -> list[str]:
    try:
        system = system_message(spec)
    except HawsweepError:
        system = None
    asking = Asking(system, spec.scoring.max_tokens, released.switches)
    repo, fused = released.repo, released.fused
    commands = []
    if fused is not None:
        commands.append(asking.command(repo or fused.path, None))
    else:
        if repo:
            commands.append(shlex.join(["hf", "download", repo, "--local-dir", "adapters"]))
        base, _ = split_revision(name_of(spec.model))  # mlx-lm takes no revision
        commands.append(asking.command(base, "adapters"))
    if released.has_modelfile:
        name = (repo or study.study_name).split("/")[-1].lower()
        commands.append(f"ollama create {shlex.quote(name)} -f Modelfile")
    return commands


def _in_peft(spec: SweepSpec, repo: str | None) -> str:
    place = '"peft"' if repo is None else f'{json.dumps(repo)}, subfolder="peft"'
    base = transformers_base(spec.model) or "the base that is not quantized"
    return (
        "from peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM\n\n"
        f"base = AutoModelForCausalLM.from_pretrained({base!r})\n"
        f"model = PeftModel.from_pretrained(base, {place})"
    )


def _shown(spec: SweepSpec) -> SweepSpec:
    """The sweep with names in place of this machine's folders."""
    embedder = reference_name(spec.scoring.embedder)
    data = (each.model_copy(update={"path": reference_name(each.path)}) for each in spec.data)
    kept = spec.retention
    if kept is not None:
        kept = kept.model_copy(update={"data": reference_name(kept.data)})
    return spec.model_copy(
        update={
            "retention": kept,
            "model": reference_name(spec.model),
            "data": tuple(data),
            "scoring": spec.scoring.model_copy(update={"embedder": embedder}),
        }
    )
