"""The values of studies and trials, as the dashboard's pages name them.

The database keeps what programs read: ``peak_memory_bytes``, a plan of five fields, minus the
validation loss at each step. The pages get the same in words, and the loss as it is known.
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from optuna.storages import BaseStorage

from hawsweep.baselines import score_of
from hawsweep.display.text import faults_text, number, setting
from hawsweep.study import CONFIRM_SUFFIX

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_STUDIES = re.compile(r"/api/studies(?:/(\d+))?/?")
# What a value that is not as it should be may raise; it is then shown as it is stored.
_ODD = (ValueError, LookupError, TypeError, AttributeError)
_DIGITS = 4  # of scores and losses; more are noise
Word = Callable[[Any], str]
Attribute = dict[str, str]


def _as(form: str, factor: float = 1) -> Word:
    return lambda value: number(float(value), form, factor)


def _of_plan(plan: Mapping[str, Any]) -> str:
    at_once = plan.get("tokens_at_once")
    return f"{plan['text']}" + (f", loss of {at_once} tokens at a time" if at_once else "")


def _of_worker(worker: Mapping[str, Any]) -> str:
    return f"process {worker['pid']} on {worker['host']}"


def _spaced(value: str) -> str:
    return value.replace("_", " ")


_TEXTS = (str, _spaced)  # what words a text; all else comes as JSON
# By the key that is stored: the title, and how its value is said. In this order.
_OF_TRIALS: Mapping[str, tuple[str, Word]] = {
    "reason": ("why it ended", str),
    "score": ("score", _as("{:.4f}")),
    "low": ("score, 95 % from", _as("{:.4f}")),
    "high": ("score, 95 % to", _as("{:.4f}")),
    "similarity": ("semantic similarity", _as("{:.4f}")),
    "chrf": ("chrF", _as("{:.2f}")),
    "bleu": ("BLEU", _as("{:.2f}")),
    "exact_match": ("exact matches, %", _as("{:.1f}", 100)),
    "length_ratio": ("length over the reference's", _as("{:.2f}")),
    "faults": ("faulty answers", faults_text),
    "val_loss": ("val loss", _as("{:.4f}")),
    "best_iteration": ("best iteration", _as("{:.0f}")),
    "perplexity": ("perplexity", _as("{:.3f}")),
    "reference_perplexity": ("perplexity of the references", _as("{:.3f}")),
    "plan": ("plan", _of_plan),
    "peak_memory_bytes": ("peak memory, GB", _as("{:.3f}", 1e-9)),
    "tokens_per_s": ("tokens per second", _as("{:.0f}")),
    "train_time_s": ("training, seconds", _as("{:.1f}")),
    "eval_time_s": ("validation, seconds", _as("{:.1f}")),
    "score_time_s": ("scoring, seconds", _as("{:.1f}")),
    "time_s": ("in all, seconds", _as("{:.1f}")),
    "suggested_by": ("suggested by", str),
    "confirms": ("settings of trial", _as("{:.0f}")),
    "seed": ("seed", _as("{:.0f}")),
    "repeats": ("repeats trial", _as("{:.0f}")),
    "continues": ("went on from", lambda v: f"iteration {v['iteration']} of trial {v['trial']}"),
    "retried_after": ("tried again after", str),
    "below_bytes": ("to take less than, GB", _as("{:.3f}", 1e-9)),
    "infeasible": ("fits into memory", lambda value: "no" if value else "yes"),
    "fault": ("kind of fault", _spaced),
    "worker": ("run by", _of_worker),
}
_TITLES = {key: title for key, (title, _) in _OF_TRIALS.items()}


class Worded:
    """A WSGI application before optuna-dashboard's, which words what that tells of a study."""

    def __init__(self, app: "WSGIApplication", storage: BaseStorage) -> None:
        self._app, self._storage = app, storage

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """Answer a request."""
        asked = _STUDIES.fullmatch(environ.get("PATH_INFO", ""))
        if asked is None or environ["REQUEST_METHOD"] != "GET":
            return self._app(environ, start_response)
        return self._worded(asked[1], environ, start_response)

    def _worded(
        self, study_id: str | None, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        begun: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], *fault: Any) -> Any:
            begun[:] = [status, headers, *fault]
            return begun.append  # nobody writes so

        answer = self._app(environ, start)
        try:
            body = b"".join(answer)
        finally:
            getattr(answer, "close", lambda: None)()
        status, headers, *fault = begun
        with suppress(*_ODD, KeyError):
            if status.startswith("200"):
                told = json.loads(body)
                if study_id is None:
                    word_list(told, self._storage)
                else:
                    word_study(told, self._storage.get_study_user_attrs(int(study_id)))
                body = json.dumps(told).encode()
                others = [(k, v) for k, v in headers if k.lower() != "content-length"]
                headers = [*others, ("Content-Length", str(len(body)))]
        start_response(status, headers, *fault)
        return [body]


def word_list(told: dict[str, Any], storage: BaseStorage) -> None:
    """Word what the dashboard's server tells its pages of all studies; a page that is opened from
    their list has a study's attributes from there.

    Args:
        told: Is changed.
    """
    attrs = {study._study_id: study.user_attrs for study in storage.get_all_studies()}
    for each in told["study_summaries"]:
        if "spec" in (known := attrs.get(each["study_id"], {})):
            each["user_attrs"] = _attributes(known)


def word_study(told: dict[str, Any], attrs: Mapping[str, Any]) -> None:
    """Word what the dashboard's server tells its pages of a study; not that of another program.

    Args:
        told: Is changed.
        attrs: The study's user attributes, as they are stored.
    """
    if "spec" not in attrs and not told["name"].endswith(CONFIRM_SUFFIX):
        return
    for trial in (*told["trials"], *told["best_trials"]):
        _word_trial(trial)
    shown = [
        {**each, "key": _TITLES.get(each["key"], each["key"])} for each in told["union_user_attrs"]
    ]
    told["union_user_attrs"] = sorted(shown, key=lambda each: _turn(each["key"]))
    if "spec" in attrs:
        told["user_attrs"] = _attributes(attrs)


def _word_trial(trial: dict[str, Any]) -> None:
    trial["user_attrs"] = word_trial(trial["user_attrs"])
    for each in trial["intermediate_values"]:  # minus the loss, as a study maximizes
        each["value"] = _negative(each["value"])
    if trial["state"] == "Pruned":
        # To Optuna the last intermediate value: minus a loss, which would squeeze the scores on
        # every axis. Its curve is among our learning curves, but not in the dashboard's own plot.
        trial.pop("values", None)
    if "values" in trial:
        trial["values"] = [_rounded(each) for each in trial["values"]]


def _attributes(attrs: Mapping[str, Any]) -> list[Attribute]:
    return [{"key": key, "value": value} for key, value in word_attributes(attrs).items()]


def word_trial(attributes: Iterable[Attribute]) -> list[Attribute]:
    """A trial's user attributes in words, in an order to read them in; without what is not known.

    Args:
        attributes: As the dashboard's server tells them: each value text, or JSON.
    """
    worded = [each for given in attributes if (each := _worded(given))["value"] != "null"]
    return sorted(worded, key=lambda each: _turn(each["key"]))


def _worded(given: Attribute) -> Attribute:
    if given["key"] not in _OF_TRIALS:
        return given
    title, word = _OF_TRIALS[given["key"]]
    if given["value"] == "null":
        return given
    try:
        value = given["value"]
        return {"key": title, "value": word(value if word in _TEXTS else json.loads(value))}
    except _ODD:
        return {**given, "key": title}


def _turn(title: str) -> int:
    titles = list(_TITLES.values())
    return titles.index(title) if title in titles else len(titles)


def _negative(value: float | str) -> float | str:
    if isinstance(value, str):  # JSON knows no infinity
        return {"inf": "-inf", "-inf": "inf"}.get(value, value)
    return _rounded(-value)


def _rounded(value: float | str) -> float | str:
    return value if isinstance(value, str) else round(value, _DIGITS)


def word_attributes(attrs: Mapping[str, Any]) -> dict[str, str]:
    """A study's user attributes in words: what is not worded here is left as JSON."""
    words: Mapping[str, tuple[str, Word]] = {
        "description": ("description", str),
        "base": ("base", _of_scores),
        "few_shot": ("base with examples in its prompt", _of_scores),
        "self_check": ("scale of the metric", _of_check),
        "test": ("test split", _of_test),
        "confirm": ("with new seeds", _of_confirm),
        "references": ("scores from elsewhere", _of_mapping),
        "memory_factor": ("memory expected, times", _as("{:.2f}")),
        "starts": ("last start", _of_starts),
        "versions": ("versions", _of_mapping),
        "how": ("how it runs", _of_settings),
    }
    known = _of_spec(attrs["spec"]) if isinstance(attrs.get("spec"), Mapping) else {}
    for key in (*words, *(key for key in attrs if key not in words)):
        if key == "spec" or attrs.get(key) in (None, {}, [], ""):
            continue
        title, word = words.get(key, (key, json.dumps))
        try:
            known[title] = word(attrs[key])
        except _ODD:
            known[title] = json.dumps(attrs[key])
    return known


def _of_mapping(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {setting(value)}" for key, value in values.items())


def _of_settings(values: Mapping[str, Any], prefix: str = "") -> str:
    return ", ".join(
        _of_settings(value, f"{prefix}{key}.")
        if isinstance(value, Mapping) and value
        else f"{prefix}{key} {value if isinstance(value, str) else json.dumps(value)}"
        for key, value in values.items()
    )


def _of_spec(spec: Mapping[str, Any]) -> dict[str, str]:
    """What a sweep is about; all of it is among the study's files."""
    data = spec.get("data")
    paths = [
        str(each.get("path", each)) if isinstance(each, Mapping) else str(each)
        for each in (data if isinstance(data, list) else [data])
    ]
    searched = spec.get("search")
    return {
        "model": str(spec.get("model")),
        "data": ", ".join(paths),
        "searched": "; ".join(f"{key} {_of_range(each)}" for key, each in searched.items())
        if isinstance(searched, Mapping)
        else str(searched),
    }


def _of_range(asked: Any) -> str:
    with suppress(*_ODD):
        if "choices" in asked:
            return ", ".join(setting(each) for each in asked["choices"])
        step = f" by {setting(asked['step'])}" if asked.get("step") else ""
        log = ", logarithmic" if asked.get("log") else ""
        return f"{setting(asked['low'])} to {setting(asked['high'])}{step}{log}"
    return json.dumps(asked)


def _of_scores(values: Mapping[str, Any]) -> str:
    loss = values.get("val_loss")
    return f"score {score_of(values):.4f}" + ("" if loss is None else f", val loss {loss:.3f}")


def _of_check(check: Mapping[str, Any]) -> str:
    told = f"from {check['floor']:.3f} (other prompts' references) to {check['ceiling']:.3f}"
    return "; ".join((told, *check["warnings"]))


def _of_test(test: Mapping[str, Any]) -> str:
    tuned, base = (score_of(test[key]) for key in ("trial", "base"))
    return f"trial {test['trial_number']} {tuned:.4f}, base {base:.4f}"


def _of_confirm(found: Iterable[Mapping[str, Any]]) -> str:
    return ", ".join(
        f"trial {each['trial_number']} {sum(each['scores']) / len(each['scores']):.4f}"
        for each in found
    )


def _of_starts(starts: list[Mapping[str, Any]]) -> str:
    last = starts[-1]
    at = time.strftime("%Y-%m-%d %H:%M", time.localtime(last["time"]))
    return f"{at} on {last['host']} ({last['platform']}), of {len(starts)}"
