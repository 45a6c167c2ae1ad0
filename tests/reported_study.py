"""A made-up study on disk with all a report tells of, some of it by those who wish it ill."""

import json
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

from optuna.trial import TrialState, create_trial
from pictured_study import BASE, SPACE, make_trial

from hawsweep.spec.read import check_sweep
from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage
from hawsweep.study.study import create_study

NASTY = (
    "</script><script>document.title='stolen'</script><img src=x onerror=\"document.title='x'\">"
)
ODD = "\u202eʻŌlelo | *pipe* `tick`"
N_PROMPTS = 16
HOST = "anns-own-machine"
NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
SPEC = check_sweep(
    {
        "description": "Rates & <ranks>.",
        "model": "/home/somebody/models/tiny",
        "data": "phrasebook",
        "search": {
            "learning_rate": {"low": 1e-5, "high": 2e-3, "log": True},
            "lora_parameters.rank": {"choices": [4, 8, 16, 32]},
            "optimizer": {"choices": ["adam", "muon"]},
            "iters": {"low": 60, "high": 140, "step": 40},
        },
        "trials": 12,
    },
    "a sweep",
)


def answers(level):
    """Samples of ``N_PROMPTS`` prompts that score about ``level``."""
    return [
        {
            "source": f"Ua heluhelu ke aliʻi i ka puke {number}." if number != 3 else ODD,
            "reference": f"The king read book {number}.",
            "output": f"the king reads the book {number}",
            "score": level + 0.01 * (number % 3),
            "similarity": level,
            "chrf": 50.0,
            "group": "verbs" if number % 2 else "possession",
        }
        for number in range(N_PROMPTS)
    ]


def write_samples(path: Path, samples):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(each)}\n" for each in samples), encoding="utf-8")


def make_reported_study(folder: Path, *, n_complete=9, is_tested=True):
    """The study ``rates``, and the place it is kept at."""
    place = Place(folder / "studies")
    storage = open_storage(place, create=True)
    study, _ = create_study(storage, place, "rates", SPEC, {"model": "ab12"})
    (start,) = study.user_attrs["starts"]
    study.set_user_attr("starts", [{**start, "host": HOST}])
    signatures = {"chrf": "nrefs:1|case:mixed"}
    study.set_user_attr("base", {**BASE, "chrf": 12.1, "signatures": signatures})
    study.set_user_attr("few_shot", {"n_examples": 4, "score": 0.14, "similarity": 0.14})
    study.set_user_attr("self_check", SELF_CHECK)
    for number in range(n_complete):
        study.add_trial(make_trial(number, True, chrf=40.0, train_time_s=100.0 + number))
    study.add_trial(make_trial(n_complete, False, reason="behind the median at iteration 40"))
    study.add_trial(
        create_trial(
            state=TrialState.PRUNED,
            params={"learning_rate": 1e-3, "lora_parameters.rank": 32},
            distributions={key: SPACE[key] for key in ("learning_rate", "lora_parameters.rank")},
            user_attrs={"infeasible": True, "reason": "needs 40.00 GB, the budget is 30.00 GB"},
        )
    )
    reason = f"OSError: /home/somebody/secret/models/tiny is gone {NASTY}"
    study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={"reason": reason}))
    base = place.study_dir("rates") / "base"
    write_samples(base / "samples.jsonl", answers(0.11))
    write_samples(base / "few_shot_samples.jsonl", answers(0.14))
    for trial in study.trials[:n_complete]:
        samples = answers(trial.value)
        samples[3] |= {"score": 0.01, "output": NASTY}
        samples[4] |= {"output": ""}
        write_samples(place.trial_dir("rates", trial.number) / "samples.jsonl", samples)
    if is_tested and n_complete:
        _test(study, place, base)
    return study, place


def _test(study, place, base):
    best, other, *_ = sorted(study.trials, key=lambda trial: -(trial.value or 0))
    study.set_user_attr(
        "confirm",
        [
            {"trial_number": best.number, "selected": best.value, "scores": [0.6, 0.62]},
            {"trial_number": other.number, "selected": other.value, "scores": [0.5]},
        ],
    )
    write_samples(base / "test_samples.jsonl", answers(0.12))
    write_samples(base / "test_few_shot_samples.jsonl", answers(0.15))
    tested = answers(0.6)
    for number in range(1, N_PROMPTS, 2):  # all verbs
        tested[number]["score"] = 0.09 + 0.001 * number
    tested[0] |= {"output": "The king read book 0.", "score": 1.0, "similarity": 1.0}
    tested[2] |= {"output": "The king read book 7.", "score": 0.9, "similarity": 0.9}
    tested[3] |= {"output": NASTY, "score": 0.01}
    tested[4] |= {"output": ""}
    write_samples(place.trial_dir("rates", best.number) / "test_samples.jsonl", tested)
    known = {"chrf": 44.0, "bleu": 20.0, "exact_match": 0.25}
    winner = {"score": 0.61, "similarity": 0.61, "low": 0.5, "high": 0.7}
    study.set_user_attr(
        "test",
        {
            "trial_number": best.number,
            "n_prompts": N_PROMPTS,
            "n_opened": 1,
            "base": {**known, "score": 0.12, "similarity": 0.12, "low": 0.08, "high": 0.16},
            "few_shot": {**known, "score": 0.15, "similarity": 0.15},
            "trial": {**known, **winner, "faults": {"empty": 1}},
        },
    )


SELF_CHECK = {
    "floor": 0.14,
    "ceiling": 1.0,
    "base": 0.11,
    "n_prompts": N_PROMPTS,
    "detectable": 0.2,
    "wanted": 0.017,
    "n_needed": 900,
    "warnings": ["2 of 12 sources of valid are in train too, such as <i>'Aloha'</i>"],
}


class Page(HTMLParser):
    """What a browser would make of a page, roughly: its texts, its scripts, its addresses."""

    def __init__(self, text):
        super().__init__()
        self.texts, self.scripts, self.addresses, self.tags = [], [], [], []
        self._inside = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._inside = tag
        if tag == "script":
            self.scripts.append([dict(attrs), ""])
        self.addresses += [v for k, v in attrs if k in ("src", "href", "action", "srcset", "data")]

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1][1] += data
        elif self._inside != "style":
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())
