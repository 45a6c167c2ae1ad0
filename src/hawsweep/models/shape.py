"""A model's shape from its ``config.json`` alone: its parameters, and those that a trial trains.

The numbers are those of the model that mlx-lm builds. MLX is not imported, which takes seconds.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from math import prod
from typing import Any

from hawsweep.errors import ModelError, UnknownArchitectureError
from hawsweep.spec.train import TrainSpec

FLOAT32_BYTES = 4

_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_ATTENTION = (*_QKV, "self_attn.o_proj")
_MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
_FLOAT_BYTES = {"bfloat16": 2, "float16": 2, "float32": FLOAT32_BYTES}
# MLX's defaults of group size and bits, for overrides of single modules without them.
_MODE_DEFAULTS = {"affine": (64, 4), "mxfp4": (32, 4), "mxfp8": (32, 8), "nvfp4": (16, 4)}


@dataclass(frozen=True)
class Quantization:
    """A matrix's quantization: ``bits`` a weight, and a scale for each group."""

    group_size: int
    bits: int
    mode: str = "affine"

    def n_bytes(self, n_weights: int, float_bytes: int) -> int:
        """The bytes of a matrix, whose scales and biases have ``float_bytes`` each."""
        per_group = 2 * float_bytes if self.mode == "affine" else 1
        return n_weights * self.bits // 8 + n_weights // self.group_size * per_group


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a language model as mlx-lm builds it; of a multimodal model, its language part.

    Attributes:
        architecture: ``model_type`` of the config.
        body: Path of the module that has the embeddings, the blocks and the last norm.
        sliding_window: Tokens that the sliding layers look back; None without such layers.
        linears: The linear layers of one block: path inside it to (inputs, outputs).
        vectors: Shapes of one block's other parameters, its biases and norms.
        n_norms: Norms in a block that are as wide as the hidden states.
        has_head_norms: Queries and keys have a norm each.
        norm_size: Parameters of the norm after the blocks.
        float_bytes: Bytes of a parameter that is not quantized.
        quantization: Of every matrix whose width the group size divides; None without.
        overrides: Of single modules, by their path; None for one that is not quantized.
        uncounted_bytes: Weights beyond the sizes above; below 0 if those are too large.
        uncounted_products: The same of ``block_products``: experts are computed by few tokens.
        varied_linears: Of each block, where they are not those of the last; else empty.
        n_recurrent: Blocks with a state that each token changes, as in linear attention.
        state: Its sizes: all heads' values side by side, and numbers of the state for each.
    """

    architecture: str
    body: str
    hidden_size: int
    n_layers: int
    intermediate_size: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocabulary: int
    is_tied: bool
    sliding_window: int | None
    n_sliding_layers: int
    linears: dict[str, tuple[int, int]]
    vectors: tuple[tuple[int, ...], ...]
    n_norms: int
    has_head_norms: bool
    norm_size: int
    float_bytes: int
    quantization: Quantization | None = None
    overrides: dict[str, Quantization | None] = field(default_factory=dict)
    uncounted_bytes: int = 0
    uncounted_products: int = 0
    varied_linears: tuple[dict[str, tuple[int, int]], ...] = ()
    n_recurrent: int = 0
    state: tuple[int, int] = (0, 0)

    @property
    def block_linears(self) -> tuple[dict[str, tuple[int, int]], ...]:
        """The linear layers of each block."""
        return self.varied_linears or (self.linears,) * self.n_layers

    @property
    def block_products(self) -> int:
        """Multiplications of a token with the matrices of a block."""
        return self.uncounted_products + sum(map(prod, self.linears.values()))

    def dequantized(self) -> "ModelShape":
        """The same model with all weights as float32, as a CPU holds it."""
        return replace(self, float_bytes=FLOAT32_BYTES, quantization=None, overrides={})

    def weight_bytes(self) -> int:
        """Bytes of the weights."""
        matrices = self._matrices().items()
        counted = sum(
            self._matrix_bytes(path, width, width * height) for path, (width, height) in matrices
        )
        return self.uncounted_bytes + self.float_bytes * self._n_vector_parameters + counted

    def to_plain(self) -> dict[str, Any]:
        """The shape as plain values; it must have no quantization."""
        return asdict(self)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "ModelShape":
        """A shape from the values of ``to_plain``."""

        def sizes(linears: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
            return {path: (inputs, outputs) for path, (inputs, outputs) in linears.items()}

        own: dict[str, Any] = {
            "linears": sizes(values["linears"]),
            "vectors": tuple(map(tuple, values["vectors"])),
            "varied_linears": tuple(map(sizes, values.get("varied_linears", ()))),
            "state": tuple(values.get("state", (0, 0))),
        }
        return cls(**{**values, **own})

    def adapted_linears(self, train: TrainSpec) -> dict[str, tuple[int, int]]:
        """The layers that LoRA or DoRA adapts: path in the model to (inputs, outputs).

        An embedding named in ``keys`` counts as the head that it is when tied.

        Raises:
            ModelError: The model has fewer blocks, or no such layer as ``keys`` name.
        """
        keys = train.lora_parameters.keys
        blocks = range(self.n_layers - self.n_trained_blocks(train), self.n_layers)
        everywhere = self._matrices()
        inside = {name for block in blocks for name in self.block_linears[block]}
        if unknown := [key for key in keys or () if key not in {*inside, *everywhere}]:
            raise ModelError(
                f"train.lora_parameters.keys {unknown} match no linear layer of the trained "
                "blocks. Name them as they are inside a block, such as self_attn.q_proj."
            )
        adapted = {
            f"{self.body}.layers.{block}.{name}": size
            for block in blocks
            for name, size in self.block_linears[block].items()
            if keys is None or name in keys
        }
        # mlx-lm looks for the keys in the whole model, so they may name its head.
        return {**adapted, **{path: everywhere[path] for path in keys or () if path in everywhere}}

    def trained_parameters(self, train: TrainSpec) -> int:
        """The number of parameters a trial trains: an adapter's in float32, or the blocks' own.

        Raises:
            ModelError: See ``adapted_linears``.
        """
        return sum(map(prod, self._trained_shapes(train)))

    def optimizer_bytes(self, train: TrainSpec) -> int:
        """Bytes of the optimizer's moments, which have their parameters' type.

        Raises:
            ModelError: See ``adapted_linears``.
        """
        each = self.float_bytes if train.fine_tune_type == "full" else FLOAT32_BYTES
        return each * sum(_n_moments(train, shape) for shape in self._trained_shapes(train))

    @property
    def _n_vector_parameters(self) -> int:
        return self.n_layers * sum(map(prod, self.vectors)) + self.norm_size

    def _matrices(self) -> dict[str, tuple[int, int]]:
        """The modules that can be quantized: path in the model to (width, height)."""
        vocabulary = (self.hidden_size, self.vocabulary)
        matrices = {
            f"{self.body}.layers.{block}.{name}": each
            for block, linears in enumerate(self.block_linears)
            for name, each in linears.items()
        }
        matrices[f"{self.body}.embed_tokens"] = vocabulary
        if not self.is_tied:
            matrices[f"{self.body.removesuffix('model')}lm_head"] = vocabulary
        return matrices

    def _matrix_bytes(self, path: str, width: int, n_weights: int) -> int:
        default = self.quantization
        if default is not None and width % default.group_size:
            default = None
        quantization = self.overrides.get(path, default)
        if quantization is None:
            return n_weights * self.float_bytes
        return quantization.n_bytes(n_weights, self.float_bytes)

    def n_trained_blocks(self, train: TrainSpec) -> int:
        """The number of last blocks that a trial trains.

        Raises:
            ModelError: The model has fewer.
        """
        n_trained = train.n_blocks(self.n_layers)
        if n_trained > self.n_layers:
            raise ModelError(
                f"train.num_layers is {train.num_layers}, but the model has {self.n_layers} "
                "blocks. Use that many or fewer, or -1 for all."
            )
        return n_trained

    def _trained_shapes(self, train: TrainSpec) -> Iterator[tuple[int, ...]]:
        if train.fine_tune_type == "full":
            for linears in self.block_linears[self.n_layers - self.n_trained_blocks(train) :]:
                yield from (*linears.values(), *self.vectors)
            return
        rank = train.lora_parameters.rank
        for inputs, outputs in self.adapted_linears(train).values():
            yield from ((inputs, rank), (rank, outputs))
            if train.fine_tune_type == "dora":
                yield (outputs,)


def is_known(architecture: object) -> bool:
    """Whether ``shape_of`` knows models of this ``model_type``."""
    return isinstance(architecture, str) and architecture in _FAMILIES


def shape_of(config: Mapping[str, Any]) -> ModelShape:
    """The shape of the model that a ``config.json`` describes.

    mlx-lm decides by a Gemma 3's weights whether the head is tied. Here ``tie_word_embeddings``
    decides, true by default.

    Raises:
        UnknownArchitectureError: Its architecture is not known here.
        ModelError: A key is missing, or its value makes no sense.
    """
    architecture = _value(config, "model_type")
    if not is_known(architecture):
        raise UnknownArchitectureError(
            f"The memory of a model with model_type {architecture!r} is known only by calibration: "
            "hawsweep plan NAME --calibrate measures it here. From config.json alone it is known "
            f"for {', '.join(sorted(_FAMILIES))}."
        )
    family, is_nested = _FAMILIES[architecture], architecture == "gemma3"
    text = _gemma3_text(config) if is_nested else config
    values = family.read(text)
    default, overrides = _quantization(config)
    hidden, n_heads = _count(values, "hidden_size"), _count(values, "num_attention_heads")
    n_kv_heads = _optional_count(values, "num_key_value_heads") or n_heads
    if n_heads % n_kv_heads:
        raise _bad("num_key_value_heads", n_kv_heads, f"a divisor of num_attention_heads {n_heads}")
    head_dim = _optional_count(values, "head_dim") or hidden // n_heads
    intermediate = _count(values, "intermediate_size")
    linears = family.linears(hidden, intermediate, n_heads * head_dim, n_kv_heads * head_dim)
    n_layers, n_sliding = _layers(values)
    norm_size = hidden * (2 if _flag(values, "layer_norm_bias") else 1)
    return ModelShape(
        architecture=architecture,
        body="language_model.model" if is_nested else "model",
        hidden_size=hidden,
        n_layers=n_layers,
        intermediate_size=intermediate,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        vocabulary=_count(values, "vocab_size"),
        is_tied=_flag(values, "tie_word_embeddings"),
        sliding_window=_count(values, "sliding_window") if n_sliding else None,
        n_sliding_layers=n_sliding,
        linears=linears,
        vectors=(
            *((linears[name][1],) for name in family.biased(values)),
            *family.head_norms(values, n_heads, n_kv_heads, head_dim),
            *((norm_size,),) * family.n_norms,
        ),
        n_norms=family.n_norms,
        has_head_norms=family.has_head_norms or _flag(values, "use_qk_norm"),
        norm_size=norm_size,
        float_bytes=read_float_bytes(config),
        quantization=default,
        overrides=overrides,
    )


@dataclass(frozen=True)
class _Family:
    """A family of models as mlx-lm builds them.

    Attributes:
        optional: Keys that may be missing, with their defaults; None for a default that follows
            from other keys.
        required: Keys that may not be missing, beside ``_REQUIRED``.
        n_norms: Norms in a block that are as wide as the hidden states.
        has_head_norms: Queries and keys have a norm each, shared by the heads.
        has_qkv_bias: Whatever the config says.
        is_fused: Matrices that have the same input are one.
    """

    optional: Mapping[str, Any] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    n_norms: int = 2
    has_head_norms: bool = False
    has_qkv_bias: bool = False
    is_fused: bool = False

    def read(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The config's values with defaults; keys that mlx-lm does not read are ignored."""
        keys = {*_REQUIRED, *self.required, *self.optional}
        return {**_UNREAD, **self.optional, **{k: v for k, v in config.items() if k in keys}}

    def linears(
        self, hidden: int, intermediate: int, q: int, kv: int
    ) -> dict[str, tuple[int, int]]:
        """The linear layers of a block; ``q`` and ``kv`` are the widths of all heads together."""
        if self.is_fused:
            return {
                "self_attn.qkv_proj": (hidden, q + 2 * kv),
                "self_attn.o_proj": (q, hidden),
                "mlp.gate_up_proj": (hidden, 2 * intermediate),
                "mlp.down_proj": (intermediate, hidden),
            }
        sizes = [(hidden, q), (hidden, kv), (hidden, kv), (q, hidden)]
        sizes += [(hidden, intermediate), (hidden, intermediate), (intermediate, hidden)]
        return dict(zip((*_ATTENTION, *_MLP), sizes, strict=True))

    def biased(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """The linear layers that have a bias."""
        return (
            *(_QKV if self.has_qkv_bias else ()),
            *(_ATTENTION if _flag(values, "attention_bias") else ()),
            *(_MLP if _flag(values, "mlp_bias") else ()),
        )

    def head_norms(
        self, values: Mapping[str, Any], n_heads: int, n_kv_heads: int, head_dim: int
    ) -> tuple[tuple[int, ...], ...]:
        """Shapes of the norms of queries and keys."""
        if _flag(values, "use_qk_norm"):
            return (n_heads, head_dim), (n_kv_heads, head_dim)
        return ((head_dim,), (head_dim,)) if self.has_head_norms else ()


_REQUIRED = (
    "hidden_size",
    "num_hidden_layers",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
)
_UNREAD = {
    "head_dim": None,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "mlp_bias": False,
    "layer_norm_bias": False,
    "use_qk_norm": False,
}
_LLAMA = _Family(
    optional={
        "num_key_value_heads": None,
        "head_dim": None,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "layer_types": None,
        "sliding_window": None,
    }
)
_GEMMA3_TEXT = {
    "hidden_size": 1152,
    "num_hidden_layers": 26,
    "intermediate_size": 6912,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "vocab_size": 262144,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "tie_word_embeddings": True,
}
_GEMMA3 = {"num_attention_heads": 8, "num_key_value_heads": 4}
_GEMMA3_VOCABULARY = 262208
_COHERE = {
    "hidden_size": 8192,
    "num_hidden_layers": 40,
    "intermediate_size": 22528,
    "num_attention_heads": 64,
    "num_key_value_heads": 64,
    "vocab_size": 256000,
    "attention_bias": False,
    "layer_norm_bias": False,
    "use_qk_norm": False,
}
_FAMILIES = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "smollm3": _LLAMA,
    "gemma": _Family(required=("head_dim",)),
    "gemma2": _Family(required=("head_dim",), n_norms=4),
    "gemma3": _Family({**_GEMMA3_TEXT, **_GEMMA3}, n_norms=4, has_head_norms=True),
    "gemma3_text": _Family(_GEMMA3_TEXT, n_norms=4, has_head_norms=True),
    "qwen2": _Family({"tie_word_embeddings": True}, has_qkv_bias=True),
    "qwen3": _Family(required=("head_dim", "tie_word_embeddings"), has_head_norms=True),
    "phi3": _Family({"num_key_value_heads": None, "tie_word_embeddings": False}, is_fused=True),
    "cohere": _Family(_COHERE, n_norms=1),
}


def _n_moments(train: TrainSpec, shape: tuple[int, ...]) -> int:
    """The numbers that MLX's optimizer keeps for each parameter."""
    match train.optimizer:
        case "adam" | "adamw":
            return 2 * prod(shape)
        case "sgd" | "muon":  # without momentum too
            return prod(shape)
        case "adafactor":
            options = train.optimizer_config.get("adafactor", {})
            first = prod(shape) if options.get("beta_1") is not None else 0
            return first + (sum(shape) if len(shape) == 2 else prod(shape))


def _gemma3_text(config: Mapping[str, Any]) -> dict[str, Any]:
    text = _value(config, "text_config")
    if not isinstance(text, Mapping):
        raise _bad("text_config", text, "a mapping")
    return {**text, "vocab_size": config.get("vocab_size", _GEMMA3_VOCABULARY)}


def _layers(values: Mapping[str, Any]) -> tuple[int, int]:
    """The number of blocks, and the number of those with a sliding window."""
    n_layers = _count(values, "num_hidden_layers")
    if "sliding_window_pattern" in values:
        return n_layers, n_layers - n_layers // _count(values, "sliding_window_pattern")
    kinds = values.get("layer_types")
    if kinds is None:
        return n_layers, 0
    if not isinstance(kinds, list) or not kinds:
        raise _bad("layer_types", kinds, "a list with a name for each layer")
    return len(kinds), kinds.count("sliding_attention")


def read_float_bytes(config: Mapping[str, Any]) -> int:
    """Bytes of a parameter that is not quantized, by a ``config.json``.

    Raises:
        ModelError: It names a type that is not known here.
    """
    for each in (config, config.get("text_config") or {}):
        for key in ("dtype", "torch_dtype"):
            if (name := each.get(key)) is not None:
                if not isinstance(name, str) or name not in _FLOAT_BYTES:
                    raise _bad(key, name, f"one of {', '.join(_FLOAT_BYTES)}")
                return _FLOAT_BYTES[name]
    return _FLOAT_BYTES["bfloat16"]


def _quantization(
    config: Mapping[str, Any],
) -> tuple[Quantization | None, dict[str, Quantization | None]]:
    """The quantization of all modules, and the overrides of single modules by their path."""
    section = config.get("quantization")
    if section is None:
        foreign = config.get("quantization_config")
        if foreign:
            raise _bad("quantization_config", foreign, "beside quantization, as mlx-lm converts it")
        return None, {}
    if not isinstance(section, Mapping):
        raise _bad("quantization", section, "a mapping")
    default = _read_quantization(section)
    overrides: dict[str, Quantization | None] = {}
    for path, value in section.items():
        if isinstance(value, Mapping):
            mode = str(value.get("mode", "affine"))
            group_size, bits = _MODE_DEFAULTS.get(mode, (None, None))
            own = {"group_size": group_size, "bits": bits, **value}
            overrides[path] = _read_quantization(own)
        elif isinstance(value, bool):
            overrides[path] = default if value else None
    return default, overrides


def _read_quantization(section: Mapping[str, Any]) -> Quantization:
    mode = section.get("mode", "affine")
    if not isinstance(mode, str) or mode not in _MODE_DEFAULTS:
        raise _bad("quantization mode", mode, f"one of {', '.join(_MODE_DEFAULTS)}")
    return Quantization(_count(section, "group_size"), _count(section, "bits"), mode)


def _value(values: Mapping[str, Any], key: str) -> Any:
    if key not in values:
        raise ModelError(f"The model's config.json has no {key}, but must. Complete it.")
    return values[key]


def _count(values: Mapping[str, Any], key: str) -> int:
    value = _value(values, key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _bad(key, value, "a whole number above 0")
    return value


def _optional_count(values: Mapping[str, Any], key: str) -> int | None:
    return None if _value(values, key) is None else _count(values, key)


def _flag(values: Mapping[str, Any], key: str) -> bool:
    value = _value(values, key)
    if not isinstance(value, bool):
        raise _bad(key, value, "true or false")
    return value


def _bad(key: str, value: object, must_be: str) -> ModelError:
    return ModelError(f"{key} is {value!r} in the model's config.json, but must be {must_be}.")
