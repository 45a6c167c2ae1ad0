"""What mlx-lm's trainer does and this one does not, and the test that pins each.

 1. It drops the callback it is given: test_train::test_run_ended_by_its_callback_leaves_the_best_adapter
 2. Only one of its entries seeds numpy: test_adapters::test_same_settings_give_the_same_bits_whatever_ran_before,
    test_mlx_lm_traps::test_run_neither_uses_nor_disturbs_numpys_global_generator
 3. Evaluations draw random batches and drop examples: test_train::test_validation_loss_does_not_depend_on_its_batch_size,
    test_train::test_evaluating_more_often_does_not_change_training
 4. They come before the update they are named after: test_train::test_run_ended_by_its_callback_leaves_the_best_adapter
 5. The base is evaluated again in each run: test_train::test_evaluations_come_at_their_steps_and_at_the_end
 6. Gradient checkpointing stays on: test_adapters::test_checkpointing_is_undone_even_when_training_raises
 7. Peak memory is of the process: test_mlx_lm_traps::test_peak_memory_is_of_each_run_alone
 8. Only the last adapter is kept: test_train::test_adapter_kept_is_that_of_the_best_evaluation,
    test_train::test_patience_ends_the_run_after_so_many_evaluations_without_improvement,
    test_checkpoints::test_resumed_run_ends_as_one_that_was_not_interrupted
 9. Scale is not alpha / rank: test_sweep::test_alpha_sets_scale_relative_to_rank
10. Accumulation is a mean of means and drops what is left over: test_train::test_updates_are_gradient_descent_weighted_by_tokens
11. Zero layers are all layers: test_read::test_value_that_cannot_be_is_refused_with_what_may_be
12. Fusing may drop the adapter: test_end_to_end::test_export_fused_translates_as_the_trial_did
13. Out of memory ends the process: test_end_to_end::test_worker_killed_costs_its_trial_only
14. PyYAML reads 1e-5 as text: test_read::test_number_with_exponent_is_a_float
"""  # noqa: E501

import re
from pathlib import Path

import numpy as np
import tiny_models
from tiny_training import run, settings


def test_each_trap_has_its_test():
    traps = re.split(r"\n *(?=\d+\. )", __doc__)[1:]
    assert [int(trap.split(".")[0]) for trap in traps] == list(range(1, 15))
    for trap in traps:
        named = re.findall(r"(\w+)::(\w+)", trap)
        assert named, trap
        for file, test in named:
            (path,) = Path(__file__).parents[1].rglob(f"{file}.py")
            text = path.read_text(encoding="utf-8")
            assert f"def {test}(" in text


def test_run_neither_uses_nor_disturbs_numpys_global_generator(tmp_path):
    model, examples = tiny_models.build("llama"), tiny_models.random_examples(8)
    train = settings(steps_per_eval=2, lora_parameters={"dropout": 0.2})
    losses = []
    before = np.random.get_state()
    try:
        for seed in (1, 2):
            np.random.seed(seed)
            expected = np.random.RandomState(seed).random_sample(3)
            losses.append(run(model, train, examples, tmp_path)[1].losses)
            assert np.random.random_sample(3).tolist() == expected.tolist()
    finally:
        np.random.set_state(before)
    assert losses[0] == losses[1]


def test_peak_memory_is_of_each_run_alone(tmp_path):
    model = tiny_models.build("llama")
    large, small = (tiny_models.random_examples(8, longest=n) for n in (600, 20))
    peaks = []
    for examples in (small, large, small):
        _, recorder, result = run(model, settings(iters=2), examples, tmp_path)
        assert recorder.reports[-1].peak_memory_bytes <= result.peak_memory_bytes
        peaks.append(result.peak_memory_bytes)
    first, largest, last = peaks
    assert largest > 2 * first
    assert last < largest / 2
