"""A model card's front matter for Hugging Face: base, data sets, license, results.

Nothing in it is guessed: the license comes from the base's card, and languages are left out.
"""

from pathlib import Path

import optuna

from hawsweep.files import read_regular
from hawsweep.models import resolve
from hawsweep.models.config_file import read_config
from hawsweep.models.hub import is_repository, split_revision
from hawsweep.results.leaderboard import TrialRow
from hawsweep.spec.sweep import SweepSpec
from hawsweep.study.trials import read_test
from hawsweep.text import visible_line

# The origin of the bundled models, and the licenses of their packages.
_BUNDLED = {"smollm2-135m-instruct": ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0")}
_CARD_BYTES = 10_000_000
_METRICS = {
    "semantic_similarity": "semantic similarity",
    "chrf": "chrF",
    "bleu": "BLEU",
    "exact_match": "exact match",
}


def metric_name(metric: str) -> str:
    """A metric's name in words."""
    return _METRICS.get(metric, metric)


def name_of(reference: str) -> str:
    """A model or data set by name. Of a path only the last part is given, so that a card names no
    folder of this machine.
    """
    known = _BUNDLED.get(reference)
    return known[0] if known is not None else reference_name(reference)


def reference_name(reference: str) -> str:
    """A model's name as a sweep has it."""
    is_name = reference in resolve.BUNDLED or _is_repository(reference)
    return reference if is_name else Path(reference).name


def transformers_base(reference: str) -> str | None:
    """The repository from which transformers loads a base; None of a folder of this machine, and of
    weights that MLX has quantized.
    """
    if known := _BUNDLED.get(reference):
        return known[0]
    path = resolve.find_model(reference)
    if not _is_repository(reference) or (path and read_config(path).get("quantization")):
        return None
    return split_revision(reference)[0]


def _is_repository(reference: str) -> bool:
    is_named = is_repository(reference) and reference not in resolve.BUNDLED
    return is_named and not reference.startswith(".") and not Path(reference).exists()


def metadata(
    study: optuna.Study,
    spec: SweepSpec,
    row: TrialRow,
    *,
    is_fused: bool,
    is_measured: bool,
) -> str:
    """A card's front matter.

    Args:
        is_measured: Whether the exported model itself has these scores.
    """
    from huggingface_hub import EvalResult, ModelCardData

    known = _BUNDLED.get(spec.model)
    repo, _ = split_revision(spec.model)
    base = known[0] if known else repo if _is_repository(spec.model) else None
    data_sets = [each.path for each in spec.data if _is_repository(each.path)]
    results = []
    test = read_test(study) or {}
    tested = test["trial"] if str(test.get("trial_number")) == row.label else {}
    for split, values in (("validation", vars(row)), ("test", tested)) if is_measured else ():
        for kind in ("score", "chrf", "bleu"):
            if (value := values.get(kind)) is None:
                continue
            own = spec.scoring.metric if kind == "score" else kind
            results.append(
                EvalResult(
                    task_type="text-generation",
                    dataset_type=data_sets[0] if data_sets else "custom",
                    dataset_name=", ".join(visible_line(name_of(each.path)) for each in spec.data),
                    dataset_split=split,
                    metric_type=own,
                    metric_name=f"{'mean' if kind == 'score' else 'corpus'} {metric_name(own)}",
                    metric_value=round(value, 4),
                )
            )
    content = ModelCardData(
        base_model=base,
        base_model_relation=None if base is None else "finetune" if is_fused else "adapter",
        library_name="mlx",
        pipeline_tag="text-generation",
        tags=["mlx", "lora", "hawsweep"],
        datasets=data_sets or None,
        license=known[1] if known else _license_of(spec.model),
        model_name=study.study_name if results else None,
        eval_results=results or None,
    )
    return f"{content.to_yaml().rstrip()}\n"


def _license_of(model: str) -> str | None:
    """The license of the base's own card; None without a card, or without a license in it."""
    from huggingface_hub import ModelCard

    folder = resolve.find_model(model)
    path = None if folder is None else folder / "README.md"
    if path is None or not path.is_file():
        return None
    try:
        text = read_regular(path, _CARD_BYTES).decode()
        found = ModelCard(text, ignore_metadata_errors=True)
    except (OSError, ValueError):
        return None
    named = getattr(found.data, "license", None)
    return named if isinstance(named, str) else None
