"""A recorded study whose best trial and base answer the test prompts differently."""

from judged_study import record
from reported_study import write_samples

from hawsweep.study.baselines import base_dir

N_SENTENCES = 30
# Prompts that both answer alike.
N_SAME = 3


def answered(name, number, score):
    """An answer to a prompt, whose first words tell whose it is."""
    text = "the same answer" if number < N_SAME else f"{name} says {number}"
    return {
        "source": f"Ua heluhelu ke aliʻi i ka puke {number}.",
        "reference": f"The king read book {number}.",
        "output": text,
        "score": 0.5 if number < N_SAME else score,
        "similarity": score,
        "chrf": 50.0,
    }


def make_reviewed_study(place, *, n_sentences=N_SENTENCES, is_tested=True):
    """The study ``rates`` with trial 1 as its winner, which scores lower on every fifth prompt."""
    study = record("clear", place)
    prefix = "test_" if is_tested else ""
    write_answers(place, prefix, n_sentences)
    if not is_tested:
        study.set_user_attr("test", None)
    return study


def write_answers(place, prefix="test_", n_sentences=N_SENTENCES, name="trial", trial=1):
    base = [answered("base", number, 0.3) for number in range(n_sentences)]
    tuned = [answered(name, n, 0.2 if n % 5 == 4 else 0.6) for n in range(n_sentences)]
    write_samples(base_dir(place, "rates") / f"{prefix}samples.jsonl", base)
    write_samples(place.trial_dir("rates", trial) / f"{prefix}samples.jsonl", tuned)
