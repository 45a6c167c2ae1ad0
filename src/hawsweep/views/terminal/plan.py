"""The plan of a sweep, and the fit of a calibration."""

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from hawsweep.models.shape import FLOAT32_BYTES
from hawsweep.planning.fits import scoring_remedy
from hawsweep.planning.memory_parts import memory_parts
from hawsweep.search.rungs import promoting_s
from hawsweep.spec.sweep import short_names
from hawsweep.text import clock, counted, duration, setting, short_name
from hawsweep.views.terminal.fitted_table import make_table
from hawsweep.views.terminal.style import make_grid

if TYPE_CHECKING:
    from hawsweep.models.shape import ModelShape
    from hawsweep.planning.sweep_plan import Fit, SweepPlan
    from hawsweep.planning.sweep_time import Timing


_PARTS = {
    "attention": "the weights of attention, kept for the backward pass",
    "loss": "logits; 0 where they are freed before the peak",
    "training": "the sum: the peak of a step",
    "evaluation": "its own peak, with the weights",
    "translations": "their own peak, with the weights",
    "cache": "freed buffers, at most, beside these",
}
# A plan, and its time if it fits.
Timed = tuple["SweepPlan", "Timing | None"]


def plans_picture(plans: Sequence[Timed], *, show_all: bool = False) -> RenderableType:
    """The plan of each model of a sweep, the answer first; for several models also a table.

    Args:
        show_all: Also each value of each searched key.
    """
    more = [] if show_all else ["[dim]each value of each searched key: --all[/dim]"]
    if len(plans) == 1:
        ((plan, timing),) = plans
        return Group(*_end(plan, timing), "", *_body(plan, show_all=show_all), *more)
    names = short_names(plan.spec.model for plan, _ in plans)
    table = make_table(
        "~model | >weights GB | >smallest: GB | >trial | >largest: GB | >trial | >whole sweep",
        dropped=("weights GB", "smallest: GB", "largest: GB", "trial"),
    )
    for plan, timing in plans:
        ends = [_verdict_cells(each) for each in (plan.smallest, plan.largest)]
        cells = [cell for peak, _, trial, how in ends for cell in (peak, trial or how)]
        table.add_row(
            escape(names[plan.spec.model]),
            f"{plan.memory.shape.weight_bytes() / 1e9:.2f}",
            *cells,
            "" if timing is None else clock(60 * round(timing.total_s / 60)),
        )
    parts = [part for plan, _ in plans for part in ("", *_body(plan, show_all=show_all))]
    return Group(*_models_end(plans), "", table, *parts, *more)


def _models_end(plans: Sequence[Timed]) -> list[str]:
    timings = [timing for _, timing in plans if timing is not None]
    if not timings:
        return ["[red]No model of this sweep fits.[/red]"]
    lines = _time_lines(plans[0][0], timings)
    if len(timings) < len(plans):
        lines.append("[magenta]A model that does not fit is left out; the others go on.[/magenta]")
    return lines


def _time_lines(plan: "SweepPlan", timings: Sequence["Timing"]) -> list[str]:
    """The sweep's time, as the mean of several models."""
    spec, total_s = plan.spec, fmean(timing.total_s for timing in timings)
    again = f" and {counted(plan.n_again, 'run')} with new seeds" if plan.n_again else ""
    n_pruned, n_trials = timings[0].n_pruned, timings[0].n_trials
    fewer = f", as many as the space has settings, not {spec.trials}," * (n_trials < spec.trials)
    pruned = f"; about {n_pruned} of the trials will be pruned" if n_pruned else ""
    share = " with equally many for each model" if len(timings) > 1 else ""
    first = "" if plan.memory.is_calibrated else "the model's first measurement, "
    lines = [
        f"{counted(n_trials, 'trial')}{fewer}{again} take about {duration(total_s)}{share}, with "
        f"{first}warm-up, base, evaluations and translations{pruned}."
    ]
    if timings[0].promotes:
        n_whole = n_trials - n_pruned
        again = f", and {plan.n_again} run again with new seeds" if plan.n_again else ""
        lines = [
            f"{counted(n_trials, 'setting')} begin{'s' * (n_trials == 1)}{fewer}{share}, about "
            f"{n_whole} of them {'is' if n_whole == 1 else 'are'} trained whole{again}: about "
            f"{duration(total_s)} with {first}warm-up, base, evaluations and translations."
        ]
    if spec.scoring.prompt.is_searched:
        prompts_s = fmean(timing.prompts_s for timing in timings)
        lines.append(
            f"Of that the untuned model takes about {duration(prompts_s)} to answer with "
            f"{counted(spec.scoring.prompt.n_tried, 'prompt')} (scoring.prompt)."
        )
    if spec.timeout is None:
        return lines
    limit = f"the timeout of {duration(spec.timeout)}"
    begin_s = spec.timeout - promoting_s(spec)
    n_within = round(fmean(timing.n_trials_within(begin_s) for timing in timings))
    if total_s <= spec.timeout:
        late = ""
        if n_within < n_trials:
            late = f"; about {n_within} begin before its last quarter, in which paused ones go on"
        return [*lines, f"That is within {limit}{late}."]
    if not n_within:
        told = f"Within {limit} no whole trial fits beside base, test and runs with new seeds: "
        return [*lines, f"[red]{told}raise it, or lower train.iters or confirm.top.[/red]"]
    unless = "" if timings[0].promotes else " if none is pruned"
    begun = f"about {n_within} of the {counted(n_trials, 'setting')} begin{unless}"
    return [*lines, f"[magenta]Within {limit} {begun}.[/magenta]"]


def _body(plan: "SweepPlan", *, show_all: bool) -> list[RenderableType]:
    known, spec = plan.memory, plan.spec
    weights = known.shape.weight_bytes() / 1e9
    longest = int(plan.work.lengths.max())
    workers = "one worker" if plan.n_workers == 1 else f"{plan.n_workers} workers"
    each = " each" * (plan.n_workers > 1)
    answers = f"{counted(spec.scoring.batch_size, 'prompt')} at a time, "
    answers += f"up to {plan.scoring_bytes / 1e9:.1f} GB"
    if remedy := _scoring_remedy(plan):
        answers += f" [red]do not fit: use {remedy}[/red]"
    facts = {
        "model": escape(f"{spec.model}: {weights:.2f} GB of weights {_kept(known.shape)}"),
        "budget": f"{plan.budget.total_bytes / 1e9:.1f} GB: {plan.budget.how}",
        "": f"{workers}, {plan.arrays_bytes / 1e9:.1f} GB{each} for MLX's arrays, "
        f"{(plan.worker_bytes - plan.arrays_bytes) / 1e9:.1f} GB for the rest of its process",
        "examples": f"{len(plan.work.lengths)}, the longest of {longest} tokens, {plan.work.how}",
        "training": _epochs(plan),
        "memory": f"within {known.error:.0%}: {known.how}",
        "speed": known.speed.how,
        "answers": answers,
    }
    grid = make_grid(facts.items(), "bold", "")
    if not show_all:
        return [grid]
    table = make_table(
        "key | >value | >smallest: GB | >tok/s | >trial | ~how "
        "| >largest: GB | >tok/s | >trial | ~how",
        dropped=("tok/s", "how", "trial"),
    )
    for key, rows in plan.by_value.items():
        for number, (value, *ends) in enumerate(rows):
            cells = [cell for verdict in ends for cell in _verdict_cells(verdict)]
            table.add_row(short_name(key) if number == 0 else "", setting(value), *cells)
    if not plan.by_value:  # every setting takes the same
        both = (plan.smallest, plan.largest)
        table.add_row("any", "", *(cell for verdict in both for cell in _verdict_cells(verdict)))
    meaning = "smallest, largest: the other keys at the values of least and most memory"
    return [grid, "", _parts_table(plan), "", table, f"[dim]{meaning}[/dim]"]


def _parts_table(plan: "SweepPlan") -> Table:
    """The memory by part, of the smallest and of the largest settings."""
    table = make_table("memory | >smallest: GB | >largest: GB | ~")
    ends = [memory_parts(plan, each) for each in (plan.smallest, plan.largest)]
    for part in ends[0]:
        sizes = (f"{each[part] / 1e9:.2f}" for each in ends)
        table.add_row(part, *sizes, _PARTS.get(part, ""))
    return table


def _scoring_remedy(plan: "SweepPlan") -> str:
    """What makes the translations fit; empty where they do."""
    if plan.scoring_bytes <= plan.arrays_bytes:
        return ""
    return scoring_remedy(plan.spec, plan.memory, plan.work, plan.arrays_bytes)


def _kept(shape: "ModelShape") -> str:
    """How weights are kept: ``in 4 bits``, ``in 16 bits``, ``in float32``."""
    if shape.quantization is not None:
        return f"in {shape.quantization.bits} bits"
    return "in float32" if shape.float_bytes == FLOAT32_BYTES else "in 16 bits"


def _epochs(plan: "SweepPlan") -> str:
    """How long a trial is in iterations and in epochs, from the least to the most."""
    trains = [each.train for each in (plan.smallest, plan.largest)]
    iters = sorted({each.iters for each in trains})
    seen = sorted(map(plan.epochs, trains))
    epochs = list(dict.fromkeys(f"{each:.2g}" for each in seen))
    ends = (("iteration", list(map(str, iters))), ("epoch", epochs))
    return ", ".join(f"{' to '.join(each)} {noun}{'s' * (each != ['1'])}" for noun, each in ends)


def _verdict_cells(verdict: "Fit") -> list[str]:
    fits = verdict.plan is not None
    shown = verdict.plan or verdict.least
    cells = [
        f"{shown.peak_bytes / 1e9:.2f}",
        f"{verdict.tokens_per_s:.0f}" if fits else "",
        clock(60 * round(verdict.seconds / 60)) if fits else "",
        verdict.how,
    ]
    return cells if fits else [f"[magenta]{cell}[/magenta]" if cell else "" for cell in cells]


def _end(plan: "SweepPlan", timing: "Timing | None") -> list[str]:
    lines = ["[red]Nothing of this sweep fits.[/red]"]
    if timing is not None:
        lines = _time_lines(plan, [timing])
        if remedy := _scoring_remedy(plan):
            lines.insert(0, f"[red]Translations do not fit: use {remedy}.[/red]")
    if plan.faster is not None and plan.largest.plan is not None:
        from hawsweep.planning.trial_plan import describe

        lines.append(
            f"With {plan.faster.needed_bytes / 1e9:.1f} GB for arrays the largest settings would "
            f"be faster: {describe(plan.faster, plan.largest.train)}."
        )
    return lines


def residuals_table(residuals: Sequence[Any]) -> Table:
    """Measured steps beside the fitted memory model's predictions."""
    table = make_table(
        ">layers | >rank | >rows | >width | >targets | >how | >measured GB | >fitted GB | >error",
        dropped=("targets", "rows", "width", "how", "layers", "rank"),
    )
    for each in residuals:
        seen = each.observation
        how = "checkpointed" if seen.execution.grad_checkpoint else ""
        how += " sliced" if seen.execution.tokens_at_once else ""
        table.add_row(
            str(seen.train.num_layers),
            str(seen.train.lora_parameters.rank),
            str(seen.step.rows),
            str(seen.step.width),
            str(seen.step.n_targets),
            how.strip(),
            f"{seen.peak_bytes / 1e9:.3f}",
            f"{each.predicted_bytes / 1e9:.3f}",
            f"{each.error:+.1%}",
        )
    return table
