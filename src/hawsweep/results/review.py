"""A person's blind judgment of translations, and how far the metric agrees with it.

A person sees a sentence with the answers of the untuned model and of the winner, in an order that
does not tell which is which, and says which is better. Judgments are kept in the study's folder.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from pydantic import TypeAdapter, ValidationError

from hawsweep.errors import ScoringError, StudyError
from hawsweep.files import read_json_lines, replace_text
from hawsweep.layout import REVIEW_FILE
from hawsweep.results.translations import Translation, Translations, translations
from hawsweep.scoring.intervals import Interval, share_interval
from hawsweep.study.confirm import chosen_trial
from hawsweep.study.place import Place
from hawsweep.text import counted

System = Literal["base", "trial"]
# Which answer is better; ``same``: the answers are identical, and were not shown.
Said = Literal["base", "trial", "equal", "neither", "same"]


@dataclass(frozen=True)
class Question:
    """A sentence to judge.

    Attributes:
        key: A hash of the sentence and of both answers.
        systems: Whose answers are shown as A and as B.
        answers: A and B.
        scored: The answer that the metric prefers.
    """

    key: str
    source: str
    reference: str
    systems: tuple[System, System]
    answers: tuple[str, str]
    scored: Literal["base", "trial", "equal"]

    @property
    def is_same(self) -> bool:
        """Whether the answers are identical."""
        return self.answers[0] == self.answers[1]


@dataclass(frozen=True)
class Judgment:
    """What a person said of a sentence: a line of the file."""

    trial: int
    split: Literal["test", "validation"]
    sentence: str
    said: Said
    scored: Literal["base", "trial", "equal"]


_JUDGMENTS = TypeAdapter(list[Judgment])


@dataclass(frozen=True)
class Review:
    """The result of a review so far.

    Attributes:
        n_trial: Sentences whose better answer is the trial's; ``n_base``: the untuned model's.
        n_same: Sentences with identical answers, which were not shown.
        preference: The share of the trial among the sentences with a better answer; None without
            one.
        n_agreed: Sentences with a better answer whose answer the metric prefers too.
        agreement: Their share; None without such sentences.
        is_current: Whether the study's winner still has these answers.
    """

    trial: int
    split: str
    n_trial: int
    n_base: int
    n_equal: int
    n_neither: int
    n_same: int
    preference: Interval | None
    n_agreed: int
    agreement: Interval | None
    is_current: bool

    def sentences(self) -> list[str]:
        """The result in words."""
        n_told = self.n_trial + self.n_base
        n_shown = n_told + self.n_equal + self.n_neither
        said = [_preference(self, n_told, n_shown)]
        rest = [
            f"on {count} {what}"
            for count, what in (
                (n_told - self.n_trial, "the untuned model was preferred"),
                (self.n_equal, "both were equally good"),
                (self.n_neither, "neither was right"),
            )
            if count
        ]
        if rest:
            said.append(f"{_listed(rest).capitalize()}.")
        if self.n_same:
            said.append(f"{self.n_same} more with the same answer twice were not shown.")
        if self.agreement is not None:
            said.append(
                f"The score prefers the same answer as the person on {self.n_agreed} of {n_told}: "
                f"{_share_text(self.agreement)}."
            )
        if not self.is_current:
            said.append("The study now has another best trial or other answers than these.")
        return said

    def to_plain(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "sentences": self.sentences()}


def _preference(review: Review, n_told: int, n_shown: int) -> str:
    sentences = counted(n_shown, f"{review.split} sentence")
    if review.preference is None:
        return f"In a blind review of {sentences} no answer was preferred."
    return (
        f"In a blind review of {sentences} trial {review.trial} was preferred on {review.n_trial} "
        f"of the {n_told} where one was better: {_share_text(review.preference)}."
    )


def _share_text(share: Interval) -> str:
    chance = ", which may be chance" if share.low <= 0.5 <= share.high else ""
    return (
        f"{100 * share.mean:.0f} % (95 % {100 * share.low:.0f} to {100 * share.high:.0f} %){chance}"
    )


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def review_of(study: optuna.Study, place: Place) -> Review | None:
    """The review of a study's translations so far; None without one.

    Raises:
        StudyError: Its file is damaged.
    """
    said = read_judgments(review_path(study, place))
    if not said:
        return None
    found = translations(study, place)
    return _summary(said, is_current=found is not None and _is_of(said, found))


def review_path(study: optuna.Study, place: Place) -> Path:
    """The file of the judgments."""
    return place.study_dir(study.study_name) / REVIEW_FILE


def read_judgments(path: Path) -> list[Judgment]:
    """The judgments of a file, in their order; none if it is missing.

    Raises:
        StudyError: It is damaged.
    """
    try:
        return _JUDGMENTS.validate_python(read_json_lines(path))
    except ValidationError as fault:
        line, *key = fault.errors()[0]["loc"]
        raise StudyError(
            f"{path} is damaged: line {int(line) + 1}: {'.'.join(map(str, key)) or 'it'} is not "
            "what a review writes. Begin anew with `hawsweep review NAME --again`."
        ) from fault


def _summary(said: Sequence[Judgment], *, is_current: bool) -> Review:
    counts = Counter(each.said for each in said)
    told = [each for each in said if each.said in ("base", "trial")]
    n_agreed = sum(each.said == each.scored for each in told)
    return Review(
        trial=said[0].trial,
        split=said[0].split,
        n_trial=counts["trial"],
        n_base=counts["base"],
        n_equal=counts["equal"],
        n_neither=counts["neither"],
        n_same=counts["same"],
        preference=share_interval(counts["trial"], len(told)) if told else None,
        n_agreed=n_agreed,
        agreement=share_interval(n_agreed, len(told)) if told else None,
        is_current=is_current,
    )


def _is_of(said: Sequence[Judgment], found: Translations) -> bool:
    known = {_key(row) for row in found.rows}
    return all(
        (each.trial, each.split) == (found.trial, found.split) and each.sentence in known
        for each in said
    )


class ReviewSession:
    """A review that goes on from what its file has. Each change is written at once.

    Attributes:
        trial, split: The judged trial, and the split of the sentences.
        n_sentences: The sentences to judge: fewer than asked for if there are no more.
    """

    def __init__(
        self, study: optuna.Study, place: Place, n_sentences: int, *, again: bool = False
    ) -> None:
        """Open the review of a study's best trial.

        Args:
            again: Begin anew; the earlier file is kept under another name.

        Raises:
            ScoringError: There are no two answers to compare.
            StudyError: The review in the folder is of another trial or of other answers.
        """
        found = _translations(study, place)
        self.trial, self.split = found.trial, found.split
        self._path = review_path(study, place)
        begins = again and self._path.exists()
        n_earlier = len(list(self._path.parent.glob(f"{self._path.stem}-*{self._path.suffix}")))
        self._questions = list(_questions(found, f"{study.study_name} {n_earlier + begins}"))
        n_different = sum(not each.is_same for each in self._questions)
        if not n_different:
            raise ScoringError(
                f"Trial {found.trial} and the untuned model answer all {len(found.rows)} "
                f"{found.split} prompts alike: there is nothing to judge."
            )
        self.n_sentences = min(n_sentences, n_different)
        if begins:
            self._path.rename(_free_name(self._path))
        self._said = read_judgments(self._path)
        if not _is_of(self._said, found):
            raise StudyError(
                f"The review in {self._path} is of other answers than those of the best trial now, "
                f"trial {found.trial}, to the {found.split} prompts. Begin anew, and the earlier "
                f"one is kept: {place.command('review', study.study_name, '--again')}"
            )

    @property
    def n_judged(self) -> int:
        """The sentences that were shown and judged."""
        return sum(each.said != "same" for each in self._said)

    def question(self) -> Question | None:
        """The next sentence to judge; None at the end."""
        known = {each.sentence for each in self._said}
        for each in self._questions:
            if each.key not in known:
                if not each.is_same:
                    return each if self.n_judged < self.n_sentences else None
                self._said.append(self._judgment(each, "same"))
        return None

    def say(self, question: Question, said: Said) -> None:
        """Keep a judgment."""
        self._said.append(self._judgment(question, said))
        self.question()  # adds identical answers that follow
        self._write()

    def undo(self) -> bool:
        """Take the last judgment back; False if there is none."""
        shown = [at for at, each in enumerate(self._said) if each.said != "same"]
        if not shown:
            return False
        del self._said[shown[-1] :]
        self._write()
        return True

    def result(self) -> Review:
        """The result of what was said."""
        return _summary(self._said, is_current=True)

    def _judgment(self, question: Question, said: Said) -> Judgment:
        return Judgment(self.trial, self.split, question.key, said, question.scored)

    def _write(self) -> None:
        replace_text(self._path, "".join(f"{json.dumps(asdict(each))}\n" for each in self._said))


def _translations(study: optuna.Study, place: Place) -> Translations:
    best = chosen_trial(study)
    found = translations(study, place)
    if found is None:
        raise ScoringError(
            f"Trial {best.number} of study {study.study_name!r} and its untuned model have no "
            "answers to the same prompts: there is nothing to review."
        )
    return found


def _free_name(path: Path) -> Path:
    """A name for an earlier review: ``review-1.jsonl``."""
    number = 1
    while (free := path.with_stem(f"{path.stem}-{number}")).exists():
        number += 1
    return free


def _questions(found: Translations, seed: str) -> Iterator[Question]:
    """The sentences in an order that depends on the seed alone, each once."""
    rows = {_key(row): row for row in found.rows}
    order = {key: hashlib.sha256(f"{seed} {key}".encode()).digest() for key in rows}
    for key in sorted(rows, key=lambda each: order[each]):
        row = rows[key]
        systems: tuple[System, System] = ("base", "trial")
        if order[key][-1] % 2:
            systems = ("trial", "base")
        first, second = (row.answers[each].output for each in systems)
        scored: Any = "equal" if row.gain == 0 else "trial" if row.gain > 0 else "base"
        yield Question(key, row.source, row.reference, systems, (first, second), scored)


def _key(row: Translation) -> str:
    texts = [row.source, row.reference, *(row.answers[each].output for each in ("base", "trial"))]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]
