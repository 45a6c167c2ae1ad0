"""The reasons for the keys of a drafted sweep, in a few words."""

from hawsweep.prepare.design import Basis, Design
from hawsweep.prepare.sweep_text import short
from hawsweep.text import counted, duration


def reasons_of(basis: Basis, design: Design) -> dict[str, str]:
    """The reasons by dotted key, also for keys that this design does not have."""
    return {
        **_of_training(basis, design),
        **_of_search(basis, design),
        **_of_judging(basis, design),
    }


def _of_training(basis: Basis, design: Design) -> dict[str, str]:
    seen, n_cut = design.iters * basis.batch_size, basis.view.n_longer(basis.width)
    size = f"{basis.batch_size} x {basis.view.lengths.mean():.0f} tokens: "
    return {
        "model": f"{design.plan.memory.shape.weight_bytes() / 1e9:.2f} GB of weights here",
        "train.batch_size": size
        + ("larger batches would be few" if basis.is_small else "enough to keep a device busy"),
        "train.iters": (
            f"{seen} examples, {seen / basis.n_train:.1f} epochs; fixed, because the best of all "
            "evaluations is kept"
        ),
        "train.steps_per_eval": (
            f"{counted(design.iters // design.steps, 'evaluation')}: chances to prune"
        ),
        "train.num_layers": (
            "all: a new language is learned in the lower blocks too"
            if design.layers == -1
            else "the upper blocks: all would take too much time or memory"
        ),
        "train.max_seq_length": (
            f"the longest example has {int(basis.view.lengths.max())} tokens"
            + (f"; {n_cut} are truncated" if n_cut else "")
        ),
        "train.mask_prompt": "the loss counts answers only",
        "train.optimizer_config": "without it Adam's first steps are 3 to 6 times too large",
        "train.lora_parameters.alpha": "scale = alpha / rank: rank does not shift the rate",
        "train.early_stopping_patience": "examples come several times: a trial may overfit",
    }


def _of_search(basis: Basis, design: Design) -> dict[str, str]:
    n_pruned = design.timing.n_pruned
    return {
        "search.learning_rate": (
            f"published sweeps suggest {short(basis.rate)}"
            + ("; higher for few updates" if basis.is_small else "")
        ),
        "search.lora_parameters.rank": (
            f"matters less than the rate; the largest is run {design.plan.largest.how}"
        ),
        "trials": "as many as fit the time"
        + (f"; about {design.n_trials - n_pruned} of them trained whole" if n_pruned else ""),
        "timeout": "no trial starts later, so the last ends in time",
    }


def _of_judging(basis: Basis, design: Design) -> dict[str, str]:
    timing, evaluated = design.timing, design.content["validation"]["max_examples"]
    of = f"of {basis.n_valid}" if evaluated < basis.n_valid else "all there are"
    share = timing.evaluations_s / timing.trial_s if timing.trial_s else 0
    return {
        "memory.budget": f"the free memory at the start; now {design.plan.budget.how}",
        "validation.max_examples": f"{of}, for the loss: {share:.0%} of a trial's time",
        "scoring.metric": "of the translations; chrf and bleu are recorded too",
        "scoring.max_examples": f"translated by each survivor: {duration(timing.answers_s)}",
        "scoring.max_tokens": f"long references have {basis.answer_tokens:.0f}",
        "scoring.batch_size": "prompts at a time: as many as fit into memory, up to 16",
        "confirm.top": (
            f"the best with new seeds, to see which was lucky: {duration(timing.again_s)}"
            if design.top * design.seeds
            else "no time for it: the winner may have been lucky"
        ),
        "confirm.seeds": "new seeds for each",
    }
