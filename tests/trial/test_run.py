"""Trials of the tiny model, from the spec to their files; outputs are judged by a fake scorer."""

import json
import shutil

import numpy as np
import optuna
import pytest
import yaml
from trial_bench import FixedScorer, Sweep

from hawsweep.data.batches import lengths_of, padded_width
from hawsweep.data.load import load_data
from hawsweep.errors import DataError, HawsweepError, ModelError
from hawsweep.layout import STATE_FILE
from hawsweep.models.config_file import read_config
from hawsweep.models.shape import shape_of
from hawsweep.planning.calibration import uncalibrated
from hawsweep.planning.peak import Execution
from hawsweep.results.leaderboard import trial_row
from hawsweep.running.steer import stop_trial
from hawsweep.training.evaluation import make_evaluator
from hawsweep.trial.context import make_context
from hawsweep.trial.measure_base import measure_base


def without_times(metrics):
    return [
        {k: v for k, v in line.items() if not k.endswith(("_per_s", "time_s", "_bytes"))}
        for line in metrics
    ]


def adapter_of(folder):
    return (folder / "adapters" / "adapters.safetensors").read_bytes()


def has_state(folder):
    return (folder / STATE_FILE).is_file()


def stop_after(n_iterations):
    calls = iter(range(1, 1000))
    return lambda: next(calls) > n_iterations


def test_record_refused_in_the_test_split_alone_is_named_before_training(
    tiny_model, chat_data_dir, tmp_path
):
    data = tmp_path / "data"
    shutil.copytree(chat_data_dir, data)
    with (data / "test.jsonl").open("a") as file:
        file.write('{"text": "Aloha"}\n')
    with pytest.raises(
        DataError, match=rf"{data}/test\.jsonl:9 is plain text, which has no prompt"
    ):
        Sweep(tiny_model, data, tmp_path / "studies", train={"mask_prompt": True})


def test_trial_writes_what_the_readme_says(sweep):
    trial, folder, metrics = sweep().run()
    reports = [line for line in metrics if line["type"] == "train"]
    evaluations = [line for line in metrics if line["type"] == "eval"]
    assert [line["iteration"] for line in reports] == [2, 4, 6, 8]
    assert [line["iteration"] for line in evaluations] == [4, 8]
    for key in ("update", "train_loss", "learning_rate", "grad_norm", "tokens_per_s"):
        assert all(line[key] > 0 for line in reports)
    assert all(line["padding_ratio"] >= 1 for line in reports)
    assert [line["perplexity"] for line in evaluations] == [
        pytest.approx(np.exp(line["val_loss"])) for line in evaluations
    ]
    assert trial.intermediate_values == {
        line["iteration"]: -line["val_loss"] for line in evaluations
    }
    row = trial_row(trial)
    assert row.val_loss == min(line["val_loss"] for line in evaluations)
    losses = np.load(folder / "valid_losses.npy")
    assert losses.shape == (8,)
    assert yaml.safe_load((folder / "config.yaml").read_text())["lora_parameters"]["rank"] == 4


def test_config_says_what_mlx_lm_cannot(sweep):
    _, folder, _ = sweep(train={"max_grad_norm": 0.5}).run()
    first = (folder / "config.yaml").read_text().splitlines()[0]
    assert first == "# mlx_lm.lora has no key for: max_grad_norm: 0.5"


@pytest.mark.parametrize("stopped_at", [0, 1, 3, 4, 7])
def test_interrupted_trial_tried_again_ends_as_one_that_was_not(sweep, stopped_at):
    _, whole_dir, whole = sweep().run()
    parts = sweep()
    parts.context.should_stop = stop_after(stopped_at)
    first, first_dir, _ = parts.run()
    assert first.state == optuna.trial.TrialState.FAIL
    parts.context.should_stop = lambda: False
    trial, folder, metrics = parts.run()
    assert trial.user_attrs["continues"] == {"trial": 0, "iteration": stopped_at + 1}
    assert without_times(metrics) == without_times(whole)
    assert adapter_of(folder) == adapter_of(whole_dir)
    assert (folder / "valid_losses.npy").read_bytes() == (
        whole_dir / "valid_losses.npy"
    ).read_bytes()
    assert trial.intermediate_values.keys() == {4, 8}
    assert not has_state(first_dir)


def test_trial_with_more_iterations_goes_on_from_the_shorter(sweep):
    _, whole_dir, whole = sweep().run(iters=12)
    parts = sweep()
    _, shorter_dir, _ = parts.run(iters=8)
    trial, folder, metrics = parts.run(iters=12)
    assert trial.user_attrs["continues"] == {"trial": 0, "iteration": 8}
    assert without_times(metrics) == without_times(whole)
    assert adapter_of(folder) == adapter_of(whole_dir)
    assert has_state(shorter_dir)


def test_trial_with_other_settings_starts_anew(sweep):
    both = sweep()
    both.run()
    trial, _, metrics = both.run(learning_rate=2e-3)
    assert "continues" not in trial.user_attrs
    assert metrics[0]["iteration"] == 2


def test_state_is_removed_where_no_trial_can_go_on_from_it(sweep):
    _, folder, _ = sweep(search={"iters": {"choices": [6]}}).run(iters=6)
    assert not has_state(folder)


def test_trial_numbers_do_not_depend_on_what_ran_before(sweep):
    first = sweep()
    _, _, expected = first.run()
    for settings in ({"learning_rate": 5e-3}, {"lora_parameters.rank": 2}, {"iters": 12}):
        first.run(**settings)
    other = sweep(train={"grad_checkpoint": True})
    _, _, checkpointed = other.run()
    last = sweep()
    for settings in ({"learning_rate": 5e-3}, {"lora_parameters.rank": 2}, {"iters": 12}):
        last.run(**settings)
    last.run(learning_rate=3e-3)
    _, _, fifth = last.run()
    assert without_times(fifth) == without_times(expected)
    for one, two in zip(checkpointed, expected, strict=True):
        key = "train_loss" if one["type"] == "train" else "val_loss"
        assert one[key] == pytest.approx(two[key], rel=1e-5)


def test_patience_ends_a_trial_as_complete_and_says_where(sweep):
    made = sweep(train={"early_stopping_patience": 1, "early_stopping_threshold": 100.0})
    trial, _, metrics = made.run(iters=12)
    assert trial.state == optuna.trial.TrialState.COMPLETE
    assert metrics[-1]["iteration"] == 8
    assert trial.user_attrs["reason"] == "stopped at iteration 8: no improvement in 1 evaluation"


def test_state_left_in_the_folder_by_an_earlier_study_is_not_used(sweep):
    made = sweep()
    made.context.should_stop = stop_after(5)
    _, folder, _ = made.run()
    left = made.place.trial_dir("tiny", 1)
    left.mkdir()
    shutil.move(folder / "state.safetensors", left / "state.safetensors")
    made.context.should_stop = lambda: False
    trial, _, metrics = made.run()
    assert "continues" not in trial.user_attrs
    assert metrics[0]["iteration"] == 2


def test_base_is_measured_as_trials_are(sweep, tmp_path):
    made = sweep()
    measured = measure_base(made.context, tmp_path / "base")
    base = measured["base"]
    assert base["val_loss"] == made.context.evaluator()(0).val_loss
    assert base["perplexity"] == pytest.approx(np.exp(base["val_loss"]))
    assert base["score"] == 0.5
    assert base["reference_perplexity"] > 1
    assert set(base["signatures"]) == {"chrf", "bleu"}
    assert measured["self_check"]["ceiling"] == 1
    assert measured["self_check"]["floor"] < 0.5


@pytest.mark.parametrize("n_valid", [5, 8])
def test_perplexity_of_the_references_is_the_evaluations_where_it_has_them(sweep, n_valid):
    made = sweep(validation={"max_examples": n_valid}, scoring={"max_examples": 5})
    evaluation = made.context.evaluator()(0)
    known = made.context.reference_perplexity(evaluation)
    assert made.context.prompts_in_valid is not None
    made.context.prompts_in_valid = None
    assert known == pytest.approx(made.context.reference_perplexity(evaluation), rel=1e-5)


def test_perplexity_of_the_references_is_measured_where_the_evaluation_is_of_others(sweep):
    few = sweep(validation={"max_examples": 4}, scoring={"max_examples": 5}).context
    whole = sweep(train={"mask_prompt": False}).context
    assert few.prompts_in_valid is None
    assert whole.prompts_in_valid is None


def test_base_is_shown_as_many_examples_as_fit(sweep, tmp_path):
    made = sweep(scoring={"prompt": {"examples": 3}}, train={"max_seq_length": 512})
    measured = measure_base(made.context, tmp_path / "base")
    assert measured["few_shot"]["n_examples"] == 3
    plain, shown = made.context.scorer.asked[-2:]
    train = [record.messages for record in load_data(made.spec.data).train]
    for before, after in zip(plain, shown, strict=True):
        assert after.messages[-2:] == before.messages[-2:]
        assert after.reference == before.reference
        examples = after.messages[len(after.messages) - 2 - 6 : -2]
        assert all(examples[at : at + 2] in [each[-2:] for each in train] for at in (0, 2, 4))
    assert (tmp_path / "base" / "few_shot_samples.jsonl").exists()
    short = sweep(scoring={"prompt": {"examples": 3}}, train={"max_seq_length": 48})
    assert all(len(each.examples) < 3 for each in short.context.prompts)
    none = sweep(scoring={"prompt": {"examples": 0}})
    assert "few_shot" not in measure_base(none.context, tmp_path / "none")


def test_curriculum_by_place_takes_the_records_in_their_order(sweep):
    train = {"order": "curriculum", "difficulty": "place", "batch_size": 2, "iters": 12}
    train["augment"] = {"name": "diacritics", "share": 1.0}
    made = sweep(train=train)
    augmented, examples = made.context.augmented, made.context.train
    assert made.context.difficulty.tolist() == augmented.origins[examples.record_indices].tolist()
    check_order(made)


def check_order(made):
    order = made.context.order(made.spec.train)
    means = [np.mean(made.context.difficulty[list(next(order))]) for _ in range(12)]
    assert means == sorted(means)
    assert means[-1] > means[0]


def test_place_in_a_file_that_is_split_here_is_its_line(sweep, tmp_path):
    rows = "".join(f"He puke nui kēia {n}.,This is big book {n}.\n" for n in range(60))
    (tmp_path / "pairs.csv").write_text(f"haw,en\n{rows}", encoding="utf-8")
    train = {"order": "curriculum", "difficulty": "place", "batch_size": 2, "iters": 12}
    made = sweep(tmp_path / "pairs.csv", train=train)
    records = load_data(made.spec.data).train
    rank = np.argsort([int(each.where.rsplit(":", 1)[1]) for each in records]).argsort()
    assert made.context.difficulty.tolist() == rank.tolist()
    assert rank.tolist() != sorted(rank.tolist())
    check_order(made)


def test_curriculum_by_base_loss_measures_the_training_examples_once(sweep, tiny_model):
    train = {"order": "curriculum", "difficulty": "base_loss"}
    made = sweep(train=train)
    examples = made.context.train.examples
    losses = make_evaluator(tiny_model.model, examples, 1)(0).example_losses
    assert made.context.difficulty == pytest.approx(losses, rel=1e-4)
    order = [next(batches) for batches in [made.context.order(made.spec.train)] for _ in range(6)]
    means = [np.mean(losses[list(batch)]) for batch in order]
    assert means == sorted(means)
    (known,) = made.base_dir.glob("train_losses-*.npy")
    np.save(known, np.arange(24, dtype=np.float32))
    splits = load_data(made.spec.data)
    again = make_context(
        made.spec, tiny_model, splits, FixedScorer(), made.context.mlx_data_dir, made.base_dir
    )
    assert again.difficulty.tolist() == list(range(24))
    others = sweep(train={**train, "mask_prompt": False})  # other losses, a file of their own
    (new,) = others.base_dir.glob("train_losses-*.npy")
    assert new.name != known.name


def test_weights_of_data_sets_reach_the_order(sweep, chat_data_dir):
    made = sweep(data=[str(chat_data_dir), {"path": str(chat_data_dir), "weight": 2}])
    batches = made.context.order(made.spec.train)
    seen = np.bincount([i for _ in range(18) for i in next(batches)], minlength=48)
    assert seen.tolist() == [1] * 24 + [2] * 24


def test_validation_set_is_chosen_by_cost_and_evaluated_in_batches_training_affords(
    sweep, chat_data_dir
):
    # The shortest trial is evaluated once, at its end: 8 iterations pay for it, not 200.
    made = sweep(data=[str(chat_data_dir)] * 3, train={"batch_size": 2, "steps_per_eval": 200})
    n_there = len(load_data(made.spec.data).valid)
    assert len(made.context.valid) == 16 < n_there  # the least that is worth measuring
    assert made.context.evaluation_tokens == 4 * 2 * made.context.train.examples.lengths.max()
    asked = sweep(data=[str(chat_data_dir)] * 3, validation={"max_examples": 20})
    assert len(asked.context.valid) == 20


def test_asked_validation_batch_goes_by_the_validation_set_and_memory(sweep, tiny_model_dir):
    context = sweep(validation={"batch_size": 8}).context
    context.memory = uncalibrated(shape_of(read_config(tiny_model_dir)), "cpu")
    context.budget_bytes = 1e12
    context.cut(48)  # of training examples, not of those for validation
    width = padded_width(int(lengths_of(context.valid).max()) - 1)
    assert width > padded_width(48 - 1)
    execution = Execution(1, False, 64)
    context.limit_evaluation(execution)
    assert context.evaluation_tokens == 8 * width
    context.budget_bytes = 1.0
    context.limit_evaluation(execution)
    assert context.evaluation_tokens == width


def test_asked_validation_batch_is_smaller_where_memory_has_no_room(sweep):
    context = sweep(validation={"batch_size": 64}).context
    batches = []
    context.on_batch = lambda: batches.append(1)
    whole = context.evaluator()(0)
    assert len(batches) == 1
    context.evaluation_tokens = 1
    parts = context.evaluator()(0)
    assert len(batches) == 1 + len(context.valid)
    assert parts.val_loss == pytest.approx(whole.val_loss, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        (
            {"search": {"lora_parameters.rank": {"choices": [4, 128]}}},
            ModelError,
            "rank is 128, above the width 32 of the layer model.layers",
        ),
        (
            {"train": {"num_layers": 3}, "search": {"num_layers": {"low": 1, "high": 9}}},
            HawsweepError,
            "num_layers",
        ),
        (
            {"train": {"batch_size": 25}},
            DataError,
            "train.batch_size is 25, but the split train has 24 examples",
        ),
        (
            {"train": {"optimizer_config": {"adam": {"beta": 1}}}},
            HawsweepError,
            "optimizer_config.adam has an option",
        ),
        (
            {"train": {"optimizer": "muon", "optimizer_config": {"muon": {"ns_steps": 2.5}}}},
            HawsweepError,
            "optimizer_config.muon has a value that MLX's optimizer cannot use",
        ),
        (
            {
                "train": {
                    "optimizer": "sgd",
                    "optimizer_config": {"sgd": {"nesterov": True, "momentum": 0.0}},
                }
            },
            HawsweepError,
            "optimizer_config.sgd has an option",
        ),
        (
            {"train": {"lora_parameters": {"keys": ["self_attn.q_proj", "self_attn.v_porj"]}}},
            ModelError,
            "keys ['self_attn.v_porj'] match no layer",
        ),
        ({"train": {"max_seq_length": 8}}, DataError, "Raise train.max_seq_length"),
        (
            {"search": {"max_seq_length": {"choices": [8, 512]}}},
            DataError,
            "Raise search.max_seq_length",
        ),
    ],
)
def test_what_would_fail_every_trial_is_refused_at_the_start(sweep, changes, kind, message):
    with pytest.raises(kind) as caught:
        sweep(**changes)
    assert message in str(caught.value)


def test_full_fine_tuning_of_a_quantized_model_is_refused_at_the_start(sweep, tiny_model):
    tiny_model.config["quantization"] = {"bits": 4}
    with pytest.raises(ModelError, match=r"full, but .* is quantized"):
        sweep(train={"fine_tune_type": "full"})


def test_diverging_trial_is_pruned_with_the_reason(sweep):
    made = sweep(train={"lora_parameters": {"scale": 1e30}})
    trial, folder, _ = made.run(learning_rate=1e-2)
    assert trial.state == optuna.trial.TrialState.PRUNED
    assert "not finite at iteration" in trial.user_attrs["reason"]
    assert not has_state(folder)


def test_trial_that_a_person_stops_ends_at_its_next_evaluation(sweep):
    made = sweep()
    stopped = []

    def stop_meanwhile():
        number = len(made.study.trials) - 1
        if made.study.trials[number].intermediate_values and not stopped:
            stop_trial("tiny", made.place, number)
            stopped.append(number)
        return False

    made.context.should_stop = stop_meanwhile
    trial, folder, metrics = made.run(iters=12)
    assert stopped == [trial.number]
    assert trial.state == optuna.trial.TrialState.PRUNED
    assert trial.user_attrs["reason"] == "stopped by you at iteration 8"
    assert [line["iteration"] for line in metrics if line["type"] == "eval"][-1] == 8
    assert not has_state(folder)


def test_share_of_the_blocks_is_a_number_for_mlx_lm(sweep):
    _, folder, _ = sweep(train={"num_layers": 0.34}).run()
    config = yaml.safe_load((folder / "config.yaml").read_text())
    adapter = json.loads((folder / "adapters" / "adapter_config.json").read_text())
    assert config["num_layers"] == adapter["num_layers"] == 1  # of three


def test_searched_length_cuts_the_examples_of_its_trial(sweep):
    context = sweep().context
    longest, of_valid = (
        int(lengths_of(each).max()) for each in (context.train.examples, context.valid)
    )
    shorter = of_valid - 2
    found = sweep(search={"max_seq_length": {"choices": [shorter, longest]}})
    for length in (shorter, longest):
        _, folder, _ = found.run(max_seq_length=length)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert config["max_seq_length"] == length
        assert lengths_of(found.context.train.examples).max() == length
        assert lengths_of(found.context.valid).max() == of_valid  # it is the same for all
