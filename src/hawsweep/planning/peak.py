"""Predictions of peak memory from shapes: of a training step, an evaluation, a generation.

Derived:

- weights, the adapter and the optimizer's state are counted, see ``models.shape``;
- a trained block keeps for its backward pass the input of each norm, each adapted layer and each
  product of activations. Counting them gives ``_kept_values`` numbers a token, and one matrix of
  attention weights a head;
- an adapter is float32: of a 16-bit model the input of each adapted layer is copied to float32, for
  the adapter's gradient;
- with gradient checkpointing a block keeps its input only, and is recomputed alone;
- logits are made for learned tokens only, in slices if the plan has them.

Fitted: how many times each quantity is in memory at the peak, because MLX queues work ahead and
frees late. These factors are ``Coefficients``; all would be near 1 if each array were freed at its
last use.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from hawsweep.machine.backend import Device

from hawsweep.data.batches import adds_gradients
from hawsweep.models.shape import FLOAT32_BYTES, ModelShape
from hawsweep.spec.train import TrainSpec


@dataclass(frozen=True)
class Step:
    """The part of a batch, or the batches, that go through the model at a time.

    Attributes:
        rows: Examples.
        width: Tokens of the longest, padded.
        n_targets: Tokens learned from, padded.
    """

    rows: int
    width: int
    n_targets: int

    @property
    def n_tokens(self) -> int:
        """Tokens with padding."""
        return self.rows * self.width


@dataclass(frozen=True)
class Execution:
    """How a step is computed; its result changes by rounding only.

    Attributes:
        micro_batch: Examples through the model at a time; their gradients are added up. More than
            a batch: as many batches of an update run as one, see ``batches.training_steps``.
        tokens_at_once: Tokens through the head at a time; None for all.
    """

    micro_batch: int
    grad_checkpoint: bool
    tokens_at_once: int | None


# The coefficients of quantities that depend on a step's tokens, without the loss.
ACTIVATIONS = (
    "kept",
    "kept_scores",
    "kept_rank",
    "backward",
    "backward_scores",
    "again",
    "again_scores",
    "inputs",
    "inputs_scores",
    "forward",
    "recurrent",
)


@dataclass(frozen=True)
class Coefficients:
    """How many times each derived quantity is in memory at the peak, on a kind of device.

    Attributes:
        kept: The values a trained block keeps for its backward pass.
        kept_scores: Its attention weights, ``[heads, width, width]`` a row.
        kept_rank: The adapter's inner values, ``rank`` a token and adapted layer.
        backward: Beside what is kept: one block's backward pass, in values that a block keeps.
        backward_scores: The same in attention weights.
        again: Checkpointed: one block's recomputation and backward pass, in values that a block
            keeps.
        again_scores: The same in attention weights.
        inputs: Checkpointed: what a block keeps, in hidden states.
        inputs_scores: The same in attention weights.
        forward: Blocks still in memory when the loss begins, in values that a block keeps.
        recurrent: What ``_recurrence`` counts.
        head: Bytes a token and vocabulary entry of the loss, all at once.
        head_slice: The same by slices.
        n_slices: Slices in memory at a time.
        gradients: The adapter's gradients.
        fixed_bytes: Memory that does not depend on the settings.
        value_bytes: Of one activation; those of a float32 model have 4.
        process_bytes: A worker's memory beside MLX's arrays: Python and libraries.
        process_share: Further memory of the process, as a share of its arrays: freed memory that
            is not returned, and on a GPU MLX's cache.
        error: Two-sided relative error band of the predicted peak.
    """

    kept: float
    kept_scores: float
    kept_rank: float
    backward: float
    backward_scores: float
    again: float
    again_scores: float
    inputs: float
    inputs_scores: float
    forward: float
    recurrent: float
    head: float
    head_slice: float
    n_slices: float
    gradients: float
    fixed_bytes: float
    value_bytes: int
    process_bytes: float
    process_share: float
    error: float

    def replaced(self, values: Mapping[str, float]) -> Self:
        """The same with other values by name."""
        return replace(self, **values)  # type: ignore[arg-type]

    @staticmethod
    def of(shape: ModelShape, device: Device) -> "Coefficients":
        """Those of a device, with activations as wide as the model's parameters."""
        known = COEFFICIENTS[device]
        return replace(known, value_bytes=max(known.value_bytes, shape.float_bytes))

    def scaled(self, factor: float) -> Self:
        """The coefficients with each activation counted ``factor`` times as often."""
        grown = {name: getattr(self, name) * factor for name in ACTIVATIONS}
        return self.replaced(grown)


# CPU: least squares over 201 measured steps of SmolLM2-135M and of random models of gemma3, qwen3
# and llama with 4 to 6 blocks (tests/benchmarks/bench_memory.py measures such steps).
# A process there had 0.33 to 0.42 GB beside its peak, of which torch was 0.2 GB; without torch what
# it imports takes 0.12 to 0.17 GB.
# Metal: activations of 16 bits; the bytes of the loss are fitted to three peaks of mlx-lm on an M1
# Ultra (tests/test_metal_peaks.py says with which lengths); the other factors are those of the CPU,
# reasoned, not fitted. Attention: MLX 0.32 trains with the unfused product on Metal (is_training in
# its fast.cpp and Metal backend), so that a block keeps its weights as on a CPU.
# CUDA: as Metal; a fused backward pass there keeps no attention weights: too high by those.
_ON_CPU_AND_GPU = {
    "kept": (1.08, 1.08),
    "kept_scores": (0.79, 1.0),
    "kept_rank": (3.34, 3.3),
    "backward": (1.91, 1.9),
    "backward_scores": (0.95, 1.0),
    "again": (3.48, 3.5),
    "again_scores": (3.17, 3.2),
    "inputs": (0.88, 1.0),
    "inputs_scores": (0.3, 0.0),
    "forward": (0.50, 0.5),
    "recurrent": (1.0, 1.0),
    "head": (24.5, 10.0),
    "head_slice": (22.1, 10.0),
    "n_slices": (3.2, 2.0),
    "gradients": (0.12, 1.0),
    "fixed_bytes": (2.7e6, 20e6),
    "value_bytes": (4, 2),
    "process_bytes": (0.3e9, 1.05e9),
    "process_share": (0.03, 0.10),
    "error": (0.08, 0.15),
}
_CPU, _GPU = (
    Coefficients(**dict(zip(_ON_CPU_AND_GPU, values, strict=True)))
    for values in zip(*_ON_CPU_AND_GPU.values(), strict=True)
)
COEFFICIENTS: dict[Device, Coefficients] = {"cpu": _CPU, "metal": _GPU, "cuda": _GPU}
# A forward pass alone, fitted to 11 measured ones of SmolLM2-135M on a CPU: blocks whose values
# are in memory at a time, and bytes of the loss a token and vocabulary entry.
_FORWARD_BLOCKS = 1.6
_FORWARD_HEAD = 12.0
# A gated delta rule, fitted to 42 measured steps of Qwen3.5's blocks with states of 32, 64 and 128
# on a CPU: states that a token keeps; in a block's backward pass those in memory, or the slices of
# token pairs less the states that are freed meanwhile.
_STATES, _STATES_PASSING, _SLICES, _STATES_FREED = 2.2, 1.9, 2.5, 2.0
# The embedder's process, one for all workers: resident with all-MiniLM-L6-v2 on Linux, after 40
# texts.
EMBEDDER_BYTES = 0.52e9
# The logits of one slice, in float32. On a CPU large enough that the head's matrix product is as
# fast as whole, small enough that MLX's stream, which runs ahead, holds little. A GPU reads the
# whole head for each slice, so that few tokens at a time would cost it much.
_SLICE_BYTES: dict[Device, int] = {"cpu": 16 * 2**20, "metal": 256 * 2**20, "cuda": 256 * 2**20}
FEWEST_TOKENS = 8


def slice_tokens(vocabulary: int, device: Device) -> int:
    """The tokens that go through the head at a time, if memory does not ask for fewer."""
    return max(FEWEST_TOKENS, _SLICE_BYTES[device] // (4 * vocabulary))


@dataclass(frozen=True)
class Peak:
    """Bytes at the peak, by purpose.

    Attributes:
        attention: The weights of attention among the activations.
        loss: The head's logits and what follows them; 0 where they are freed before the peak.
    """

    weights: float
    adapter: float
    optimizer: float
    gradients: float
    activations: float
    attention: float
    loss: float

    @property
    def total(self) -> int:
        """MLX's peak memory: active arrays, without the allocator's cache."""
        return int(sum(vars(self).values()))


def training_peak(
    shape: ModelShape,
    train: TrainSpec,
    step: Step,
    execution: Execution,
    coefficients: Coefficients,
) -> Peak:
    """The peak of a step.

    Args:
        shape: Of the model as it is in memory, see ``ModelShape.dequantized``.
        step: The largest part of a batch.
    """
    k = coefficients
    n_trained = shape.n_trained_blocks(train)
    adapter = 4 * shape.trained_parameters(train)
    gradients = (k.gradients + adds_gradients(train, execution.micro_batch)) * adapter
    scores = _scores(shape, step) * k.value_bytes
    values = step.n_tokens * _kept_values(shape) * k.value_bytes
    inner = copies = 0.0
    if train.fine_tune_type != "full":
        adapted = shape.adapted_linears(train)
        rank = train.lora_parameters.rank
        inner = k.kept_rank * step.n_tokens * rank * len(adapted) / n_trained * k.value_bytes
        if k.value_bytes < FLOAT32_BYTES:
            copies = FLOAT32_BYTES * step.n_tokens * _distinct_inputs(shape, adapted) / n_trained
    head = _head(shape, step, execution, k)
    states, slices = _recurrence(shape, step, k)
    n_recurrent = n_trained * shape.n_recurrent / shape.n_layers
    if execution.grad_checkpoint:
        inputs = step.n_tokens * shape.hidden_size * k.value_bytes
        kept, kept_scores = n_trained * k.inputs * inputs, n_trained * k.inputs_scores * scores
        at_head = k.forward * values
        backward, backward_scores = k.again * (values + copies) + inner, k.again_scores * scores
        backward += min(2.0, n_recurrent) * states + min(1.0, n_recurrent) * slices
    else:
        # A copy is kept in the place of the 16-bit input, which only it needed.
        copied = copies * (1 - k.value_bytes / FLOAT32_BYTES)
        kept = n_trained * (k.kept * values + inner + copied)
        kept_scores = n_trained * k.kept_scores * scores
        at_head = 0.0
        backward, backward_scores = k.backward * values, k.backward_scores * scores
        kept += n_recurrent * states
        backward += min(1.0, n_recurrent) * slices
    if at_head + head < backward + backward_scores:
        at_head, head = backward, 0.0
        kept_scores += backward_scores
    return Peak(
        shape.weight_bytes(),
        adapter + k.fixed_bytes,
        shape.optimizer_bytes(train),
        gradients,
        kept + at_head,
        kept_scores,
        head,
    )


def evaluation_peak(
    shape: ModelShape, step: Step, tokens_at_once: int | None, coefficients: Coefficients
) -> int:
    """The peak of a forward pass with the loss, in bytes: some blocks' values and the head."""
    k = coefficients
    values = step.n_tokens * _kept_values(shape) * k.value_bytes
    scores = _scores(shape, step) * k.value_bytes
    loss = replace(k, head=_FORWARD_HEAD, head_slice=_FORWARD_HEAD)
    head = _head(shape, step, Execution(step.rows, False, tokens_at_once), loss)
    passing = max(_FORWARD_BLOCKS * values + scores, _FORWARD_BLOCKS / 2 * values + head)
    return round(shape.weight_bytes() + k.fixed_bytes + passing)


def generation_peak(
    shape: ModelShape, rows: int, prompt: int, max_tokens: int, coefficients: Coefficients
) -> int:
    """The peak of answering ``rows`` prompts of ``prompt`` tokens at a time, in bytes: the cache of
    keys and values, which grows by 256 tokens and is copied then, and the longest prompt's forward
    pass.
    """
    k = coefficients
    length = -(-(prompt + max_tokens) // 256) * 256
    n_sliding = shape.n_sliding_layers if shape.sliding_window else 0
    kept = (shape.n_layers - n_sliding) * length
    kept += n_sliding * min(length, shape.sliding_window or length)
    cache = 2 * rows * kept * shape.n_kv_heads * shape.head_dim * k.value_bytes
    step = Step(rows, prompt, rows)
    passing = _FORWARD_BLOCKS / 2 * step.n_tokens * _kept_values(shape) + _scores(shape, step)
    return round(shape.weight_bytes() + k.fixed_bytes + cache + passing * k.value_bytes)


def process_bytes(peak: float, coefficients: Coefficients) -> int:
    """Bytes of a worker process whose arrays peak at ``peak`` bytes."""
    return round(peak * (1 + coefficients.process_share) + coefficients.process_bytes)


def arrays_budget(process_budget: float, coefficients: Coefficients) -> float:
    """The peak allowed for MLX's arrays in a process that may take ``process_budget`` bytes."""
    return (process_budget - coefficients.process_bytes) / (1 + coefficients.process_share)


def _kept_values(shape: ModelShape) -> int:
    """Numbers a block keeps a token: the inputs of its norms and products.

    Of hidden states: the input of each norm and what the norm gives, twice two in the plainest
    block; of attention: queries as they are, scaled, and as they come out; keys and values; of the
    feed-forward part: gate, its sigmoid and SiLU, the other half, their product.
    """
    queries, keys = shape.n_heads * shape.head_dim, shape.n_kv_heads * shape.head_dim
    n_before = min(shape.n_norms, 2)  # any others follow the products
    n_hidden = 2 * n_before + (shape.n_norms - n_before)
    normed = int(shape.has_head_norms)
    return (
        n_hidden * shape.hidden_size
        + (3 + normed) * queries
        + (2 + normed) * keys
        + 5 * shape.intermediate_size
    )


def _distinct_inputs(shape: ModelShape, adapted: Mapping[str, tuple[int, int]]) -> int:
    """Numbers a token that go into adapted layers. Layers side by side in a module have one input,
    but for the last, whose input is what the others give.
    """
    inside: dict[str, dict[str, int]] = {}
    widest = max(shape.hidden_size, shape.intermediate_size, shape.n_heads * shape.head_dim)
    for path, (inputs, _) in adapted.items():
        module, _, name = path.rpartition(".")
        is_last = name in ("o_proj", "down_proj", "out_proj")
        # Experts count as one layer as wide as all of them, see ``loaded_shape``.
        inside.setdefault(module, {})[name if is_last else ""] = min(inputs, widest)
    return sum(sum(widths.values()) for widths in inside.values())


def _recurrence(shape: ModelShape, step: Step, k: Coefficients) -> tuple[float, float]:
    """Bytes that a recurrent block keeps for its backward pass, and those of that pass.

    mlx-lm trains linear attention and Mamba 1 token by token: each token's state is kept, in
    float32, and the gradient of its slice of queries, keys and values is as long as all of them.
    """
    n_values, depth = shape.state
    state = FLOAT32_BYTES * step.n_tokens * n_values * depth
    slices = k.value_bytes * step.n_tokens * step.width * n_values
    passing = max(_STATES_PASSING * state, _SLICES * slices - _STATES_FREED * state)
    return k.recurrent * _STATES * state, k.recurrent * passing


def _scores(shape: ModelShape, step: Step) -> int:
    return step.n_tokens * step.width * shape.n_heads


def _head(shape: ModelShape, step: Step, execution: Execution, k: Coefficients) -> float:
    whole = k.head * step.n_targets * shape.vocabulary
    at_once = execution.tokens_at_once
    if at_once is None or at_once >= step.n_targets:
        return whole
    n_held = min(step.n_targets, k.n_slices * at_once)
    return min(whole, k.head_slice * n_held * shape.vocabulary)
