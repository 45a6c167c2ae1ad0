"""What of a running sweep is news to who does not look at it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from hawsweep.errors import HawsweepError
from hawsweep.notify import Message, Notifier, Target
from hawsweep.results import StudyResults
from hawsweep.spec import SweepSpec
from hawsweep.supervisor import Ended, Event, Listener

_LONGEST = 500


class News:
    """Passes a sweep's events on, and tells of those that are news.

    Args:
        name: The study's.
        listen: Gets the events, and one of kind ``not_told`` where somebody could not be told.
    """

    def __init__(
        self, name: str, spec: SweepSpec, targets: Sequence[Target], listen: Listener
    ) -> None:
        self._name, self._spec, self._listen = name, spec, listen
        self._notifier, self._has_targets = Notifier(targets), bool(targets)
        self._finished = 0
        self._trial: int | None = None
        self._score: float | None = None

    def __call__(self, event: Event) -> None:
        """Pass an event on."""
        self._listen(event)
        if event.kind == "study":
            self._finished = event.values["finished"]
            self._trial, self._score = map(event.values.get, ("best_trial", "best_score"))
            begins = "starts" if event.values["is_new"] else f"goes on after {self._count()}"
            of = f": {self._spec.trials} trials" if event.values["is_new"] else ""
            self._tell("start", f"{begins}{of}")
        elif event.kind == "trial_end":
            self._on_trial_end(event)
        self._pass_faults()

    def tell_end(self, ended: Ended, results: StudyResults) -> None:
        """Tell that it ended, and what the scores allow to say."""
        if not self._is_wanted("end"):
            return
        best, said = results.best_trial, ""
        if best is not None:
            self._trial, self._score = best.number, best.value
        with suppress(HawsweepError):  # of a damaged file the start itself will tell
            verdict = results.verdict()
            said = " ".join(verdict.sentences) if verdict is not None else ""
        how = {
            "finished": f"finished, {self._count()}",
            "timeout": f"out of time after {self._count()}",
            "interrupted": f"stopped after {self._count()}; hawsweep start goes on with it",
        }[ended]
        self._tell("end", f"{how}. {said}")

    def tell_failure(self, fault: Exception) -> None:
        """Tell that an error ended it."""
        # What is no error of ours may hold anything, such as a password.
        said = str(fault) if isinstance(fault, HawsweepError) else type(fault).__name__
        self._tell("failure", f"ended by an error after {self._count()}: {said}")

    def close(self) -> None:
        """Wait a moment for those who are just being told."""
        self._notifier.close()
        self._pass_faults()

    def _on_trial_end(self, event: Event) -> None:
        score, before = event.values.get("score"), self._score
        self._finished += event.values["state"] in ("complete", "pruned")
        if event.values["state"] != "complete" or score is None:
            return
        if before is not None and score <= before:
            return
        self._trial, self._score = event.values["number"], score
        was = "" if before is None else f", before {before:.4f}"
        text = f"trial {self._trial} is the best so far, score {score:.4f}{was}; {self._count()}"
        self._tell("best", text)

    def _count(self) -> str:
        return f"{self._finished} of {self._spec.trials} trials"

    def _tell(self, event: str, text: str) -> None:
        if not self._is_wanted(event):
            return
        line = " ".join(f"{self._name}: {text}".split())
        line = "".join(each for each in line if each.isprintable())
        line = line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."
        self._notifier.post(Message(self._name, event, line, self._trial, self._score))

    def _is_wanted(self, event: str) -> bool:
        return self._has_targets and event in self._spec.notify

    def _pass_faults(self) -> None:
        for text in self._notifier.faults():
            self._listen(Event("not_told", values={"text": text}))


@contextmanager
def telling(
    name: str, spec: SweepSpec, targets: Sequence[Target], listen: Listener
) -> Iterator[News]:
    """Give a listener that tells ``targets`` what ``spec.notify`` names, also of an error that
    comes out of the block.
    """
    news = News(name, spec, targets, listen)
    try:
        yield news
    except Exception as fault:
        news.tell_failure(fault)
        raise
    finally:
        news.close()
