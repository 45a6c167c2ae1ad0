"""Whether a sweep can run here: its model and its data with every setting, and its trackers."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from hawsweep.errors import DataError, ModelError, SpecError
from hawsweep.models.shape import ModelShape
from hawsweep.spec.space import apply_settings, corners
from hawsweep.spec.sweep import SweepSpec
from hawsweep.spec.train import NARROW, TrainSpec
from hawsweep.text import counted

# What decides whether a model can be trained so.
_SHAPE_KEYS = (
    "fine_tune_type",
    "num_layers",
    "lora_parameters.rank",
    "lora_parameters.keys",
    "optimizer",
    "lora_parameters.alpha",
    "lora_parameters.scale",
)


def differing_trains(spec: SweepSpec) -> Iterator[TrainSpec]:
    """How trials train, of those that differ in whether a model can be trained so."""
    for settings in corners(spec.search, _SHAPE_KEYS):
        yield apply_settings(spec.train, settings)


def check_model(spec: SweepSpec, config: Mapping[str, Any]) -> None:
    """Refuse to train all weights of a quantized model.

    Raises:
        ModelError: So the sweep says, or may choose.
    """
    trains_all = any(train.fine_tune_type == "full" for train in differing_trains(spec))
    if trains_all and "quantization" in config:
        raise ModelError(
            f"train.fine_tune_type is full, but {spec.model} is quantized: trained weights "
            "would not fit it. Use lora or dora, or the model in 16 bit."
        )


def check_shape(spec: SweepSpec, shape: ModelShape) -> None:
    """Refuse layers that the model does not have, and ranks above the width of a layer.

    Raises:
        ModelError: The message says which.
    """
    for train in differing_trains(spec):
        shape.adapted_linears(train)
        lora = train.lora_parameters
        width = narrowest_layer(shape, lora.keys)
        if train.fine_tune_type != "full" and lora.rank > width:
            raise ModelError(
                f"lora_parameters.rank is {lora.rank}, above the width {width} of the narrowest "
                f"layer. Use {width} or less, or leave that layer out by lora_parameters.keys."
            )


def narrowest_layer(shape: ModelShape, keys: Sequence[str] | None = None) -> int:
    """The width of the narrowest layer to adapt.

    Args:
        keys: Names of layers; None for all except a router, which is as wide as the number of
            experts. Those that are ``NARROW`` do not count.
    """
    widths = [
        min(size)
        for linears in shape.block_linears
        for name, size in linears.items()
        if (keys is None or name in keys) and not name.endswith(("gate", "router"))
    ]
    # Experts count as one layer as wide as all of them, see ``loaded_shape``.
    widest = min(shape.hidden_size, max(widths, default=shape.hidden_size))
    return min((each for each in widths if each > NARROW * widest), default=widest)


def check_batch_size(spec: SweepSpec, n_examples: int) -> None:
    """Refuse batches of more examples than there are.

    Raises:
        DataError: The message says how many there are.
    """
    _, largest = spec.ends_of("batch_size")
    if largest > n_examples:
        where = "search" if "batch_size" in spec.search else "train"
        raise DataError(
            f"{where}.batch_size is {largest}, but the split train has "
            f"{counted(n_examples, 'example')}. Use that many or fewer."
        )


def check_train_samples(spec: SweepSpec, n_records: int) -> None:
    """Refuse more training examples than there are records, and fewer than a batch.

    Raises:
        DataError: The message says what there is.
    """
    where = "search" if "max_train_samples" in spec.search else "train"
    if where == "train" and spec.train.max_train_samples is None:
        return
    fewest, most = spec.ends_of("max_train_samples")
    _, largest = spec.ends_of("batch_size")
    if most > n_records:
        raise DataError(
            f"{where}.max_train_samples is {most}, but the split train has "
            f"{counted(n_records, 'record')}. Use that many or fewer."
        )
    if largest > fewest:
        raise DataError(
            f"{where}.max_train_samples is {fewest}, below a batch of {largest}. Use {largest} or "
            "more, or a smaller batch_size."
        )


def missing_trackers(spec: SweepSpec) -> list[str]:
    """The trackers of ``report_to`` that are not installed."""
    return [each for each in spec.report_to if find_spec(each) is None]


def check_trackers(spec: SweepSpec) -> None:
    """Refuse trackers that are not installed.

    Raises:
        SpecError: The message says how to install them.
    """
    if missing := missing_trackers(spec):
        names = " and ".join(missing)
        packages = " ".join(missing).replace("mlflow", "mlflow-skinny")
        raise SpecError(
            f"report_to names {names}, which {'are' if missing[1:] else 'is'} not installed: pip "
            f"install {packages}, or in a clone pip install -e '.[{','.join(missing)}]'. Or "
            "leave it out with --set report_to=[]."
        )
