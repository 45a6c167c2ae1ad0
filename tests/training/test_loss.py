"""The loss in slices, with a gradient of its own, is the loss of all logits differentiated."""

from hawsweep.machine.backend import is_cpu, mx, nn

import numpy as np
import pytest
import tiny_models
from mlx.utils import tree_flatten, tree_map
from tiny_models import VOCABULARY, random_examples
from tiny_training import assert_same_adapter, settings

from hawsweep.data.batches import make_batch
from hawsweep.planning.peak import slice_tokens
from hawsweep.training.adapters import adapted
from hawsweep.training.evaluation import batch_arrays
from hawsweep.training.forward import FrozenBlocks
from hawsweep.training.loss import target_losses

# Untied; tied and soft-capped, where the cap bends; tied and scaled; nested.
HEADS = {
    "llama": {},
    "gemma2": {"final_logit_softcapping": 2.0},
    "cohere": {"logit_scale": 2.0},
    "gemma3": {},
}
SLICES = [8, 7, None]  # a multiple, no divisor, none
EXAMPLES = random_examples(3)


@pytest.fixture(params=[False, True], ids=["dense", "4-bit"])
def quantized(request):
    return request.param


@pytest.fixture(params=HEADS)
def model(request, quantized):
    return tiny_models.build(request.param, quantized=quantized, **HEADS[request.param])


def arrays_of(model, examples=EXAMPLES, frozen=None):
    batch = make_batch(examples, range(len(examples)))
    assert batch.n_targets < len(batch.targets)  # some are padding
    return batch_arrays(batch, frozen or FrozenBlocks(model, budget_bytes=0), "train")


def stir(model):
    """Give the adapter values: while its B is 0, its A has no gradient."""
    values = model.trainable_parameters()
    model.update(tree_map(lambda a: a + 0.05 * mx.random.normal(a.shape), values))


def plain_losses(model, arrays):
    """By the model as mlx-lm runs it, for automatic differentiation."""
    inputs, positions, targets, weights, _ = arrays
    logits = model(inputs)
    logits = logits.reshape(-1, logits.shape[-1])[positions].astype(mx.float32)
    return nn.losses.cross_entropy(logits, targets) * weights


def losses_and_gradients(model, losses_of):
    """The losses, and the adapter's gradients where each loss has a factor of its own."""

    def weighted(model):
        losses = losses_of(model)
        return (losses * mx.linspace(0.5, 2.0, losses.size)).sum(), losses

    (_, losses), gradients = nn.value_and_grad(model, weighted)(model)
    mx.eval(losses, gradients)
    return losses, dict(tree_flatten(gradients))


def assert_plain(model, arrays, tolerance, n_frozen=0):
    """Slices give the losses and gradients of automatic differentiation; give the latter."""
    expected, expected_gradients = losses_and_gradients(
        model, lambda model: plain_losses(model, arrays)
    )
    assert all(mx.abs(each).max().item() > 0 for each in expected_gradients.values())
    for tokens_at_once in SLICES:
        losses, gradients = losses_and_gradients(
            model,
            lambda model, n=tokens_at_once: target_losses(
                model, arrays, n_frozen, n, gradient=True
            ),
        )
        undifferentiated = target_losses(model, arrays, n_frozen, tokens_at_once)
        for ours in (losses, undifferentiated):
            assert mx.allclose(ours, expected, rtol=tolerance, atol=tolerance)
        assert_same_adapter(gradients, expected_gradients, tolerance)
    return expected_gradients


def test_slices_give_the_loss_and_gradients_of_automatic_differentiation(model):
    with adapted(model, settings(num_layers=-1)):
        stir(model)
        assert_plain(model, arrays_of(model), 1e-5)


def test_slices_above_frozen_blocks_give_the_same(model):
    frozen = FrozenBlocks(model, budget_bytes=0)
    with adapted(model, settings(num_layers=2)), frozen.in_use():
        assert frozen.n_blocks == 2
        stir(model)
        arrays = arrays_of(model, frozen=frozen)
        assert_plain(model, arrays, 1e-5, n_frozen=2)
        above_nothing = target_losses(model, (*arrays[:4], mx.zeros_like(arrays[4])), 2)
        assert not mx.allclose(above_nothing, target_losses(model, arrays, 2), rtol=1e-2)


def test_gradients_in_bfloat16_are_those_of_automatic_differentiation(quantized):
    model = tiny_models.build("llama", quantized=quantized)
    model.set_dtype(mx.bfloat16)
    with adapted(model, settings(num_layers=2)):
        stir(model)
        assert_plain(model, arrays_of(model), 5e-2)  # a value has 8 bits


@pytest.mark.parametrize(
    ("architecture", "head"), [("llama", "lm_head"), ("gemma2", "model.embed_tokens")]
)
def test_head_that_is_trained_itself_gets_its_gradient(architecture, head, quantized):
    model = tiny_models.build(architecture, quantized=quantized)
    keys = ["self_attn.q_proj", head]
    with adapted(model, settings(num_layers=2, lora_parameters={"keys": keys})):
        stir(model)
        gradients = assert_plain(model, arrays_of(model), 1e-5)
    assert {name for name in gradients if name.startswith(head)} == {
        f"{head}.lora_a",
        f"{head}.lora_b",
    }


@pytest.mark.parametrize("tokens_at_once", SLICES)
def test_padding_gives_exactly_no_gradient_whatever_it_is(model, tokens_at_once):
    with adapted(model, settings()):
        stir(model)
        inputs, positions, targets, weights, states = arrays_of(model)
        other = mx.random.randint(0, VOCABULARY, targets.shape)
        elsewhere = mx.random.randint(0, inputs.size, positions.shape)
        found = [
            losses_and_gradients(
                model,
                lambda model, arrays=arrays: target_losses(
                    model, arrays, 0, tokens_at_once, gradient=True
                ),
            )
            for arrays in (
                (inputs, positions, targets, weights, states),
                (
                    inputs,
                    mx.where(weights == 0, elsewhere, positions),
                    mx.where(weights == 0, other, targets),
                    weights,
                    states,
                ),
                (inputs, positions, targets, mx.zeros_like(weights), states),
            )
        ]
    (losses, gradients), (same_losses, same_gradients), (no_losses, no_gradients) = found
    assert losses[weights.tolist().index(0) :].tolist() == [0] * int((weights == 0).sum().item())
    assert mx.array_equal(losses, same_losses)
    assert all(mx.array_equal(gradients[name], same_gradients[name]) for name in gradients)
    assert not no_losses.any()
    assert not any(gradient.any() for gradient in no_gradients.values())


@pytest.mark.parametrize("largest", [1e2, 1e3, 1e4])
def test_loss_of_very_large_logits_is_right_and_its_gradient_finite(largest):
    model = tiny_models.build("llama")
    arrays = arrays_of(model)
    inputs, positions, targets, weights, _ = arrays
    model.lm_head.weight = model.lm_head.weight * (largest / mx.abs(model(inputs)).max())
    logits = np.array(model(inputs).reshape(-1, VOCABULARY)[positions], np.float64)
    assert np.abs(logits).max() > largest / 2
    by_target = np.take_along_axis(logits, np.array(targets)[:, None], axis=1)
    below = logits - logits.max(axis=1, keepdims=True)
    of_all = logits.max(axis=1) + np.log(np.exp(below).sum(axis=1))
    expected = (of_all - by_target[:, 0]) * np.array(weights)
    with adapted(model, settings()):
        for tokens_at_once in SLICES:
            losses, gradients = losses_and_gradients(
                model,
                lambda model, n=tokens_at_once: target_losses(model, arrays, 0, n, gradient=True),
            )
            assert np.array(losses) == pytest.approx(expected, rel=1e-5, abs=largest * 1e-6)
            assert all(mx.isfinite(gradient).all() for gradient in gradients.values())
        stir(model)
        assert_plain(model, arrays, 1e-4)


@pytest.mark.parametrize("gradient", [True, False])
def test_slices_hold_far_less_than_all_logits(gradient):
    vocabulary = 50_000
    model = tiny_models.build("llama", vocab_size=vocabulary, num_hidden_layers=1)
    with adapted(model, settings(num_layers=1)):
        arrays = arrays_of(model, random_examples(9, longest=128, vocabulary=vocabulary))
        n_targets = len(arrays[2])
        mx.eval(arrays)

        def losses_of(model, tokens_at_once):
            return target_losses(model, arrays, 0, tokens_at_once, gradient=gradient)

        def peak_bytes(tokens_at_once):
            mx.clear_cache()
            mx.reset_peak_memory()
            before = mx.get_active_memory()
            if gradient:
                losses_and_gradients(model, lambda model: losses_of(model, tokens_at_once))
            else:
                mx.eval(losses_of(model, tokens_at_once))
            return mx.get_peak_memory() - before

        whole, sliced = peak_bytes(None), peak_bytes(8)
    logits_bytes = 4 * n_targets * vocabulary
    assert n_targets >= 512
    assert whole > logits_bytes
    assert sliced < whole / 2
    # About 20 slices are under way; an evaluation waits for each, and the head's sums take some.
    assert not is_cpu() or sliced < logits_bytes / (3 if gradient else 12)


@pytest.mark.parametrize("vocabulary", [100, 32_000, 262_144, 524_288, 10**7])
def test_slice_is_the_most_tokens_of_16_mib_of_logits_but_8_at_least(vocabulary):
    n_tokens, most = slice_tokens(vocabulary, "cpu"), 16 * 2**20
    assert n_tokens >= 8
    assert n_tokens == 8 or n_tokens * vocabulary * 4 <= most
    assert (n_tokens + 1) * vocabulary * 4 > most
