"""What a sweep of several models may say, and what is seen of it before it runs."""

import io
import json

import pytest
import yaml
from click.testing import CliRunner
from rich.console import Console
from several import RATES, sweep

from hawsweep import cli
from hawsweep.errors import SpecError
from hawsweep.prepare.finding import worst
from hawsweep.prepare.validate import validate_sweep
from hawsweep.results.leaderboard import TrialRow
from hawsweep.search.distributions import distributions, first_of_models
from hawsweep.spec.read import check_sweep, find_sweep, read_sweep
from hawsweep.spec.sweep import short_names
from hawsweep.study.place import Place
from hawsweep.views.terminal.tables import leaderboard_table


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
    assert [each["model"] for each in found] == ["org/one", "other/two"] * 3
    # 5e-4 at 2,000; a quarter of the width has 4 ** 0.781 times the rate.
    assert [each["learning_rate"] for each in found] == pytest.approx(
        [rate * factor for factor in (1, 2, 1 / 3) for rate in (5e-4, 5e-4 * 4**0.781)], rel=1e-2
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
    assert "with equally many for each model" in text


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
    assert "1:02:" in text


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
        return validate_sweep(spec, "a-study", Place(tmp_path / "studies"))

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
