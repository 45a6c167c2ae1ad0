"""Several base models in one study: two tiny ones with tokens and templates of their own."""

import io
import json
import shutil
import signal
import sys
from pathlib import Path

from hawsweep.backend import mx

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from mlx_lm.models import llama
from mlx_lm.utils import save_config, save_model
from optuna.trial import TrialState
from rich.console import Console
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).parent / "faults"))

from harness import Lab, kill
from tiny_sweep import phrasebook_lines

from hawsweep import baselines, cli, confirm, provenance, starting, study
from hawsweep.calibration import uncalibrated
from hawsweep.catalogue import find_known
from hawsweep.comparison import compare
from hawsweep.data import load_data
from hawsweep.display.tables import leaderboard_table
from hawsweep.encoding import encode
from hawsweep.errors import DataError, MemoryBudgetError, SpecError
from hawsweep.export.exporting import Request, export_trial
from hawsweep.findings import worst
from hawsweep.leaderboard import (
    TrialRow,
    describe_trial,
    end_of_study,
    groups,
    judge_study,
    leaderboard,
)
from hawsweep.models import load_model
from hawsweep.records import Record
from hawsweep.recovery import rebuild
from hawsweep.rehearsal import rehearse
from hawsweep.shapes import shape_of
from hawsweep.space import distributions, first_of_models
from hawsweep.spec import short_names
from hawsweep.study import Place, open_storage, spec_of
from hawsweep.sweepfile import check_sweep, find_sweep, read_sweep
from hawsweep.systems import score_checkpoints
from hawsweep.validation import n_bytes, shared_records, targets_per_byte
from hawsweep.verdict import Candidate, judge
from hawsweep.worker import Worker

OTHER_TEMPLATE = (
    "{% for message in messages %}[{{ message.role }}] {{ message.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
RATES = {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}


@pytest.fixture(scope="session")
def other_model_dir(tmp_path_factory):
    """A second tiny model: wider, with a smaller vocabulary and another template."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=280,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(phrasebook_lines("train", 100), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", chat_template=OTHER_TEMPLATE
    )
    folder = tmp_path_factory.mktemp("wide") / "tiny-wide"
    folder.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 96,
        "num_hidden_layers": 2,
        "intermediate_size": 160,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": 256,
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "tie_word_embeddings": True,
    }
    mx.random.seed(11)
    save_model(folder, llama.Model(llama.ModelArgs.from_dict(config)))
    save_config(config, folder / "config.json")
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def giant_dir(tmp_path_factory, tiny_model_dir):
    """A model that says it has far more blocks than any machine holds; it is never loaded."""
    folder = tmp_path_factory.mktemp("giant") / "tiny-giant"
    shutil.copytree(tiny_model_dir, folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "hidden_size": 65536, "num_hidden_layers": 1000}))
    return folder


def lab_of(folder, data_dir, model_dirs, **changes):
    """A sweep of several models; the harness writes one."""
    made = Lab(folder, "none", data_dir, **changes)
    path = folder / "sweep.yaml"
    content = json.loads(path.read_text())
    del content["model"]
    content["search"]["model"] = {"choices": list(map(str, model_dirs))}
    path.write_text(json.dumps(content))
    return made


def sweep(**changes):
    content = {
        "data": "phrasebook",
        "search": {"model": {"choices": ["org/one", "other/two"]}, **RATES},
    }
    return check_sweep({**content, **changes}, "a sweep")


# What a sweep says


def test_sweep_of_several_models_has_no_model_of_its_own():
    spec = sweep()
    assert spec.models == ("org/one", "other/two")
    alone = spec.of_model("other/two")
    assert (alone.model, alone.models) == ("other/two", ("other/two",))
    assert alone.search.keys() == {"learning_rate"}
    assert spec.model_of({"model": "other/two", "learning_rate": 1e-3}) == "other/two"
    one = check_sweep({"model": "m", "data": "phrasebook", "search": RATES}, "a sweep")
    assert (one.models, one.of_model("m"), one.model_of({})) == (("m",), one, "m")


def test_sweep_of_several_models_is_read_again_as_it_was(tmp_path):
    spec = sweep()
    path = tmp_path / "again.yaml"
    path.write_text(spec.dump_yaml())
    assert "model" not in yaml.safe_load(path.read_text())
    assert read_sweep(path) == spec
    assert type(spec).model_validate(spec.model_dump(mode="json", exclude_none=True)) == spec


def test_model_beside_several_is_refused():
    with pytest.raises(SpecError) as caught:
        sweep(model="org/one")
    assert "model is 'org/one', but search.model has several" in str(caught.value)
    assert "--set search.model.choices=[org/one]" in str(caught.value)


def test_every_fault_of_search_model_is_said_at_once():
    with pytest.raises(SpecError) as caught:
        sweep(search={"model": {"choices": ["a", 3, ""]}, "iter": {"low": 1, "high": 2}})
    message = str(caught.value)
    assert "search.model.choices[1] is 3, must be the name of a model" in message
    assert "search.model.choices[2] is '', must be the name of a model" in message
    assert "search.iter cannot be searched; did you mean 'iters'?" in message
    assert "model is missing" not in message


def test_range_of_models_is_refused():
    with pytest.raises(SpecError, match=r"search\.model is a name, must be given as choices"):
        sweep(search={"model": {"low": 1, "high": 2}})


def test_enqueued_model_that_is_no_choice_is_refused():
    with pytest.raises(SpecError, match=r"enqueue\[0\]\.model is 'x', must be one of the choices"):
        sweep(enqueue=[{"model": "x"}])


def test_model_is_a_categorical_parameter():
    found = distributions(sweep().search)["model"]
    assert found.choices == ("org/one", "other/two")


def test_first_settings_are_of_each_model_in_turn():
    configs = {
        "org/one": {"model_type": "llama", "hidden_size": 2000},
        "other/two": {"model_type": "llama", "hidden_size": 500},
    }
    found = first_of_models(sweep(), configs)
    assert [each["model"] for each in found] == ["org/one", "other/two"] * 2
    # 5e-4 at 2,000; a quarter of the width has 4 ** 0.781 times the rate.
    assert [each["learning_rate"] for each in found] == pytest.approx(
        [5e-4, 5e-4 * 4**0.781, 5e-4 / 3, 5e-4 * 4**0.781 / 3], rel=1e-2
    )
    given = [{"model": "org/one"}]
    assert first_of_models(sweep(enqueue=given), configs) == given


# What comes with hawsweep


def plan_of(*arguments):
    done = CliRunner().invoke(cli.main, ["plan", "base-models", "--ram", "32GB", *arguments])
    return done.exit_code, done.output


def test_bundled_sweep_plans_each_of_its_models_without_weights():
    code, text = plan_of("--data-pairs", "2831")
    assert code == 0, text
    spec = read_sweep(find_sweep("base-models"))
    assert len(spec.models) == 3
    for model in spec.models:
        assert f"{model}: " in text
    assert "where every model has as many" in text


def test_plan_of_several_models_is_json_too():
    code, text = plan_of("--data-pairs", "2831", "--json")
    assert code == 0, text
    spec = read_sweep(find_sweep("base-models"))
    found = json.loads(text)["models"]
    assert [each["model"] for each in found] == list(spec.models)
    assert all(each["smallest"]["fits"] for each in found)


def test_plan_says_which_model_does_not_fit():
    # Less for arrays than the weights of Qwen and a step of it, more than Llama's.
    code, text = plan_of("--data-pairs", "2831", "--set", "memory.budget=7GB")
    assert code == 0, text
    last = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert "does not fit" in last["Qwen2.5-7B-Instruct-4bit"]
    assert "does not fit" not in last["Llama-3.2-3B-Instruct-4bit"]
    assert "is left out; the others go on" in text


def test_one_model_on_the_command_line_is_refused_beside_several():
    code, text = plan_of("--model", "some/model")
    assert code == 1
    assert "model is 'some/model', but search.model has several" in text


@pytest.mark.parametrize("width", [80, 110, 140, 160])
def test_leaderboard_shows_models_by_their_short_names_and_numbers_whole(width):
    settings = {"learning_rate": 1.25e-3, "lora_parameters.rank": 32}
    names = ("mlx-community/gemma-3-4b-it-4bit", "other/two[red]")
    known = {"score": 0.6834, "low": 0.61, "high": 0.76, "nats_per_byte": 0.753, "time_s": 3720}
    rows = [
        TrialRow("3", "complete", {**settings, "model": names[0]}, 2.0, 900, **known),
        TrialRow("base two[red]", "base", {"model": names[1]}, 2.5, score=0.2, time_s=60),
    ]
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(leaderboard_table(rows, width))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert "mlx-community" not in text
    assert "…" not in text
    for each in ("gemma-3-4", "two[red]", "1.25e-03", "32", "0.6834", "0.753"):
        assert each in text
    assert "base two" not in text  # the name has a column
    assert ("1h02" in text) is (width > 80)


@pytest.fixture
def looked_at(tiny_model_dir, other_model_dir, chat_data_dir, tmp_path):
    def look(*dirs, **changes):
        content = {
            "data": str(chat_data_dir),
            "train": {"mask_prompt": True, "num_layers": 2, "iters": 20, "steps_per_eval": 10},
            "search": {"model": {"choices": list(map(str, dirs))}, **RATES},
            "scoring": {"metric": "chrf", "max_tokens": 8},
        }
        spec = check_sweep({**content, **changes}, "the sweep")
        return rehearse(spec, "a-study", Place(tmp_path / "studies"))

    return look


def test_validate_looks_at_every_model(looked_at, tiny_model_dir, other_model_dir):
    found = looked_at(tiny_model_dir, other_model_dir)
    assert worst(found) != "fault"
    assert [each.text.split(",")[0] for each in found if each.subject == "model"] == [
        str(tiny_model_dir),
        str(other_model_dir),
    ]
    for subject in ("lengths", "memory", "disk"):
        starts = [each.text.split(":")[0] for each in found if each.subject == subject]
        assert starts == [tiny_model_dir.name, other_model_dir.name]
    for subject in ("data", "time"):  # one study, one answer
        assert len([each for each in found if each.subject == subject]) == 1


def test_validate_says_which_model_is_left_out(looked_at, tiny_model_dir, giant_dir):
    found = looked_at(tiny_model_dir, giant_dir)
    assert worst(found) != "fault"
    (left_out,) = [each for each in found if "left out" in each.remedy]
    assert left_out.subject == "memory"
    assert left_out.text.startswith("tiny-giant: ")
    assert worst(looked_at(giant_dir)) == "fault"


# Names


@pytest.mark.parametrize(
    ("models", "names"),
    [
        (["a/one", "b/two"], ["one", "two"]),
        (["a/one", "b/one", "two"], ["a/one", "b/one", "two"]),
        (["/models/one/", "one-4bit"], ["one", "one-4bit"]),
    ],
)
def test_short_names_tell_models_apart(models, names):
    assert list(short_names(models).values()) == names


def test_folders_of_untuned_models_stay_below_the_study(tmp_path):
    place = Place(tmp_path)
    names = ["a/one", "b/one", "../one", "..", "ʻōlelo/ō", "x" * 300]
    folders = {baselines.base_dir(place, "s", name) for name in names}
    assert len(folders) == len(names)
    assert {folder.parent for folder in folders} == {tmp_path / "s" / "base"}
    assert all(len(folder.name) < 100 and folder.name[0] != "." for folder in folders)
    assert baselines.base_dir(place, "s") == tmp_path / "s" / "base"


# What compares across models


def encoded(loaded, records, length=256):
    return encode(records, loaded.tokenizer, max_seq_length=length, mask_prompt=True)


@pytest.fixture(scope="module")
def both(tiny_model_dir, other_model_dir):
    return load_model(tiny_model_dir), load_model(other_model_dir)


@pytest.fixture(scope="module")
def splits(chat_data_dir):
    return load_data(sweep(data=str(chat_data_dir)).data)


def test_bytes_of_a_record_are_those_of_what_is_learned():
    record = Record({"prompt": "Aloha", "completion": "ʻO ia"})
    assert n_bytes(record, mask_prompt=True) == 6  # the okina has two
    assert n_bytes(record, mask_prompt=False) == 11
    assert n_bytes(Record({"text": "ō"}), mask_prompt=False) == 2


def test_targets_per_byte_count_the_same_bytes_for_every_model(both, splits):
    spec = sweep(train={"mask_prompt": True})
    learned = sum(len(record.reference.encode()) for record in splits.valid)
    for loaded in both:
        examples = encoded(loaded, splits.valid).examples
        tokens = sum(len(example.tokens) - example.offset for example in examples)
        found = targets_per_byte(spec, splits.valid, examples, loaded.tokenizer)
        assert found == pytest.approx(tokens / learned)
    one, other = (encoded(loaded, splits.valid).examples.n_targets.sum() for loaded in both)
    assert one != other  # else nothing was shown


def test_text_that_was_cut_away_does_not_count_as_bytes(both, splits):
    loaded = both[0]
    record = splits.valid[0]
    whole = encoded(loaded, [record]).examples[0]
    length = len(whole.tokens) - 3
    cut = encoded(loaded, [record], length).examples
    kept = loaded.tokenizer.decode(whole.tokens[whole.offset : length].tolist())
    spec = sweep(train={"mask_prompt": True, "max_seq_length": length})
    found = targets_per_byte(spec, [record], cut, loaded.tokenizer)
    assert found == pytest.approx((whole.n_targets - 3) / len(kept.encode()))


def test_validation_records_are_those_every_model_learns_from(both, splits):
    tokenizers = {str(number): loaded.tokenizer for number, loaded in enumerate(both)}
    prompts = [
        [len(each.tokens) - each.n_targets for each in encoded(loaded, splits.valid).examples]
        for loaded in both
    ]
    longest = np.maximum(*prompts)
    length = int(np.median(longest))
    expected = [i for i, tokens in enumerate(longest) if tokens < length]
    assert 0 < len(expected) < len(splits.valid)
    spec = sweep(train={"mask_prompt": True, "max_seq_length": length})
    assert shared_records(spec, splits, tokenizers) == expected
    fewer = sweep(
        train={"mask_prompt": True, "max_seq_length": length}, validation={"max_examples": 2}
    )
    chosen = shared_records(fewer, splits, tokenizers)
    assert len(chosen) == 2
    assert set(chosen) <= set(expected)
    none = sweep(train={"mask_prompt": True, "max_seq_length": 8})
    with pytest.raises(DataError, match="has anything to learn from within"):
        shared_records(none, splits, tokenizers)


# Verdict


def scored(label, mean, model, test=None):
    spread = 0.01 * np.random.default_rng(len(label)).normal(size=60)
    scores = mean + spread - spread.mean()
    tested = None if test is None else test + spread - spread.mean()
    return Candidate(label, scores, tested, model=model)


def test_winner_is_compared_with_its_own_base_and_with_the_best_one():
    trials = [scored("trial 0", 0.6, "a"), scored("trial 1", 0.5, "b")]
    untuned = [scored("base a", 0.2, "a"), scored("base b", 0.3, "b"), scored("base c", 0.25, "c")]
    found = judge(trials, untuned)
    assert [each.label for each in found.baselines] == ["base a", "base b"]
    assert found.ships


def test_untuned_model_that_is_better_than_the_winner_is_named():
    trials = [scored("trial 0", 0.5, "a", test=0.5)]
    untuned = [scored("base a", 0.2, "a", test=0.2), scored("base b", 0.7, "b", test=0.7)]
    found = judge(trials, untuned, winner="trial 0")
    assert not found.ships
    assert found.sentences[0].startswith("No trial beats the base b: trial 0 -0.20")


def test_winner_is_compared_with_the_best_trial_of_each_other_model():
    trials = [
        scored("trial 0", 0.6, "org/a"),
        scored("trial 1", 0.5, "org/b"),
        scored("trial 2", 0.4, "org/b"),
        scored("trial 3", 0.599, "org/c"),
        scored("trial 4", 0.59, "org/a"),
    ]
    found = judge(trials, [])
    assert [(each.label, each.model) for each in found.models] == [
        ("trial 3", "org/c"),
        ("trial 1", "org/b"),
    ]
    # The noise of all is the same, so that each difference is certain.
    assert found.sentences[-2].startswith("a is better than c: +0.001")
    assert found.sentences[-1].startswith("a is better than b: +0.100")
    assert found.sentences[-1].endswith("over its best, trial 1.")


def test_model_that_is_not_told_apart_is_said_so():
    noise = 0.2 * np.random.default_rng(0).normal(size=(2, 60))
    trials = [
        Candidate(f"trial {n}", mean + each - each.mean(), model=model)
        for n, (mean, each, model) in enumerate(zip((0.5, 0.49), noise, "ab", strict=True))
    ]
    found = judge(trials, [])
    assert found.sentences[-1].startswith("a is not told apart from b: +0.01")


def test_models_are_not_spoken_of_where_there_is_one():
    found = judge([scored("trial 0", 0.6, ""), scored("trial 1", 0.5, "")], [])
    assert found.models == ()
    assert len(found.sentences) == 1


# A worker that changes its model


@pytest.fixture(scope="module")
def worker(tmp_path_factory, tiny_model_dir, other_model_dir, giant_dir, chat_data_dir):
    folder = tmp_path_factory.mktemp("worker")
    dirs = [tiny_model_dir, other_model_dir, giant_dir]
    lab = lab_of(folder, chat_data_dir, dirs)
    spec = read_sweep(folder / "sweep.yaml")
    place = Place(lab.studies)
    prints = provenance.fingerprints(spec, tiny_model_dir, load_data(spec.data).fingerprint())
    study.create_study(open_storage(place, create=True), place, "tiny", spec, prints)
    setting = {
        "study": "tiny",
        "spec": spec.model_dump(mode="json", exclude_none=True),
        "studies_dir": str(lab.studies),
        "storage_url": None,
        "budget_bytes": 2e9,
        "left_out": {str(giant_dir): ["far too large", 7.5]},
    }
    made = Worker(setting, io.StringIO())
    made.prepare()
    return lab, made


def run_with(worker, model, **settings):
    lab, made = worker
    asked = {"learning_rate": 1e-3, "lora_parameters.rank": 2, "iters": 40, **settings}
    lab.study.enqueue_trial({**asked, "model": str(model)})
    made.trial()
    return lab.trials()[-1]


def test_trial_has_the_same_numbers_whichever_model_was_loaded_before(
    worker, tiny_model_dir, other_model_dir
):
    first = run_with(worker, tiny_model_dir)
    between = run_with(worker, other_model_dir)
    again = run_with(worker, tiny_model_dir)
    assert {t.state for t in (first, between, again)} == {TrialState.COMPLETE}
    assert again.intermediate_values == first.intermediate_values
    assert again.value == first.value
    assert between.user_attrs["targets_per_byte"] != first.user_attrs["targets_per_byte"]


def test_trial_goes_on_from_a_shorter_one_of_its_own_model_alone(
    worker, tiny_model_dir, other_model_dir
):
    shorter = run_with(worker, other_model_dir, learning_rate=3e-3, iters=24)
    elsewhere = run_with(worker, tiny_model_dir, learning_rate=3e-3)
    longer = run_with(worker, other_model_dir, learning_rate=3e-3)
    assert "continues" not in elsewhere.user_attrs
    assert longer.user_attrs["continues"] == {"trial": shorter.number, "iteration": 24}
    known = {at: longer.intermediate_values[at] for at in shorter.intermediate_values}
    assert known == shorter.intermediate_values


def test_model_that_is_not_used_any_more_leaves_no_arrays(worker, tiny_model_dir, other_model_dir):
    _, made = worker
    taken = []
    for model in (tiny_model_dir, other_model_dir) * 3:
        made._use(str(model))
        taken.append(mx.get_active_memory())
    assert taken[4:] == taken[2:4]  # the first may have kept what a trial left


def test_best_untuned_model_answers_the_test_prompts_too(worker, tiny_model_dir, other_model_dir):
    lab, made = worker
    one, other = str(tiny_model_dir), str(other_model_dir)
    scores = {one: {"base": {"score": 0.1}}, other: {"base": {"score": 0.1}}}
    place = Place(lab.studies)
    answers = baselines.base_dir(place, "tiny", other) / "test_samples.jsonl"
    answers.parent.mkdir(parents=True)  # as when it was measured
    lab.study.set_user_attr(study.BASES, scores)
    made._test_other(lab.study, one)  # as good as its own
    assert not answers.exists()
    scores[other]["base"]["score"] = 0.2
    lab.study.set_user_attr(study.BASES, scores)
    made._test_other(lab.study, one)
    assert made._model == other
    assert len(answers.read_text().splitlines()) == len(made.bench.test_prompts)


def test_trial_of_a_model_that_does_not_fit_ends_at_once(worker, giant_dir):
    _, made = worker
    loaded = made._model
    trial = run_with(worker, giant_dir)
    assert trial.state == TrialState.PRUNED
    assert trial.user_attrs["infeasible"]
    assert trial.user_attrs["reason"] == "far too large"
    assert trial.system_attrs["constraints:memory"] == 7.5
    assert made._model == loaded
    with pytest.raises(MemoryBudgetError, match="far too large"):
        made._use(str(giant_dir))


# Whole sweeps


@pytest.fixture(scope="module")
def swept(tmp_path_factory, tiny_model_dir, other_model_dir, chat_data_dir):
    """A finished sweep of two models, killed while it measured the second one untuned."""
    folder = tmp_path_factory.mktemp("swept")
    dirs = [str(tiny_model_dir), str(other_model_dir)]
    enqueued = [
        {"model": model, "learning_rate": rate, "iters": 24, "lora_parameters.rank": 4}
        for rate in (1e-2, 1e-4)
        for model in dirs
    ]
    lab = lab_of(
        folder,
        chat_data_dir,
        dirs,
        enqueue=enqueued,
        pruning={"name": "median", "n_startup_trials": 2, "n_min_trials": 2},
        confirm={"top": 1, "seeds": 1},
        scoring={
            "metric": "chrf",
            "max_examples": 4,
            "max_tokens": 8,
            "prompt": {"examples": 1},
        },
        trials=4,
    )
    path = folder / "sweep.yaml"
    content = json.loads(path.read_text())
    content["train"]["keep_checkpoints"] = 2
    path.write_text(json.dumps(content))
    with lab.start() as run:
        run.next(("base_end",))
        for pid in [*run.workers().values(), run.process.pid]:
            kill(pid, signal.SIGKILL)
        run.wait()
    first = [e for e in run.events if e["kind"] == "base_end"]
    run = lab.finish()
    return lab, dirs, first, run.events


def test_each_untuned_model_is_measured_once_whatever_happens(swept):
    lab, dirs, first, later = swept
    again = [event for event in later if event["kind"] == "base_end"]
    assert [event["values"]["model"] for event in (*first, *again)] == dirs
    assert list(lab.study.user_attrs["bases"]) == dirs
    best = max(dirs, key=lambda each: lab.study.user_attrs["bases"][each]["base"]["score"])
    assert lab.study.user_attrs["base"]["model"] == best


def test_leaderboard_has_a_base_of_each_model(swept):
    lab, dirs, _, _ = swept
    labels = {row.label for row in leaderboard(lab.study) if row.state == "base"}
    names = [Path(each).name for each in dirs]
    assert labels == {f"{kind} {name}" for kind in ("base", "1-shot base") for name in names}


def test_trials_of_both_models_are_trained_and_pruned_by_nats_per_byte(swept):
    lab, dirs, _, _ = swept
    lab.check(4)
    trials = lab.trials()
    assert [trial.params["model"] for trial in trials] == dirs * 2
    assert [trial.state for trial in trials[:2]] == [TrialState.COMPLETE] * 2
    assert TrialState.PRUNED in [trial.state for trial in trials]
    place = Place(lab.studies)
    for trial in trials:
        text = (place.trial_dir("tiny", trial.number) / "metrics.jsonl").read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        losses = {e["iteration"]: e["val_loss"] for e in lines if e["type"] == "eval"}
        scale = trial.user_attrs["targets_per_byte"]
        assert trial.intermediate_values == {at: -loss * scale for at, loss in losses.items()}
        shown = describe_trial(lab.study, place, trial.number)
        assert shown["evaluations"] == pytest.approx(losses)
        assert shown["val_loss"] == min(losses.values())
        assert shown["nats_per_byte"] == pytest.approx(min(losses.values()) * scale)


def test_every_trial_has_the_config_of_its_own_model(swept):
    lab, _, _, _ = swept
    for trial in lab.trials():
        path = Place(lab.studies).trial_dir("tiny", trial.number) / "config.yaml"
        assert yaml.safe_load(path.read_text())["model"] == trial.params["model"]
        assert spec_of(lab.study, trial).model == trial.params["model"]


def test_winner_is_confirmed_and_tested_with_its_own_model(swept):
    lab, _, _, later = swept
    confirming = [e["values"] for e in later if e["kind"] == "confirm_start"]
    winner = confirm.winner(lab.study)
    assert [each["settings"] for each in confirming] == [winner.params]
    test = lab.study.user_attrs["test"]
    assert (test["trial_number"], test["n_opened"]) == (winner.number, 1)
    place, model = Place(lab.studies), winner.params["model"]
    answers = baselines.base_dir(place, "tiny", model) / "test_samples.jsonl"
    scores = [json.loads(line)["score"] for line in answers.read_text().splitlines()]
    assert test["base"]["score"] == pytest.approx(np.mean(scores))
    own = {label for label in verdict_labels(lab) if label.endswith(Path(model).name)}
    assert own == {f"base {Path(model).name}", f"1-shot base {Path(model).name}"}
    best = baselines.best_other(lab.study, model)
    assert verdict_labels(lab) == own | (set() if best is None else {best.label})
    assert all(each.on_test for each in judge_study(lab.study, place).baselines)


def verdict_labels(lab):
    return {each.label for each in judge_study(lab.study, Place(lab.studies)).baselines}


def test_answers_are_shown_beside_those_of_the_models_own_base(swept):
    lab, _, _, _ = swept
    place = Place(lab.studies)
    winner = confirm.winner(lab.study)
    folder = baselines.base_dir(place, "tiny", winner.params["model"])
    lines = (folder / "test_samples.jsonl").read_text().splitlines()
    shown = end_of_study(lab.study, place)["samples"]
    assert [base["output"] for base, _ in shown] == [json.loads(e)["output"] for e in lines[:5]]
    for trial in lab.trials()[:2]:
        found = compare(lab.study, place, None, trial.number)
        assert found.labels[0] == f"base {Path(trial.params['model']).name}"
    assert isinstance(groups(lab.study, place), list)


def test_trials_of_either_model_are_exported_with_it(swept):
    lab, _, _, _ = swept
    place = Place(lab.studies)
    for trial in lab.trials()[:2]:
        exported = export_trial(lab.study, place, Request(trial.number, force=True))
        (adapters,) = exported.parts
        assert adapters.check.score == pytest.approx(trial.value, abs=0.01)
        assert exported.base == trial.params["model"]
        card = (exported.folder / "README.md").read_text()
        assert trial.params["model"] in card
        ranking = score_checkpoints(lab.study, place, trial.number)
        assert len(ranking.systems) == 2


def test_database_of_several_models_is_rebuilt(swept, tmp_path):
    lab, dirs, _, _ = swept
    path = tmp_path / "new.db"
    rebuild(lab.studies, path)
    storage = open_storage(Place(lab.studies, f"sqlite:///{path}"))
    again = study.load_study(storage, "tiny")
    assert leaderboard(again) == leaderboard(lab.study)
    assert spec_of(again).models == tuple(dirs)


def test_sweep_goes_on_where_one_model_does_not_fit(
    tmp_path, tiny_model_dir, giant_dir, chat_data_dir
):
    copied = tmp_path / "tiny-giant"
    shutil.copytree(giant_dir, copied)
    dirs = [str(tiny_model_dir), str(copied)]
    small = {"learning_rate": 1e-3, "lora_parameters.rank": 2, "iters": 24}
    enqueued = [{**small, "model": model} for model in reversed(dirs)]
    lab = lab_of(tmp_path, chat_data_dir, dirs, enqueue=enqueued, trials=1)
    with lab.start() as run:
        assert run.wait() == 0, run.events
    (left_out,) = [e["values"] for e in run.events if e["kind"] == "left_out"]
    assert left_out["model"] == str(copied)
    assert "of it weights" in left_out["reason"]
    assert list(lab.study.user_attrs["bases"]) == [dirs[0]]
    giant, tiny = lab.trials()
    assert (giant.state, giant.user_attrs["infeasible"]) == (TrialState.PRUNED, True)
    assert tiny.state == TrialState.COMPLETE
    assert lab.study.user_attrs["test"]["trial_number"] == tiny.number
    # Another model under a name that the study knows.
    with (copied / "config.json").open("a") as file:
        file.write("\n")
    with lab.start("trials=2") as run:
        assert run.wait() == 1
    assert run.error["error"] == "SpecChangedError"
    assert f"fingerprints.model {copied} was" in run.error["message"]


SIZES = {"smollm2-135m-instruct": 0.5e9, "mlx-community/aya-23-8B-4bit": 4e9}


@pytest.fixture
def known_by_shape(monkeypatch):
    """Models of the catalogue, whose memory is known by their shape alone."""

    def known(path):
        return uncalibrated(shape_of(find_known(str(path))), "metal")

    monkeypatch.setattr(starting.calibration, "memory_model", known)
    monkeypatch.setattr(starting.calibration, "ensure_calibrated", lambda path, *_: known(path))


def share(budget, tmp_path, **changes):
    spec = sweep(
        search={"model": {"choices": list(SIZES)}, **RATES}, memory={"budget": budget}, **changes
    )
    paths = {model: Path(model) for model in spec.models}
    return starting._share_memory(spec, paths, Place(tmp_path), lambda _: None)


def test_models_too_large_for_the_budget_are_left_out_with_what_they_lack(known_by_shape, tmp_path):
    n_workers, worker_bytes, left_out = share("5.5GB", tmp_path, workers=1)
    assert (n_workers, worker_bytes) == (1, 5.5e9)
    assert list(left_out) == ["mlx-community/aya-23-8B-4bit"]
    reason, short_gb = left_out["mlx-community/aya-23-8B-4bit"]
    assert "No setting of this sweep fits" in reason
    assert 0 < short_gb < 20


def test_workers_share_what_the_largest_model_needs(known_by_shape, tmp_path):
    n_workers, _, left_out = share("40GB", tmp_path, workers=4)
    assert n_workers == 4
    assert not left_out
    _, _, crowded = share("24GB", tmp_path, workers=4)
    assert list(crowded) == ["mlx-community/aya-23-8B-4bit"]


def test_sweep_of_which_no_model_fits_is_refused(known_by_shape, tmp_path):
    with pytest.raises(MemoryBudgetError) as caught:
        share("1GB", tmp_path, workers=1)
    assert "No model of this sweep fits" in str(caught.value)
    for model in SIZES:
        assert f"{model}: No setting" in str(caught.value)
