"""Checks of the keys that say how a sweep runs; each raises a ValueError, or gives the value."""

import re

# Events that notifications may be sent of.
NEWS = ("start", "best", "end", "failure")
TRACKERS = ("trackio", "wandb", "mlflow")
# A bucket of S3 and a prefix. There is no room for a key in it.
BUCKET = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[A-Za-z0-9._-]+)*)/?")


def check_keep(value: object) -> str:
    """``keep``, with single spaces."""
    text = " ".join(str(value).split())
    if text != "all" and not re.fullmatch(r"best [1-9]\d{0,5}", text):
        raise ValueError("must be all, or best and a number such as best 3")
    return text


def check_news(value: object) -> tuple[str, ...]:
    """``notify``, as several."""
    listed = value if isinstance(value, list | tuple) else [value]
    if all(each in NEWS for each in listed) and len(set(listed)) == len(listed):
        return tuple(listed)
    raise ValueError(
        f"must be a list of {', '.join(NEWS)}. A sweep does not say where they are sent, as "
        "others may have written it: use --notify or HAWSWEEP_NOTIFY"
    )


def check_trackers(value: object) -> tuple[str, ...]:
    """``report_to``, as several."""
    listed = value if isinstance(value, list | tuple) else [value]
    if all(each in TRACKERS for each in listed) and len(set(listed)) == len(listed):
        return tuple(listed)
    raise ValueError(f"must be one of {', '.join(TRACKERS)}, or a list of them")


def check_artifacts(value: object) -> object:
    """``artifacts``, where it is a text: a bucket or an absolute path."""
    if isinstance(value, str) and not (value.startswith("/") or BUCKET.fullmatch(value)):
        raise ValueError("must be s3://bucket/prefix or the absolute path of a shared folder")
    return value
