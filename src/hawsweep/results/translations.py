"""The judged trial's answers beside the untuned model's: what is right, and what only looks so."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Literal

import optuna

from hawsweep.files import read_json_lines
from hawsweep.layout import SAMPLE_FILES
from hawsweep.scoring.metrics import CUT, exact_match, normalized
from hawsweep.study.baselines import base_dir_of, baselines, model_of, score_of
from hawsweep.study.confirm import winner
from hawsweep.study.place import Place
from hawsweep.study.trials import trial_of, was_tested
from hawsweep.text import counted

Kind = Literal["exact", "close", "other"]
# The least similarity of an answer that is close to its reference; of one that may be taken for it.
CLOSE, SIMILAR = 0.85, 0.7
# The most words that differ in a near miss that is told by its words.
_MOST_CHANGED = 2
# Below this chrF an answer has other words than its reference.
_OTHER_WORDS = 40.0
_NUMBER = re.compile(r"\d+")
# English only: other languages' negations are not known here.
_NEGATION = re.compile(r"\b(?:not|no|never|nothing|nobody|none|without|cannot)\b|n['’ʼ]t\b", re.I)


@dataclass(frozen=True)
class Answer:
    """One system's answer to a prompt.

    Attributes:
        score: By the study's metric.
        kind: ``exact``: the reference but for case and spaces; ``close``: similar to it, which does
            not mean right; ``other``: neither.
        near_miss: What differs in a similar answer, in words; empty where nothing tells.
    """

    output: str
    score: float
    kind: Kind
    near_miss: str
    fault: str | None


@dataclass(frozen=True)
class Translation:
    """A prompt with its answers, by system: ``base``, ``few_shot`` where it is known, ``trial``.

    Attributes:
        gain: The trial's score minus the base's.
    """

    source: str
    reference: str
    group: str | None
    answers: Mapping[str, Answer]
    gain: float


@dataclass(frozen=True)
class Translations:
    """The answers of the judged trial and of its untuned model to the same prompts.

    Attributes:
        split: ``test`` if the trial was tested, else ``validation``.
        labels: The systems' names, such as ``4-shot base``, by system.
        rows: The largest gain first.
    """

    trial: int
    split: Literal["test", "validation"]
    labels: Mapping[str, str]
    rows: tuple[Translation, ...]

    def counts(self, system: str) -> Counter[str]:
        """How many of a system's answers are ``exact``, ``close`` and ``other``."""
        return Counter(row.answers[system].kind for row in self.rows)

    def sentences(self) -> list[str]:
        """How many answers are right, and how many of the untuned model's were cut."""
        tuned, base = self.counts("trial"), self.counts("base")
        n = len(self.rows)
        said = [
            f"Of {counted(n, f'{self.split} prompt')}, {_are(tuned['exact'])} answered word for "
            f"word, {_are(tuned['close'])} close (similarity {CLOSE} or more), "
            f"{_are(tuned['other'])} not; "
            f"untuned: {base['exact']}, {base['close']} and {base['other']}."
        ]
        cut = {each: self._n_cut(each) for each in ("base", "few_shot") if each in self.labels}
        if any(cut.values()):
            shown = ""
            if "few_shot" in cut:
                kind = "examples" if "-shot" in self.labels["few_shot"] else "the instruction"
                shown = f", {cut['few_shot']} of those with {kind}"
            said.append(
                f"{cut['base']} of {counted(n, 'answer')} of the untuned model{shown} were cut at "
                "scoring.max_tokens, which may lower its score."
            )
        return said

    def _n_cut(self, system: str) -> int:
        return sum(row.answers[system].fault == CUT for row in self.rows)


def translations(study: optuna.Study, place: Place) -> Translations | None:
    """The winner's answers beside its untuned model's; None before there are both."""
    best = winner(study)
    if best is None:
        return None
    number = best.number
    base = base_dir_of(study, place, number)
    folders = {"base": base, "few_shot": base, "trial": place.trial_dir(study.study_name, number)}
    for split in ("test", "validation") if was_tested(study, number) else ("validation",):
        found = dict(_read(folders, "test_" if split == "test" else ""))
        if found.keys() >= {"base", "trial"}:
            rows = _rows(found)
            labels = _labels(study, number)
            named = {system: labels[system] for system in found}
            return Translations(number, "test" if split == "test" else "validation", named, rows)
    return None


def spread(rows: Sequence[Translation], most: int) -> tuple[Translation, ...]:
    """At most so many rows in their order, evenly from the first to the last."""
    if len(rows) <= most:
        return tuple(rows)
    return tuple(rows[round(n * (len(rows) - 1) / (most - 1))] for n in range(most))


def _are(n: int) -> str:
    return f"{n} is" if n == 1 else f"{n} are"


def _read(folders: Mapping[str, Path], prefix: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The answers of each system that answered the same prompts as the trial."""
    asked = None
    for system in ("trial", "base", "few_shot"):
        answers = read_json_lines(folders[system] / f"{prefix}{SAMPLE_FILES[system]}")
        prompts = [each.get("reference") for each in answers]
        asked = prompts if asked is None else asked
        if answers and prompts == asked:
            yield system, answers


def _labels(study: optuna.Study, number: int) -> dict[str, str]:
    model = model_of(study, trial_of(study, number))
    untuned = {each.kind: each.label for each in baselines(study) if each.model == model}
    return {"base": "base", "few_shot": "few-shot base", **untuned, "trial": f"trial {number}"}


def _rows(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> tuple[Translation, ...]:
    rows = []
    for at, tuned in enumerate(found["trial"]):
        answers = {system: _answer(found[system][at]) for system in found}
        rows.append(
            Translation(
                source=str(tuned.get("source", "")),
                reference=str(tuned.get("reference", "")),
                group=tuned.get("group"),
                answers=answers,
                gain=answers["trial"].score - answers["base"].score,
            )
        )
    return tuple(sorted(rows, key=lambda row: -row.gain))


def _answer(sample: Mapping[str, Any]) -> Answer:
    reference, output = str(sample.get("reference", "")), str(sample.get("output", ""))
    near_miss = _near_miss(sample, reference, output)
    kind: Kind = "other"
    if exact_match("", reference, output):
        kind, near_miss = "exact", ""
    elif sample.get("similarity", 0.0) >= CLOSE:
        kind = "close"
    return Answer(output, score_of(sample), kind, near_miss, sample.get("fault"))


def _near_miss(sample: Mapping[str, Any], reference: str, output: str) -> str:
    """What differs in an answer that is similar to its reference; empty where nothing tells."""
    if sample.get("similarity", 0.0) < SIMILAR:
        return ""
    if sorted(_NUMBER.findall(reference)) != sorted(_NUMBER.findall(output)):
        return "another number"
    if bool(_NEGATION.search(reference)) != bool(_NEGATION.search(output)):
        return "perhaps the opposite"
    if words := _changed_words(normalized(reference).split(), normalized(output).split()):
        return words
    return "other words" if sample.get("chrf", 100.0) < _OTHER_WORDS else ""


def _changed_words(reference: Sequence[str], output: Sequence[str]) -> str:
    """``"my" for "your"`` where one short part differs; else empty."""
    parts = SequenceMatcher(None, reference, output, autojunk=False).get_opcodes()
    changed = [each for each in parts if each[0] != "equal"]
    if len(parts) == 1 or len(changed) != 1:
        return ""
    _, start, end, out_start, out_end = changed[0]
    if max(end - start, out_end - out_start) > _MOST_CHANGED:
        return ""
    right, found = " ".join(reference[start:end]), " ".join(output[out_start:out_end])
    if not right or not found:
        return f'"{found}" is added' if found else f'"{right}" is missing'
    return f'"{found}" for "{right}"'
