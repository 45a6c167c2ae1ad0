"""A sweep's plan for machines that are not here, and the command that shows it."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner

from hawsweep.cli import main
from hawsweep.data.load import load_data
from hawsweep.errors import DataError, MemoryBudgetError, ModelError, UnknownArchitectureError
from hawsweep.machine import memory
from hawsweep.machine.memory import Budget
from hawsweep.models.known_configs import KNOWN_MODELS
from hawsweep.planning.fits import check_fits
from hawsweep.planning.peak import EMBEDDER_BYTES
from hawsweep.planning.sweep_plan import _fit, known_memory, plan_sweep, share, to_plain
from hawsweep.planning.sweep_time import time_plan
from hawsweep.planning.trial_plan import Speed
from hawsweep.planning.workload import assumed_workload, save_lengths, workload
from hawsweep.spec.read import find_sweep, parse_override, read_sweep

SWEEPS = Path(__file__).parents[2] / "sweeps"
GEMMA = "mlx-community/gemma-3-4b-it-4bit"


@pytest.fixture(autouse=True)
def empty_machine(tmp_path, monkeypatch, hub_cache):
    """No model, no data and no calibration is here."""
    monkeypatch.setenv("HAWSWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def sweep(**overrides):
    return read_sweep(find_sweep(str(SWEEPS / "gemma-lr-rank.yaml")), overrides)


@cache
def usual_plan(ram):
    return plan_sweep(sweep(), ram=ram)


def planned(ram, spec=None, **others):
    if spec is None and not others:
        return usual_plan(ram)
    return plan_sweep(spec or sweep(), ram=ram, **others)


def every_verdict(plan):
    rows = [row for rows in plan.by_value.values() for row in rows]
    return [plan.smallest, plan.largest, *(verdict for _, *both in rows for verdict in both)]


def test_larger_machine_never_needs_a_slower_plan():
    plans = [planned(ram) for ram in ("8GB", "32GB", "128GB")]
    for one, two in pairwise(plans):
        for little, much in zip(every_verdict(one), every_verdict(two), strict=True):
            assert little.settings == much.settings
            if little.plan is not None:
                assert much.plan is not None
                assert much.plan.seconds <= little.plan.seconds
    assert plans[1].smallest.seconds < plans[0].smallest.seconds
    assert plans[2].faster is None
    assert plans[0].faster.needed_bytes > plans[0].arrays_bytes


def test_every_plan_fits_where_it_says_so():
    for ram in ("6GB", "8GB", "16GB", "32GB", "128GB"):
        plan = planned(ram)
        for verdict in every_verdict(plan):
            fits = verdict.least.needed_bytes <= plan.arrays_bytes
            assert (verdict.plan is not None) is fits
            if fits:
                assert verdict.plan.needed_bytes <= plan.arrays_bytes
            else:
                assert verdict.how == "does not fit"


def test_largest_settings_need_most():
    plan = planned("32GB")
    needs = [verdict.least.needed_bytes for verdict in every_verdict(plan)]
    assert plan.smallest.least.needed_bytes == min(needs)
    assert plan.largest.least.needed_bytes == max(needs)
    assert plan.largest.settings["lora_parameters.rank"] == 64
    assert plan.smallest.settings["lora_parameters.rank"] == 8


def test_sweep_of_which_nothing_fits_is_refused_by_its_weights():
    plan = planned("4GB")
    assert plan.smallest.plan is None
    assert plan.largest.plan is None
    with pytest.raises(MemoryBudgetError, match="No setting of this sweep fits") as caught:
        check_fits(plan.spec, plan.memory, plan.work, plan.arrays_bytes)
    assert plan.arrays_bytes < 0  # the libraries alone take more
    assert "the budget leaves 0.00 GB" in str(caught.value)
    assert "weights alone are more than that. Use a smaller model" in str(caught.value)


def test_refusal_names_what_would_help_and_it_does():
    plan = planned("32GB")
    shorter = planned("32GB", sweep(**{"scoring.batch_size": 1, "train.max_seq_length": 512}))
    enough = shorter.smallest.least.needed_bytes
    assert enough < plan.smallest.least.needed_bytes
    with pytest.raises(MemoryBudgetError) as caught:
        check_fits(plan.spec, plan.memory, plan.work, enough)
    assert "train.max_seq_length: 512" in str(caught.value)
    assert "train.max_seq_length: 1024" not in str(caught.value)
    check_fits(shorter.spec, shorter.memory, shorter.work, enough)
    with pytest.raises(MemoryBudgetError):
        check_fits(shorter.spec, shorter.memory, shorter.work, enough - 1)


@pytest.mark.parametrize("name", ["gemma-lr-rank", "high-rank", "long-run"])
def test_refusal_names_changes_that_the_sweep_takes_and_that_fit(name):
    path = find_sweep(str(SWEEPS / f"{name}.yaml"))
    plan = planned("32GB", read_sweep(path, {"scoring.batch_size": 1}))
    too_few = plan.smallest.least.needed_bytes - 1
    with pytest.raises(MemoryBudgetError) as caught:
        check_fits(plan.spec, plan.memory, plan.work, too_few)
    said = str(caught.value).partition("would fit: ")[2].partition(". Or raise")[0]
    for change in said.split("; "):
        key, value = parse_override(change.replace(": ", "="))
        changed = planned("32GB", read_sweep(path, {"scoring.batch_size": 1, key: value}))
        check_fits(changed.spec, changed.memory, changed.work, too_few)


def test_refusal_of_translations_names_a_batch_that_fits():
    spec = sweep(**{"scoring.batch_size": 64})
    plan = planned("32GB", spec)
    assert plan.smallest.plan is not None
    assert plan.scoring_bytes > plan.arrays_bytes
    with pytest.raises(MemoryBudgetError, match="Translating 64 prompts") as caught:
        check_fits(spec, plan.memory, plan.work, plan.arrays_bytes)
    fitting = int(re.search(r"scoring.batch_size: (\d+)", str(caught.value))[1])
    check_fits(sweep(**{"scoring.batch_size": fitting}), plan.memory, plan.work, plan.arrays_bytes)
    with pytest.raises(MemoryBudgetError, match="Translating"):
        check_fits(
            sweep(**{"scoring.batch_size": fitting + 1}), plan.memory, plan.work, plan.arrays_bytes
        )
    assert to_plain(plan)["scoring_bytes"] == plan.scoring_bytes


@pytest.mark.parametrize("name", KNOWN_MODELS)
def test_every_model_of_the_catalogue_is_planned(name):
    plan = planned("128GB", sweep(model=name))
    assert plan.fits
    assert plan.memory.shape.weight_bytes() < plan.smallest.plan.peak_bytes


def test_model_that_nobody_knows_is_refused_with_those_known():
    with pytest.raises(ModelError, match="'some/other-1b' is not here") as caught:
        planned("32GB", sweep(model="some/other-1b"))
    for name in (GEMMA, "Qwen/Qwen3-4B"):
        assert name in str(caught.value)


def test_unknown_architecture_of_a_local_model_is_refused(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "mamba", "hidden_size": 64}')
    for ram in (None, "32GB"):
        with pytest.raises(UnknownArchitectureError, match="'mamba' is known only by calibration"):
            planned(ram, sweep(model=str(folder)))


def test_local_model_is_planned_by_its_config(tmp_path, tiny_model_dir):
    space = {"num_layers": [1, 3], "lora_parameters.rank": [8, 32]}
    spec = sweep(
        model=str(tiny_model_dir),
        **{f"search.{key}": {"choices": values} for key, values in space.items()},
    )
    plan = planned("8GB", spec)
    assert plan.memory.shape.n_layers == 3
    assert plan.smallest.plan.needed_bytes < planned("8GB").smallest.least.needed_bytes / 10


def test_model_of_another_format_takes_what_that_takes():
    four, sixteen = (known_memory(sweep(model=f"x/gemma-3-4b-it{s}"), "metal") for s in FORMATS)
    assert 3 < sixteen.shape.weight_bytes() / four.shape.weight_bytes() < 4
    on_cpu = known_memory(sweep(), "cpu").shape.weight_bytes()
    assert on_cpu == 2 * sixteen.shape.weight_bytes()


FORMATS = ("-4bit", "-bf16")


def test_longer_sequences_need_more_memory_and_time():
    plans = [
        planned("128GB", sweep(**{"train.max_seq_length": length}))
        for length in (256, 512, 1024, 2048)
    ]
    assert [int(plan.work.lengths.max()) for plan in plans] == [256, 512, 1024, 2048]
    for end in ("smallest", "largest"):
        verdicts = [getattr(plan, end) for plan in plans]
        needs = [verdict.least.needed_bytes for verdict in verdicts]
        assert needs == sorted(set(needs))
        assert verdicts[0].seconds < verdicts[-1].seconds
    assert plans[2].work.how.startswith("assumed up to max_seq_length")
    assert planned("128GB").largest == plans[2].largest  # the sweep's own length


def test_lengths_of_data_that_is_not_here_are_those_of_pairs():
    work = planned("32GB", data_pairs=2831).work
    assert len(work.lengths) == 2831
    assert (work.lengths.min(), work.lengths.max()) == (2, 1024)
    assert 0.4 < work.mean_tokens / 1024 < 0.45  # the Fornander corpus, so cut: 1 / 2.4
    assert (work.lengths == 1024).sum() >= 64  # enough for any step: memory is as before
    assert (work.n_targets == work.lengths - 1).all()


def test_sweep_that_start_refuses_is_not_planned():
    with pytest.raises(ModelError, match=r"fine_tune_type is full, but .* is quantized"):
        planned("128GB", sweep(**{"train.fine_tune_type": "full"}))
    with pytest.raises(ModelError, match=r"num_layers is 99, but the model has 34"):
        planned("128GB", sweep(**{"search.num_layers": {"choices": [99]}}))
    with pytest.raises(ModelError, match="match no linear layer"):
        planned("128GB", sweep(**{"train.lora_parameters.keys": ["nowhere"]}))
    few = {"data": "phrasebook", "train.batch_size": 4000}
    with pytest.raises(
        DataError, match=r"batch_size is 4000, but the split train has \d+ examples"
    ):
        planned("128GB", sweep(**few))


def test_memory_by_part_adds_up_to_the_peak():
    plan = planned("128GB")
    shown = to_plain(plan)
    for end, fit in (("smallest", plan.smallest), ("largest", plan.largest)):
        parts = shown[end]["memory"]
        step = list(parts)[: list(parts).index("training")]
        assert step == [
            *("weights", "adapter", "optimizer", "gradients", "activations", "attention", "loss")
        ]
        assert parts["training"] == fit.plan.peak_bytes
        assert sum(parts[part] for part in step) == pytest.approx(parts["training"], abs=10)
        assert parts["weights"] == plan.memory.shape.weight_bytes()
        assert parts["weights"] < parts["evaluation"] < parts["training"] * 2
        assert parts["translations"] * 1.15 == pytest.approx(plan.scoring_bytes)
        assert parts["cache"] == max(10**9, fit.plan.peak_bytes // 4)
        train = fit.train
        assert shown[end]["epochs"] == round(train.iters * train.batch_size / 1000, 3)
    assert shown["largest"]["memory"]["adapter"] > shown["smallest"]["memory"]["adapter"]


@pytest.mark.parametrize(("most", "n_seen"), [(100, 100), (5000, 1000)])
def test_epochs_are_those_of_the_examples_that_a_trial_sees(most, n_seen):
    plan = planned("128GB", sweep(**{"train.max_train_samples": most}))
    train = plan.largest.train
    epochs = to_plain(plan)["largest"]["epochs"]
    assert epochs == round(train.iters * train.batch_size / n_seen, 3)


@pytest.mark.parametrize("is_tokenized", [False, True])
def test_epochs_count_a_source_as_often_as_it_comes(tmp_path, is_tokenized):
    for name, n_records, letters in (("many", 30, 20), ("few", 10, 200)):
        line = json.dumps({"prompt": "a", "completion": "b" * letters}) + "\n"
        (tmp_path / f"{name}.jsonl").write_text(line * n_records)
    sources = [{"path": str(tmp_path / f"{name}.jsonl")} for name in ("many", "few")]
    sources[1]["weight"] = 3
    spec = sweep(data=sources, **{"train.iters": 120, "train.batch_size": 2})
    if is_tokenized:
        estimated = workload(spec)
        splits = load_data(spec.data)
        save_lengths(spec, splits.fingerprint()["train"], estimated)
    plan = plan_sweep(spec, ram="128GB")
    work = plan.work
    assert (work.how == "as tokenized before") == is_tokenized
    n_epoch = work.weights.sum()
    assert n_epoch == 24 + 3 * 8  # a fifth of each is held out
    assert plan.epochs(plan.largest.train) == pytest.approx(240 / n_epoch)
    assert work.mean_trained == pytest.approx((work.lengths * work.weights).sum() / n_epoch)
    assert work.mean_tokens == work.lengths.mean() < work.mean_trained


def test_time_that_every_step_takes_does_not_shrink_with_its_tokens():
    slow = Speed(1e18, 0.5, "made up")
    spec = sweep(**{"train.batch_size": 4})
    known = replace(plan_sweep(spec, ram="128GB").memory, speed=slow)
    work = assumed_workload(1000, 256, "made up")
    fit = _fit(known, spec, work, 1e12, {})
    assert fit.seconds == pytest.approx(0.5 * spec.train.iters, rel=0.03)


def test_attention_grows_with_the_square_of_the_length():
    short, long = (
        to_plain(planned("128GB", sweep(**{"train.max_seq_length": length})))["smallest"]["memory"]
        for length in (512, 1024)
    )
    assert 3.5 < long["attention"] / short["attention"] < 4.5
    assert 1.8 < long["activations"] / short["activations"] < 2.2


@pytest.mark.parametrize("shown_as", ["table", "json"])
def test_sweep_whose_keys_change_no_memory_has_its_numbers_too(shown_as):
    options = ["--all"] if shown_as == "table" else ["--json"]
    done = CliRunner().invoke(main, ["plan", "long-run", "--ram", "64GB", *options])
    assert done.exit_code == 0, done.output
    peak = plan_sweep(read_sweep(find_sweep("long-run")), ram="64GB").largest.plan.peak_bytes
    if shown_as == "json":
        assert json.loads(done.stdout)["search"] == {}
        assert json.loads(done.stdout)["largest"]["memory"]["training"] == peak
    else:
        (row,) = (line for line in done.stdout.splitlines() if line.startswith("any "))
        assert f"{peak / 1e9:.2f}" in row
        assert "whole" in row


def test_so_many_pairs_as_asked_are_planned_for():
    assert len(planned("32GB", data_pairs=77).work.lengths) == 77
    # Of fewer than a batch, there is less to compute at a time.
    needs = [
        planned("128GB", sweep(**{"train.batch_size": 4}), data_pairs=n).largest.plan.peak_bytes
        for n in (1, 4, 400)
    ]
    assert needs[0] < needs[1] == needs[2]


def test_batch_of_data_that_is_not_here_is_counted_whole():
    whole = planned("128GB", sweep(**{"train.batch_size": 4}))
    as_many = planned("128GB", sweep(**{"train.batch_size": 4}), data_pairs=100)
    assert whole.largest.plan == as_many.largest.plan
    assert whole.largest.plan.peak_bytes > planned("128GB").largest.plan.peak_bytes


@pytest.mark.parametrize(
    ("ram", "message"),
    [
        ("lots", "must be a size such as 24GB"),
        ("32", "must be a size such as 24GB"),
        ("50%", "must be a size such as 24GB"),
        ("", "must be a size such as 24GB"),
        ("0GB", "must be above 0"),
        ("-4GB", "must be above 0"),
    ],
)
def test_nonsense_for_a_machine_is_one_error(ram, message):
    done = CliRunner().invoke(main, ["plan", str(SWEEPS / "gemma-lr-rank.yaml"), "--ram", ram])
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    assert done.output == f"Error: --ram is {ram!r}: {message}.\n"


def test_plan_is_printed_as_json():
    done = CliRunner().invoke(main, ["plan", "gemma-lr-rank", "--ram", "32GB", "--json"])
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    assert content["model"] == GEMMA
    assert content["device"] == "metal"
    timing = time_plan(planned("32GB"))
    times = {
        "seconds": round(timing.total_s),
        "trial_seconds": round(timing.trial_s),
        "prompts": 1,
        "prompts_seconds": round(timing.prompts_s),
    }
    assert content == json.loads(json.dumps(to_plain(planned("32GB")) | times))
    assert content["smallest"]["needed_bytes"] <= content["arrays_bytes"] < 32e9
    assert content["workers"] == 1
    assert [row["value"] for row in content["search"]["lora_parameters.rank"]] == [8, 16, 32, 64]


@pytest.mark.parametrize("ram", ["128GB", "8GB", "4GB"])
def test_plan_is_shown(ram):
    done = CliRunner().invoke(main, ["plan", "gemma-lr-rank", "--all", "--ram", ram])
    assert done.exit_code == 0, done.output
    assert "num_layers" in done.output
    assert ("does not fit" in done.output) is (planned(ram).largest.plan is None)
    end = "run again with new seeds: about" if planned(ram).fits else "Nothing of this sweep fits"
    assert end in done.output


def test_options_of_the_command_reach_the_plan():
    def shown(*options):
        command = ["plan", "gemma-lr-rank", "--ram", "128GB", "--json", *options]
        return json.loads(CliRunner().invoke(main, command, catch_exceptions=False).stdout)

    usual = shown()
    assert shown("--max-seq-length", "2048")["longest"] == 2048
    assert "50 examples" in shown("--data-pairs", "50")["lengths"]
    assert shown("--device", "cpu")["device"] == "cpu"
    larger = shown("--set", "train.batch_size=4")
    assert larger["largest"]["peak_bytes"] > usual["largest"]["peak_bytes"]
    smaller = shown(
        "--model", "meta-llama/Llama-3.2-1B", "--set", "search.num_layers={choices: [4, 16]}"
    )
    assert smaller["model"] == "meta-llama/Llama-3.2-1B"


def test_planning_imports_no_large_library(tmp_path):
    code = (
        "import json, sys\n"
        "from hawsweep.cli import main\n"
        "main(['plan', 'gemma-lr-rank', '--ram', '32GB', '--json'], standalone_mode=False)\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert json.loads(done.stdout)["model"] == GEMMA
    loaded = set(json.loads(done.stderr.splitlines()[-1]))
    assert "numpy" in loaded
    large = {"mlx", "mlx_lm", "torch", "transformers", "optuna", "sentence_transformers"}
    assert not loaded & large


@pytest.mark.parametrize(
    ("n_profitable", "workers", "gigabytes", "expected"),
    [
        (None, "auto", 200, 4),  # never measured: one a core
        (2, "auto", 200, 2),
        (1, "auto", 200, 1),
        (4, "auto", 70, 3),  # no more than leave each enough for the largest setting
        (1, 3, 200, 3),
    ],
)
def test_workers_are_as_many_as_help_and_fit(
    monkeypatch, n_profitable, workers, gigabytes, expected
):
    monkeypatch.setattr(memory, "usable_cores", lambda: 4)
    spec = sweep(**{"workers": workers, "train.grad_checkpoint": True})
    known = known_memory(spec, "cpu")
    known = replace(known, speed=replace(known.speed, n_workers=n_profitable))
    work = workload(spec)
    budget = Budget(round(gigabytes * 1e9), "made up")
    n_workers, each = share(spec, known, work, budget)
    assert n_workers == expected
    assert each == pytest.approx((budget.total_bytes - EMBEDDER_BYTES) / expected)
