"""Records for ``--csv``: flat, with all columns."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hawsweep.results.compare_systems import Ranking
    from hawsweep.results.compare_trials import Comparison
    from hawsweep.results.leaderboard import TrialRow


def trial_records(rows: Sequence["TrialRow"]) -> list[dict[str, Any]]:
    """The rows of a leaderboard. Each setting is a column with its full name."""
    keys = list(dict.fromkeys(key for row in rows for key in row.settings))
    records = []
    for row in rows:
        known = {key: value for key, value in vars(row).items() if key != "settings"}
        settings = {key: row.settings.get(key) for key in keys}
        records.append({"label": known.pop("label"), "state": known.pop("state")} | settings)
        records[-1] |= {key: value for key, value in known.items() if key not in settings}
    return records


def item_records(compared: "Comparison") -> list[dict[str, Any]]:
    """The items of a comparison, the largest losses first."""
    first, second = compared.labels
    return [
        {
            "source": item.source,
            "reference": item.reference,
            "group": item.group,
            f"{first} output": item.outputs[0],
            f"{second} output": item.outputs[1],
            f"{first} score": item.scores[0],
            f"{second} score": item.scores[1],
            "gain": item.gain,
        }
        for item in compared.items
    ]


def system_records(ranking: "Ranking") -> list[dict[str, Any]]:
    """The systems, best first."""
    records = []
    for each in ranking.systems:
        numbers = {key: value for key, value in asdict(each.score).items() if key != "samples"}
        lead = {} if each.lead is None else asdict(each.lead)
        leads = {f"lead_{key}": lead.get(key) for key in ("mean", "low", "high")}
        losses = {"loss": each.loss, "perplexity": each.perplexity}
        records.append({"name": each.name, **numbers, **leads, **losses})
    return records
