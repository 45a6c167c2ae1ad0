import json
import resource
from contextlib import nullcontext

from hawsweep.machine.backend import mx, nn

import pytest
import tiny_models
from mlx.utils import tree_flatten
from mlx_lm.utils import load
from tiny_training import EndsAt, assert_same_adapter, run, settings

from hawsweep.errors import ModelError
from hawsweep.study.faults import is_disk_fault
from hawsweep.training.adapters import (
    adapted,
    load_adapter,
    lora_config,
    replace_safetensors,
    replace_text,
)
from hawsweep.training.evaluation import make_evaluator
from hawsweep.training.train import gradient_checkpointing

N_BLOCKS = 3
LINEARS = 7  # q, k, v, o, gate, up, down


@pytest.fixture
def model(tiny_model):
    return tiny_model.model


def logits(model, example):
    return model(mx.array(example.tokens)[None])


def unadapted(model):
    return {name for name, _ in tree_flatten(model.parameters()) if "lora" not in name}


def n_adapted(model):
    return sum(type(module).__name__ == "LoRALinear" for _, module in model.named_modules())


@pytest.mark.parametrize(("num_layers", "blocks"), [(1, 1), (2, 2), (N_BLOCKS, N_BLOCKS), (-1, 3)])
def test_last_blocks_are_adapted_and_nothing_else_is_trainable(model, num_layers, blocks):
    with adapted(model, settings(num_layers=num_layers)):
        assert n_adapted(model) == blocks * LINEARS
        names = [name for name, _ in tree_flatten(model.trainable_parameters())]
        assert all(name.endswith(("lora_a", "lora_b")) for name in names)
        numbers = {int(name.split(".")[2]) for name in names}
    assert numbers == set(range(N_BLOCKS - blocks, N_BLOCKS))


def test_adapter_has_rank_times_width_values(model):
    args = model.args
    kv = args.hidden_size * args.num_key_value_heads // args.num_attention_heads
    hidden, inner = args.hidden_size, args.intermediate_size
    sides = 2 * (hidden + hidden) + 2 * (hidden + kv) + 3 * (hidden + inner)
    with adapted(model, settings(num_layers=2, lora_parameters={"rank": 3})):
        n_values = sum(v.size for _, v in tree_flatten(model.trainable_parameters()))
    assert n_values == 2 * 3 * sides


def test_keys_choose_the_layers(model):
    keys = ["self_attn.q_proj", "mlp.up_proj"]
    with adapted(model, settings(num_layers=-1, lora_parameters={"keys": keys})):
        names = {
            name.rsplit(".", 1)[0].split(".", 3)[3]
            for name, _ in tree_flatten(model.trainable_parameters())
        }
    assert names == set(keys)


def test_layers_are_gone_afterwards_and_the_base_is_bit_identical(model, train_examples, tmp_path):
    before, modules = logits(model, train_examples[0]), dict(model.named_modules())
    mx.eval(before)
    run(model, settings(iters=3, grad_checkpoint=True), train_examples, tmp_path)
    after = dict(model.named_modules())
    assert after.keys() == modules.keys()
    assert all(after[name] is module for name, module in modules.items())
    assert tree_flatten(model.trainable_parameters()) == []
    assert mx.array_equal(logits(model, train_examples[0]), before)


def test_layers_are_gone_after_an_error(model):
    modules = dict(model.named_modules())
    with pytest.raises(ZeroDivisionError), adapted(model, settings()):
        raise ZeroDivisionError
    assert dict(model.named_modules()) == modules


def test_more_blocks_than_the_model_has_are_refused_with_both_numbers(model):
    with pytest.raises(ModelError) as caught, adapted(model, settings(num_layers=4)):
        pass
    message = str(caught.value)
    assert f"num_layers is 4, but the model has {N_BLOCKS} blocks" in message
    assert "or -1 for all" in message
    assert n_adapted(model) == 0


@pytest.mark.parametrize(
    "key",
    [
        "attention.query",
        "q_proj",
        pytest.param("self_attn"),
        pytest.param("input_layernorm"),
    ],
)
def test_keys_that_name_no_linear_layer_are_refused(model, key):
    train = settings(lora_parameters={"keys": [key]})
    with pytest.raises(ModelError) as caught, adapted(model, train):
        pass
    assert f"train.lora_parameters.keys ['{key}']" in str(caught.value)
    assert "such as self_attn.q_proj" in str(caught.value)
    assert n_adapted(model) == 0


def test_config_for_mlx_lm_has_alpha_as_scale():
    keys = ["self_attn.q_proj"]
    train = settings(lora_parameters={"rank": 8, "scale": None, "alpha": 32, "keys": keys})
    assert lora_config(train) == {"rank": 8, "scale": 32 / 8, "dropout": 0.0, "keys": keys}


def test_saved_adapter_gives_the_same_logits_in_mlx_lm(
    model, tiny_model_dir, train_examples, tmp_path
):
    train = settings(iters=3, num_layers=2, lora_parameters={"scale": None, "alpha": 16})
    run(model, train, train_examples, tmp_path)
    with adapted(model, train):
        load_adapter(model, tmp_path / "adapters")
        ours = logits(model, train_examples[0])
    theirs, _ = load(str(tiny_model_dir), adapter_path=str(tmp_path / "adapters"))
    assert mx.allclose(logits(theirs, train_examples[0]), ours, rtol=1e-5, atol=1e-5)
    assert not mx.allclose(logits(model, train_examples[0]), ours, rtol=1e-2, atol=1e-2)
    assert sorted(path.name for path in (tmp_path / "adapters").iterdir()) == [
        "adapter_config.json",
        "adapters.safetensors",
    ]


@pytest.mark.parametrize("num_layers", [1, 2, -1])
def test_dora_trains_a_magnitude_beside_a_and_b(model, num_layers):
    with adapted(model, settings(num_layers=num_layers)):
        lora = [name for name, _ in tree_flatten(model.trainable_parameters())]
    with adapted(model, settings(num_layers=num_layers, fine_tune_type="dora")):
        dora = [name for name, _ in tree_flatten(model.trainable_parameters())]
    layers = {name.removesuffix(".lora_a") for name in lora if name.endswith("lora_a")}
    assert set(dora) == {*lora, *(f"{name}.m" for name in layers)}


@pytest.mark.parametrize(("num_layers", "blocks"), [(1, [2]), (2, [1, 2]), (-1, [0, 1, 2])])
def test_full_fine_tuning_trains_all_of_the_last_blocks_and_nothing_else(model, num_layers, blocks):
    starts = tuple(f"model.layers.{block}." for block in blocks)
    expected = {name for name, _ in tree_flatten(model.parameters()) if name.startswith(starts)}
    with adapted(model, settings(num_layers=num_layers, fine_tune_type="full")):
        assert {name for name, _ in tree_flatten(model.trainable_parameters())} == expected
    assert tree_flatten(model.trainable_parameters()) == []


@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
def test_every_kind_leaves_the_base_and_an_adapter_with_the_same_logits_in_mlx_lm(
    model, kind, tiny_model_dir, train_examples, tmp_path
):
    before = {name: mx.array(value) for name, value in tree_flatten(model.parameters())}
    mx.eval(before)
    train = settings(iters=4, fine_tune_type=kind)
    run(model, train, train_examples, tmp_path)
    after = dict(tree_flatten(model.parameters()))
    assert after.keys() == before.keys()
    assert all(mx.array_equal(after[name], before[name]) for name in before)
    with adapted(model, train):
        load_adapter(model, tmp_path / "adapters")
        ours = logits(model, train_examples[0])
    theirs, _ = load(str(tiny_model_dir), adapter_path=str(tmp_path / "adapters"))
    assert mx.allclose(logits(theirs, train_examples[0]), ours, rtol=1e-5, atol=1e-5)
    assert not mx.allclose(logits(model, train_examples[0]), ours, rtol=1e-2, atol=1e-2)


def test_full_fine_tuning_of_a_quantized_model_is_refused(quantized_dir):
    model, _ = load(str(quantized_dir))
    with pytest.raises(ModelError) as caught, adapted(model, settings(fine_tune_type="full")):
        pass
    assert "train.fine_tune_type is full, but the model's weights are quantized" in str(
        caught.value
    )
    assert "Use lora or dora" in str(caught.value)
    assert tree_flatten(model.trainable_parameters()) == []


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_rank_above_a_layers_width_is_refused_with_layer_width_and_remedy(model, kind):
    narrowest = model.args.hidden_size // 2  # of keys and values
    with adapted(model, settings(fine_tune_type=kind, lora_parameters={"rank": narrowest})):
        pass
    train = settings(fine_tune_type=kind, lora_parameters={"rank": narrowest + 1})
    with pytest.raises(ModelError) as caught, adapted(model, train):
        pass
    message = str(caught.value)
    assert f"rank is {narrowest + 1}, above the width {narrowest} of the layer" in message
    assert "self_attn.k_proj. Use 32 or less" in message or "v_proj. Use 32 or less" in message
    assert "train.lora_parameters.keys" in message
    assert n_adapted(model) == 0


def test_gates_far_narrower_than_other_layers_may_have_a_rank_above_their_width(model):
    """As those of a Qwen3.5's linear attention, which mlx-lm adapts, too."""
    block = nn.Module()
    block.gate, block.wide = nn.Linear(512, 16), nn.Linear(512, 512)
    model.model.layers[0].linear_attn = block
    keys = ["linear_attn.gate", "linear_attn.wide"]
    for rank, raises in ((64, nullcontext()), (513, pytest.raises(ModelError, match="width 512"))):
        train = settings(lora_parameters={"rank": rank, "keys": keys}, num_layers=-1)
        with raises, adapted(model, train):
            assert n_adapted(model) == 2
    del model.model.layers[0]["linear_attn"]


def test_router_beside_experts_does_not_limit_the_rank():
    model = tiny_models.build("mixtral")
    router = model.layers[0].block_sparse_moe.gate
    n_experts, _ = router.weight.shape
    rank = n_experts + 1
    with adapted(model, settings(num_layers=1, lora_parameters={"rank": rank})):
        assert model.layers[-1].block_sparse_moe.gate.lora_b.shape == (rank, n_experts)


def test_dora_of_experts_is_refused_and_of_its_linear_layers_trains(tmp_path):
    model = tiny_models.build("mixtral")
    with pytest.raises(ModelError) as caught, adapted(model, settings(fine_tune_type="dora")):
        pass
    assert "fine_tune_type is dora, but SwitchLinear doesn't support DoRA" in str(caught.value)
    assert "Use lora, or name the linear layers in train.lora_parameters.keys" in str(caught.value)
    assert tree_flatten(model.trainable_parameters()) == []
    lora = {"keys": ["self_attn.q_proj", "self_attn.v_proj"]}
    train = settings(fine_tune_type="dora", lora_parameters=lora)
    trained, _, _ = run(model, train, tiny_models.random_examples(4), tmp_path)
    assert {name.rsplit(".", 1)[1] for name in trained} == {"lora_a", "lora_b", "m"}


def test_quantized_model_trains_and_its_adapter_loads(quantized_dir, train_examples, tmp_path):
    model, _ = load(str(quantized_dir))
    before, names = logits(model, train_examples[0]), unadapted(model)
    mx.eval(before)
    train = settings(iters=20, optimizer="adam", learning_rate=2e-3, steps_per_eval=10)
    _, _, result = run(model, train, train_examples[:4], tmp_path)
    base = make_evaluator(model, train_examples[:4], 4)(0)
    assert result.best.val_loss < base.val_loss - 1
    assert unadapted(model) == names
    assert any(name.endswith("scales") for name in names)
    assert mx.array_equal(logits(model, train_examples[0]), before)
    tuned, _ = load(str(quantized_dir), adapter_path=str(tmp_path / "adapters"))
    again = make_evaluator(tuned, train_examples[:4], 4)(0)
    assert again.val_loss == pytest.approx(result.best.val_loss, rel=1e-6)


def test_checkpointing_is_undone_even_when_training_raises(model, train_examples, tmp_path):
    kind = type(model.layers[0])
    call = kind.__call__
    recorder = EndsAt(1)
    recorder.on_iteration = lambda _: recorder.iterations.append(kind.__call__)
    train = settings(grad_checkpoint=True, steps_per_eval=1)
    with pytest.raises(InterruptedError):
        run(model, train, train_examples, tmp_path, recorder=recorder)
    assert recorder.iterations[0] is not call
    assert kind.__call__ is call


def test_checkpointing_may_be_nested(model):
    kind = type(model.layers[0])
    call = kind.__call__
    with gradient_checkpointing(model), gradient_checkpointing(model):
        pass
    assert kind.__call__ is call


def test_checkpointing_gives_the_same_adapter(model, train_examples, tmp_path):
    train = settings(iters=3, num_layers=2)
    plain, _, _ = run(model, train, train_examples, tmp_path)
    ours, _, _ = run(
        model, train.model_copy(update={"grad_checkpoint": True}), train_examples, tmp_path
    )
    assert_same_adapter(ours, plain, 1e-5)


def test_same_settings_give_the_same_bits_whatever_ran_before(model, train_examples, tmp_path):
    train = settings(iters=5, optimizer="adam", steps_per_eval=2, lora_parameters={"dropout": 0.1})
    other = settings(
        iters=3,
        batch_size=2,
        num_layers=-1,
        seed=5,
        grad_checkpoint=True,
        lora_parameters={"rank": 8, "dropout": 0.3},
    )
    _, first, _ = run(model, train, train_examples, tmp_path / "first")
    run(model, other, train_examples, tmp_path / "other")
    _, second, _ = run(model, train, train_examples, tmp_path / "second")
    assert second.losses == first.losses
    for one, two in zip(first.evaluations, second.evaluations, strict=True):
        assert one[0].val_loss == two[0].val_loss
        assert one[0].example_losses.tolist() == two[0].example_losses.tolist()
    for name in ("adapters.safetensors", "adapter_config.json"):
        files = [
            (tmp_path / which / "adapters" / name).read_bytes() for which in ("first", "second")
        ]
        assert files[0] == files[1]


def test_another_seed_gives_another_adapter(model, train_examples, tmp_path):
    one, _, _ = run(model, settings(seed=1, iters=1), train_examples, tmp_path)
    two, _, _ = run(model, settings(seed=2, iters=1), train_examples, tmp_path)
    assert not any(mx.allclose(one[name], two[name]) for name in one if name.endswith("lora_a"))


def test_text_is_replaced_whole(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("a longer text that was there")
    replace_text(path, json.dumps("ʻō"))
    assert json.loads(path.read_text(encoding="utf-8")) == "ʻō"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("bits", "is_refused"), [(3, True), (4, False), (6, True), (8, False)])
def test_dora_of_bits_that_mlx_lm_miscounts_is_refused(bits, is_refused):
    model = tiny_models.build("llama")
    nn.quantize(model, group_size=tiny_models.GROUP_SIZE, bits=bits)
    said = rf"proj has weights of {bits} bits.* Use lora"
    refused = pytest.raises(ModelError, match=said) if is_refused else nullcontext()
    with refused, adapted(model, settings(fine_tune_type="dora")):
        assert mx.isfinite(model(mx.array([[3, 4, 5]]))).all()
    with adapted(model, settings()):
        assert mx.isfinite(model(mx.array([[3, 4, 5]]))).all()


def test_dora_of_a_quantized_embedding_is_refused():
    model = tiny_models.build("llama", quantized=True)
    keys = ["model.embed_tokens", "self_attn.q_proj"]
    train = settings(fine_tune_type="dora", lora_parameters={"keys": keys})
    said = "embed_tokens has weights of 4 bits"
    with pytest.raises(ModelError, match=said), adapted(model, train):
        pass


def test_disk_without_room_is_said_as_such(tmp_path):
    """MLX raises a RuntimeError without a number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match="No space left") as fault:
            replace_safetensors(tmp_path / "a.safetensors", {"a": mx.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert is_disk_fault(fault.value)
    assert list(tmp_path.iterdir()) == []
