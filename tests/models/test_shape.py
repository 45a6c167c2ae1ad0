"""Against mlx-lm's own models, built without their values ever being computed: MLX is lazy, and
knows an array's size before.
"""

import importlib
import json
import os
import subprocess
import sys

from hawsweep.machine.backend import mx, nn

import pytest
import tiny_models
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import MODEL_REMAPPING

from hawsweep.errors import ModelError, UnknownArchitectureError
from hawsweep.models.known_configs import KNOWN_MODELS, find_known
from hawsweep.models.resolve import resolve_model
from hawsweep.models.shape import is_known, shape_of
from hawsweep.spec.train import TrainSpec
from hawsweep.training.adapters import adapted, lora_config
from hawsweep.training.optimizers import make_optimizer

GEMMA3 = "mlx-community/gemma-3-4b-it-4bit"
GEMMA3_TEXT = {"model_type": "gemma3_text"}
# What mlx-lm requires, but no size depends on.
BESIDE = {"rms_norm_eps": 1e-6, "max_position_embeddings": 4096, "rope_theta": 1e4}
PUBLISHED = {
    "smollm2-135m-instruct": 134.5e6,
    GEMMA3: 3.880e9,
    "mlx-community/gemma-2-2b-it-4bit": 2.614e9,
    "meta-llama/Llama-3.2-1B": 1.236e9,
    "meta-llama/Llama-3.2-3B": 3.213e9,
    "meta-llama/Llama-3.1-8B": 8.030e9,
    "microsoft/Phi-3-mini-4k-instruct": 3.821e9,
    "mlx-community/Qwen2.5-7B-Instruct-4bit": 7.616e9,
    "Qwen/Qwen3-4B": 4.022e9,
    "mlx-community/aya-23-8B-4bit": 8.028e9,
    "01-ai/Yi-1.5-6B": 6.061e9,
}
TINY = [name for name in tiny_models.ARCHITECTURES if is_known(name)]
TINY_CHANGES = {
    "llama": [
        {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 2, "head_dim": None},
        {
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "sliding_window": 8,
        },
        {"dtype": "float32", "num_key_value_heads": None},
    ],
    "mistral": [{"tie_word_embeddings": False, "sliding_window": 4096}],
    "gemma": [{"num_key_value_heads": 1, "head_dim": 32}],
    "gemma3_text": [{"sliding_window_pattern": 2, "tie_word_embeddings": True}],
    "qwen2": [{"tie_word_embeddings": False, "num_key_value_heads": 2, "head_dim": 64}],
    "phi3": [{"num_key_value_heads": 2, "tie_word_embeddings": True}, {"head_dim": 64}],
    "cohere": [
        {"use_qk_norm": True, "num_key_value_heads": 2},
        {"layer_norm_bias": True, "attention_bias": True, "tie_word_embeddings": False},
    ],
}


def tiny_config(architecture, **changes):
    base = architecture if architecture in tiny_models.ARCHITECTURES else "llama"
    return {**tiny_models.config_of(base), "model_type": architecture, **changes}


TINY_CONFIGS = [
    *(tiny_config(name) for name in TINY),
    *(tiny_config(name, **each) for name, changes in TINY_CHANGES.items() for each in changes),
]


def in_bits(config, group_size=32, bits=4, **more):
    return {**config, "quantization": {"group_size": group_size, "bits": bits, **more}}


def lazy_model(config):
    """mlx-lm's model with the config's types, and quantized as mlx-lm loads it."""
    config = {**BESIDE, **json.loads(json.dumps(config))}
    name = MODEL_REMAPPING.get(config["model_type"], config["model_type"])
    module = importlib.import_module(f"mlx_lm.models.{name}")
    model = module.Model(module.ModelArgs.from_dict(config))
    if name.startswith("gemma3"):
        getattr(model, "language_model", model).sanitize({})  # weights without a head: it is tied
    model.set_dtype(getattr(mx, config.get("dtype", config.get("torch_dtype", "bfloat16"))))
    if quantization := config.get("quantization"):

        def how(path, module):
            if path in quantization:
                return quantization[path]
            if not hasattr(module, "to_quantized"):
                return False
            return module.weight.shape[-1] % quantization["group_size"] == 0

        sizes = {key: quantization[key] for key in ("group_size", "bits")}
        mode = quantization.get("mode", "affine")
        nn.quantize(model, **sizes, mode=mode, class_predicate=how)
    return model


# Of arrays, only these sizes may stand in an assertion: to show one that failed, pytest would
# compute the values.
def n_bytes(tree):
    return sum(value.nbytes for _, value in tree_flatten(tree))


def n_values(tree):
    return sum(value.size for _, value in tree_flatten(tree))


def assert_same_weights(config):
    shape = shape_of(config)
    dense = lazy_model({key: value for key, value in config.items() if key != "quantization"})
    n_parameters = n_values(dense.parameters())
    held = n_bytes(lazy_model(config).parameters())
    assert shape.dequantized().weight_bytes() == 4 * n_parameters
    assert shape.weight_bytes() == held
    cache = dense.make_cache() if hasattr(dense, "make_cache") else []
    windows = [entry.max_size for entry in cache if hasattr(entry, "max_size")]
    assert shape.n_sliding_layers == len(windows)
    assert {shape.sliding_window} == (set(windows) or {None})


def trains(**lora):
    return [
        TrainSpec(fine_tune_type=kind, num_layers=n_layers, lora_parameters={"rank": 4, **lora})
        for kind in ("lora", "dora")
        for n_layers in (-1, 3)
    ]


def adapted_lazily(config, train):
    model = lazy_model(config)
    model.freeze()
    use_dora = train.fine_tune_type == "dora"
    linear_to_lora_layers(model, train.num_layers, lora_config(train), use_dora=use_dora)
    return model


def assert_same_trained(config, train):
    trained = n_values(adapted_lazily(config, train).trainable_parameters())
    assert shape_of(config).trained_parameters(train) == trained


def moments_bytes(train, parameters):
    """Of a real optimizer: what it keeps beside its step and its rate."""
    optimizer = make_optimizer(train)
    optimizer.init(parameters)
    states = optimizer.state.get("states", [optimizer.state])
    own = ("step", "learning_rate")
    return sum(n_bytes({k: v for k, v in state.items() if k not in own}) for state in states)


FAMILIES = [name for name, config in KNOWN_MODELS.items() if is_known(config["model_type"])]


@pytest.mark.parametrize("name", FAMILIES)
def test_known_model_is_as_mlx_lm_builds_it(name):
    assert_same_weights(KNOWN_MODELS[name])
    assert_same_weights(in_bits(KNOWN_MODELS[name], 64, 8))


@pytest.mark.parametrize("name", FAMILIES)
def test_known_model_trains_what_mlx_lm_trains(name):
    attention = shape_of(KNOWN_MODELS[name]).linears
    keys = [key for key in attention if key.endswith(("q_proj", "v_proj", "qkv_proj"))]
    for train in (*trains(), *trains(keys=keys)):
        assert_same_trained(KNOWN_MODELS[name], train)


@pytest.mark.parametrize(("name", "n_parameters"), PUBLISHED.items())
def test_known_model_has_the_published_size(name, n_parameters):
    in_float32 = shape_of(KNOWN_MODELS[name]).dequantized()
    assert in_float32.weight_bytes() / 4 == pytest.approx(n_parameters, rel=1e-3)


@pytest.mark.parametrize("config", TINY_CONFIGS, ids=lambda config: config["model_type"])
def test_any_config_of_a_family_is_as_mlx_lm_builds_it(config):
    assert_same_weights(config)
    assert_same_weights(in_bits(config))
    for train in trains():
        assert_same_trained(in_bits(config), train)


def test_only_what_the_group_size_divides_is_quantized():
    assert_same_weights(in_bits(tiny_config("llama", intermediate_size=96), group_size=64))


@pytest.mark.parametrize("mode", [("mxfp4", 32, 4), ("mxfp8", 32, 8), ("nvfp4", 16, 4)])
def test_modes_without_biases(mode):
    name, group_size, bits = mode
    assert_same_weights(in_bits(tiny_config("llama"), group_size, bits, mode=name))


@pytest.mark.parametrize(("architecture", "body"), [("llama", ""), ("gemma3", "language_model.")])
def test_modules_may_be_quantized_otherwise_or_not(architecture, body):
    overrides = {
        f"{body}model.embed_tokens": {"group_size": 32, "bits": 8},
        f"{body}model.layers.0.mlp.up_proj": {"group_size": 32, "bits": 6},
        f"{body}model.layers.1.self_attn.q_proj": False,
        f"{body}model.layers.2.self_attn.q_proj": True,
        f"{body}model.layers.3.self_attn.o_proj": {"mode": "mxfp8"},
    }
    plain = in_bits(tiny_config(architecture))
    config = in_bits(tiny_config(architecture), **overrides)
    assert_same_weights(config)
    assert shape_of(config).weight_bytes() > shape_of(plain).weight_bytes()


def test_gemma3_takes_what_its_config_leaves_out_from_mlx_lm():
    shape = shape_of(KNOWN_MODELS[GEMMA3])
    assert (shape.n_heads, shape.n_kv_heads, shape.head_dim) == (8, 4, 256)
    assert (shape.vocabulary, shape.sliding_window, shape.n_sliding_layers) == (262208, 1024, 29)
    assert_same_weights({"model_type": "gemma3", "text_config": GEMMA3_TEXT})
    assert_same_weights({"model_type": "gemma3", "vocab_size": 1000, "text_config": GEMMA3_TEXT})


def test_what_a_run_was_measured_to_train():
    keys = ("self_attn.q_proj", "self_attn.v_proj")
    train = TrainSpec(num_layers=16, lora_parameters={"rank": 8, "keys": keys})
    shape = shape_of(KNOWN_MODELS[GEMMA3])
    assert shape.trained_parameters(train) == 1_048_576
    adapted = shape.adapted_linears(train)
    assert len(adapted) == 32
    assert adapted["language_model.model.layers.33.self_attn.q_proj"] == (2560, 2048)
    assert "language_model.model.layers.17.self_attn.q_proj" not in adapted


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_keys_may_name_layers_outside_of_the_blocks(kind):
    keys = ("lm_head", "model.embed_tokens", "model.layers.0.mlp.up_proj", "mlp.down_proj")
    config = tiny_config("llama")
    lora = {"rank": 4, "keys": keys}
    train = TrainSpec(fine_tune_type=kind, num_layers=2, lora_parameters=lora)
    assert_same_trained(config, train)


@pytest.mark.parametrize("n_layers", [2, -1])
@pytest.mark.parametrize("architecture", TINY)
def test_full_fine_tuning_trains_the_blocks(architecture, n_layers):
    config = tiny_config(architecture)
    train = TrainSpec(fine_tune_type="full", num_layers=n_layers)
    model = lazy_model(config)
    with adapted(model, train):
        trained = model.trainable_parameters()
        n_trained, moments = n_values(trained), moments_bytes(train, trained)
    assert shape_of(config).trained_parameters(train) == n_trained
    assert shape_of(config).optimizer_bytes(train) == moments


OPTIMIZERS = [
    ("adam", {}),
    ("adam", {"bias_correction": True}),
    ("adamw", {}),
    ("sgd", {}),
    ("sgd", {"momentum": 0.9}),
    ("adafactor", {}),
    ("adafactor", {"beta_1": 0.9}),
    ("muon", {}),
]


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS)
@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
def test_optimizer_keeps_what_mlx_allocates(kind, name, options):
    settings = {"optimizer": name, "optimizer_config": {name: options}}
    train = TrainSpec(fine_tune_type=kind, num_layers=4, **settings)
    for config in (find_known("gemma-3-4b-it"), find_known("Qwen2.5-7B")):
        if kind == "full":
            model = lazy_model(config)
            model.freeze()
            for block in model.layers[-4:]:
                block.unfreeze()
        else:
            model = adapted_lazily(config, train)
        held = moments_bytes(train, model.trainable_parameters())
        model.set_dtype(mx.float32)
        dequantized = moments_bytes(train, model.trainable_parameters())
        assert shape_of(config).optimizer_bytes(train) == held
        assert shape_of(config).dequantized().optimizer_bytes(train) == dequantized


def test_optimizer_of_its_own_for_b_keeps_no_more():
    train = TrainSpec(lora_parameters={"loraplus_lr_ratio": 4}, num_layers=3)
    trained = adapted_lazily(tiny_config("llama"), train).trainable_parameters()
    moments = moments_bytes(train, trained)
    assert shape_of(tiny_config("llama")).optimizer_bytes(train) == moments


@pytest.mark.parametrize("place", ["dtype", "torch_dtype"])
@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("float16", 2), ("bfloat16", 2)])
def test_type_of_the_weights_may_be_nested(place, dtype, size):
    config = tiny_config("gemma3")
    assert shape_of({**config, place: dtype}).float_bytes == size
    config["text_config"][place] = dtype
    assert shape_of(config).float_bytes == size


def test_bundled_model_is_as_it_is_converted():
    name = "smollm2-135m-instruct"
    folder = resolve_model(name)
    shape = shape_of(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    assert shape == shape_of(KNOWN_MODELS[name])
    stored = n_bytes(mx.load(str(folder / "model.safetensors")))
    assert shape.weight_bytes() == stored


@pytest.mark.parametrize(
    ("reference", "name", "quantization"),
    [
        ("mlx-community/Llama-3.2-1B-Instruct-4bit", "meta-llama/Llama-3.2-1B", (64, 4)),
        ("mlx-community/Meta-Llama-3.1-8B-Instruct-8bit", "meta-llama/Llama-3.1-8B", (64, 8)),
        ("MLX-community/PHI-3-mini-4k-instruct-4bit", "microsoft/Phi-3-mini-4k-instruct", (64, 4)),
        ("mlx-community/Qwen3-4B-bf16", "Qwen/Qwen3-4B", None),
        ("mlx-community/gemma-3-4b-it-bf16", GEMMA3, None),
        ("mlx-community/gemma-3-4b-it-8bit", GEMMA3, (64, 8)),
        ("mlx-community/gemma-3-4b-it-qat-4bit", GEMMA3, (64, 4)),
        ("google/gemma-3-4b-pt", GEMMA3, None),
        ("gemma-3-4b-it-4bit", GEMMA3, (64, 4)),
        ("mlx-community/gemma-3-12b-it-4bit", "mlx-community/gemma-3-12b-it-4bit", (64, 4)),
        ("mlx-community/Meta-Llama-3-8B-Instruct-4bit", "meta-llama/Meta-Llama-3-8B", (64, 4)),
        ("HuggingFaceTB/SmolLM3-3B", "HuggingFaceTB/SmolLM3-3B", None),
        ("Yi-1.5-6B-Chat-4bit", "01-ai/Yi-1.5-6B", (64, 4)),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2-135m-instruct", None),
    ],
)
def test_known_model_is_found_by_its_name(reference, name, quantization):
    found, known = shape_of(find_known(reference)), shape_of(KNOWN_MODELS[name])
    assert found.dequantized().weight_bytes() == known.dequantized().weight_bytes()
    assert found.float_bytes == 2
    of = found.quantization
    assert (of and (of.group_size, of.bits)) == quantization


@pytest.mark.parametrize("name", KNOWN_MODELS)
def test_known_model_is_found_to_the_letter(name):
    assert find_known(name) == find_known(f"{name}@main") == KNOWN_MODELS[name]


@pytest.mark.parametrize("name", ["", "gemma", "mlx-community/gemma-9-12b-it-4bit", "-4bit"])
def test_other_names_are_not_known(name):
    assert find_known(name) is None


@pytest.mark.parametrize("architecture", ["mixtral", "mamba", None, ["llama"]])
def test_unknown_architecture_is_named(architecture):
    with pytest.raises(UnknownArchitectureError) as raised:
        shape_of(tiny_config("llama", model_type=architecture))
    message = str(raised.value)
    assert repr(architecture) in message
    assert "calibration" in message
    assert "cohere, gemma, gemma2, gemma3, gemma3_text, llama, mistral, phi3" in message


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"hidden_size": -1}, "hidden_size is -1"),
        ({"hidden_size": 32.5}, "hidden_size is 32.5"),
        ({"num_hidden_layers": "four"}, "num_hidden_layers is 'four'"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"num_key_value_heads": 3}, "num_key_value_heads is 3"),
        ({"vocab_size": None}, "vocab_size is None"),
        ({"head_dim": True}, "head_dim is True"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'"),
        ({"layer_types": "full"}, "layer_types is 'full'"),
        ({"layer_types": ["sliding_attention"]}, "sliding_window is None"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"torch_dtype": ["float32"]}, "torch_dtype is"),
        ({"quantization": 4}, "quantization is 4"),
        ({"quantization": {"bits": 4}}, "no group_size"),
        ({"quantization": {"group_size": 64, "bits": -4}}, "bits is -4"),
        ({"quantization": {"group_size": 64, "bits": 4, "mode": "odd"}}, "mode is 'odd'"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization_config is"),
        ({"model_type": "gemma3"}, "no text_config"),
        ({"model_type": "gemma3", "text_config": 3}, "text_config is 3"),
    ],
)
def test_bad_config_is_named_by_key_and_value(changes, key):
    with pytest.raises(ModelError, match=key):
        shape_of(tiny_config("llama", **changes))


@pytest.mark.parametrize("key", ["hidden_size", "vocab_size", "model_type"])
def test_missing_key_is_named(key):
    config = tiny_config("llama")
    del config[key]
    with pytest.raises(ModelError, match=f"no {key}"):
        shape_of(config)


def test_what_training_would_refuse_is_refused():
    shape = shape_of(tiny_config("llama"))
    with pytest.raises(ModelError, match=r"num_layers is 5.* 4 blocks"):
        shape.trained_parameters(TrainSpec(fine_tune_type="full", num_layers=5))
    with pytest.raises(ModelError, match="num_layers is 5"):
        shape.adapted_linears(TrainSpec(num_layers=5))
    lora = {"keys": ("self_attn.q_proj", "mlp.gate")}
    with pytest.raises(ModelError, match=r"\['mlp.gate'\] match no"):
        shape.optimizer_bytes(TrainSpec(num_layers=2, lora_parameters=lora))


def test_a_shape_needs_no_mlx():
    program = (
        "import sys\n"
        "from hawsweep.models.known_configs import KNOWN_MODELS\n"
        "from hawsweep.models.shape import is_known, shape_of\n"
        "from hawsweep.spec.train import TrainSpec\n"
        "for config in (each for each in KNOWN_MODELS.values() if is_known(each['model_type'])):\n"
        "    shape_of(config).weight_bytes()\n"
        "    shape_of(config).optimizer_bytes(TrainSpec())\n"
        "print(sorted({'mlx', 'mlx_lm', 'numpy', 'torch', 'transformers'} & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", program]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
