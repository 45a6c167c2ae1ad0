"""Scale, verdict, groups, comparisons and importance for the terminal."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from hawsweep.results.verdict import lead_text
from hawsweep.spec.space import MODEL
from hawsweep.text import (
    counted,
    faults_text,
    finite,
    number,
    score_range,
    setting,
    short_name,
    shorten,
)
from hawsweep.views.terminal.fitted_table import make_table
from hawsweep.views.terminal.style import LONGEST_SAMPLE
from hawsweep.views.terminal.text import Text

if TYPE_CHECKING:
    from hawsweep.results.compare_systems import Ranking
    from hawsweep.results.compare_trials import Comparison
    from hawsweep.results.groups import GroupRow
    from hawsweep.results.importance import Insight
    from hawsweep.results.leaderboard import TrialRow
    from hawsweep.results.verdict import Verdict
    from hawsweep.study.confirm import Confirmation


def self_check_lines(check: Mapping[str, Any]) -> list[str]:
    """The metric's scale, the smallest difference its prompts tell apart, then each warning."""
    floor, ceiling = check["floor"], check["ceiling"]
    span = ceiling - floor
    share = ""
    if span > 0:
        way = (check["base"] - floor) / span
        share = f", {way:.0%} of the way" if way >= 0 else ", below chance"
    is_enough = check["n_prompts"] > 1 and check["detectable"] <= check["wanted"]
    if math.isinf(check["detectable"]):
        resolution = (
            "The base scores every prompt the same, so the smallest difference is not known yet."
            if check["n_prompts"] > 1
            else "One prompt tells nothing apart."
        )
    else:
        resolution = (
            f"{check['n_prompts']} prompts tell trials apart that differ by "
            f"{check['detectable']:.3f} or more"
        )
    if check["n_needed"] and not is_enough:
        resolution += (
            f"; for {check['wanted']:.3f} it takes about {check['n_needed']} (scoring.max_examples)"
        )
    return [
        f"Scale: other prompts' references score {floor:.3f}, the right ones {ceiling:.3f}; the "
        f"base {check['base']:.3f}{share}",
        resolution if is_enough else f"[yellow]{resolution}[/yellow]",
        *(f"[yellow]{escape(text)}[/yellow]" for text in check["warnings"]),
    ]


_SCALE_WIDTH = 40


def scale_lines(check: Mapping[str, Any] | None, rows: Sequence["TrialRow"]) -> list[str]:
    """The best trial and the untuned model on the way from chance to right; empty where that is not
    known.

    Args:
        rows: A leaderboard, whose first complete trial is drawn, and the baselines of its model.
    """
    best = next((row for row in rows if row.state == "complete"), None)
    if check is None or best is None or not check["ceiling"] > check["floor"]:
        return []
    floor, ceiling, model = check["floor"], check["ceiling"], best.settings.get(MODEL)
    drawn, told = ["-"] * _SCALE_WIDTH, []
    bases = [row for row in rows if row.state == "base" and row.settings.get(MODEL) == model]
    for sign, row in [*zip("bf", bases[::-1], strict=False), ("T", best)]:
        if row.score is not None:
            way = (row.score - floor) / (ceiling - floor)
            drawn[round(min(1, max(0, way)) * (_SCALE_WIDTH - 1))] = sign
            name = f"trial {row.label}" if row is best else row.label
            told.append(f"{sign} {escape(name)} {row.score:.4f}")
    return [
        f"chance {floor:.3f} |{''.join(drawn)}| {ceiling:.3f} right",
        f"on the validation prompts: {', '.join(told)}",
    ]


def verdict_lines(verdict: "Verdict | None") -> list[str]:
    """The sentences of the verdict, one a line."""
    if verdict is None:
        return []
    style = "bold green" if verdict.ships else "bold yellow"
    first, *others = (escape(each) for each in verdict.sentences) if verdict.sentences else ("",)
    return [line for line in (f"[{style}]{first}[/]" if first else "", *others) if line]


def confirmation_lines(confirmed: Sequence["Confirmation"]) -> list[str]:
    """The scores with new seeds, and whether the winner's first one was luck."""
    if not confirmed:
        return []
    first, *others = confirmed
    scores = ", ".join(f"{each:.4f}" for each in first.scores)
    each_seed = f" ({scores})" if len(first.scores) > 1 else ""
    seeds = counted(len(first.scores), "new seed")
    fell = first.selected - first.mean
    luck = f"{fell:.4f} of it was luck" if fell > 0 else "not luck"
    lines = [
        f"With {seeds}, trial {first.trial_number} scores {first.mean:.4f}{each_seed} on the "
        f"validation prompts (first {first.selected:.4f}): {luck}."
    ]
    if others:
        rest = ", ".join(f"trial {each.trial_number} {each.mean:.4f}" for each in others)
        lines.append(f"Next by new seeds: {rest}.")
    return lines


def regression_lines(rows: Sequence["GroupRow"]) -> list[str]:
    """The groups in which the second system scores lower than the first beyond chance, in words."""
    worse = [row for row in rows if row.gain.high < 0]
    if not worse:
        return []
    named = ", ".join(
        f"{row.group} ({row.gain.mean:+.3f} on {counted(row.n_prompts, 'prompt')})" for row in worse
    )
    return [f"[yellow]It scores lower in {escape(named)}.[/yellow]"]


def groups_parts(
    rows: Sequence["GroupRow"], split: str, labels: tuple[str, str] = ("base", "trial")
) -> list[RenderableType]:
    """The table of groups, where there are any, and what is lower in words.

    Args:
        split: The split of the prompts, ``test`` or ``validation``.
        labels: The names of the compared systems.
    """
    if not rows:
        return []
    title = Text(f"By group of the {split} prompts", style="bold")
    lines = map(Text.from_markup, regression_lines(rows))
    return ["", title, groups_table(rows, labels), *lines]


def judged_groups_parts(
    rows: Sequence["GroupRow"] | None, test: Mapping[str, Any] | None, verdict: "Verdict | None"
) -> list[RenderableType]:
    """Base and judged trial by group; nothing where ``rows`` is None."""
    if not rows:
        return [] if rows is None else ["", Text("No prompt has a group: set data.group.")]
    judged = "trial" if verdict is None else verdict.winner
    if test is None:
        return groups_parts(rows, "validation", ("base", judged))
    return groups_parts(rows, "test", ("base", f"trial {test['trial_number']}"))


def groups_table(rows: Sequence["GroupRow"], labels: tuple[str, str] = ("base", "trial")) -> Table:
    """Two systems by group, largest loss first."""
    one, other = map(escape, labels)
    table = make_table(
        f"group | >prompts | >{one} | >{other} | >gain | >joint 95 %",
        dropped=(one, other, "joint 95 %"),
    )
    for row in rows:
        gain = row.gain
        table.add_row(
            escape(row.group),
            str(row.n_prompts),
            f"{row.base:.3f}",
            f"{row.trial:.3f}",
            f"{gain.mean:+.3f}",
            f"{gain.low:+.3f} to {gain.high:+.3f}" if math.isfinite(gain.high - gain.low) else "",
            style="red" if gain.high < 0 else "",
        )
    return table


# The columns of a ranking that go where room is short, the first first.
_DROPPED_SCORES = (
    "length",
    "BLEU",
    "perplexity",
    "loss",
    "similarity",
    "exact",
    "faults",
    "chrF",
    "lead over the next",
    "95 %",
)


def ranking_picture(ranking: "Ranking") -> RenderableType:
    """Systems on the same items, best first, and the disagreements of metrics."""
    has_losses = any(each.loss is not None for each in ranking.systems)
    table = make_table(
        "system | >score | >95 % | >lead over the next | >similarity | >chrF | >BLEU | >exact "
        f"| >length | {'>loss | >perplexity | ' * has_losses}~faults",
        dropped=_DROPPED_SCORES,
    )
    for each in ranking.systems:
        score, lead = each.score, each.lead
        losses = (number(each.loss, "{:.3f}"), number(each.perplexity, "{:.2f}"))
        table.add_row(
            escape(each.name),
            f"{score.score:.4f}",
            score_range(*finite(score.low, score.high), is_short=False),
            "" if lead is None else lead_text(lead),
            f"{score.similarity:.4f}",
            f"{score.chrf:.1f}",
            f"{score.bleu:.1f}",
            f"{score.exact_match:.0%}",
            f"{score.length_ratio:.2f}",
            *(losses if has_losses else ()),
            faults_text(score.faults),
        )
    n_items = len(ranking.systems[0].score.samples)
    lines = [f"{counted(n_items, 'item')}. A lead with 0 in its interval may be chance."]
    if ranking.agreement is not None:
        lines.append(f"Rank correlation of score and chrF: {ranking.agreement:.2f}.")
    for one, other in ranking.reversed_pairs[:5]:
        lines.append(f"chrF ranks {other} above {one}.")
    return Group(table, "", *map(escape, lines))


def comparison_picture(compared: "Comparison", n_items: int) -> RenderableType:
    """Two systems on the same prompts: the largest gains and losses, and groups."""
    one, other = map(escape, compared.labels)
    n = len(compared.items)
    head = (
        f"[bold]{other}[/bold] against [bold]{one}[/bold] on {counted(n, 'validation prompt')}: "
        f"{lead_text(compared.gain)}; better on {compared.n_better}, worse on {compared.n_worse}"
    )
    parts: list[RenderableType] = [Text.from_markup(head)]
    if compared.test is not None:
        parts.append(Text(f"On the test prompts: {lead_text(compared.test)}"))
    if compared.differing:
        told = (
            f"{short_name(key)} {setting(after) or 'not set'} (not {setting(before) or 'set'})"
            for key, (before, after) in compared.differing.items()
        )
        parts.append(Text(f"{compared.labels[1]} has {', '.join(told)}"))
    harmed = [item for item in compared.items[:n_items] if item.gain < 0]
    improved = [item for item in compared.items[::-1][:n_items] if item.gain > 0]
    for title, items in (("Largest gains", improved), ("Largest losses", harmed)):
        if items:
            names = ("Source", "Reference", *compared.labels)
            heads = [escape(name.replace("|", "/")) for name in names]
            table = make_table("~" + " | ~".join(heads) + " | >gain", lines=True)
            table.title = title
            for item in items:
                texts = (item.source, item.reference, *item.outputs)
                cells = (escape(shorten(text, LONGEST_SAMPLE)) for text in texts)
                table.add_row(*cells, f"{item.gain:+.3f}")
            parts += ["", table]
    return Group(*parts, *groups_parts(compared.groups, "validation", compared.labels))


def insight_picture(insight: "Insight") -> RenderableType:
    """Importance and marginal of each parameter, and the agreement of validation loss."""
    from hawsweep.results.importance import no_importance

    lines = agreement_lines(insight)
    if not insight.importance:
        lines.insert(0, no_importance(insight))
    return Group(insight_table(insight), "", *map(Text.from_markup, lines))


def insight_table(insight: "Insight") -> Table:
    """Importance and marginal of each parameter."""
    table = make_table(
        "parameter | >importance | >value | >trials | >mean score | >best",
        dropped=("best", "trials", "importance"),
    )
    names = [*insight.importance, *(n for n in insight.marginals if n not in insight.importance)]
    for name in names:
        share = insight.importance.get(name)
        for place, part in enumerate(insight.marginals[name]):
            table.add_row(
                short_name(name) if place == 0 else "",
                f"{share:.0%}" if place == 0 and share is not None else "",
                escape(part.part),
                str(part.n_trials),
                f"{part.mean:.4f}",
                f"{part.best:.4f}",
            )
    return table


def agreement_lines(insight: "Insight") -> list[str]:
    """How well validation loss predicts the score."""
    from hawsweep.results.importance import FEWEST_TRIALS, LOW_AGREEMENT

    if insight.agreement is None:
        return ["Too few trials, or equal ones, to say whether validation loss predicts the score."]
    lines = [
        f"Rank correlation of validation loss (lower is better) with the score: "
        f"{insight.agreement:.2f} over {insight.n_trials} complete trials."
    ]
    if insight.agreement < LOW_AGREEMENT and insight.n_trials >= FEWEST_TRIALS:
        lines.append(
            "[yellow]Validation loss is a poor guide here: pruning by it may end good trials. "
            "Consider pruning.name: none.[/yellow]"
        )
    return lines
