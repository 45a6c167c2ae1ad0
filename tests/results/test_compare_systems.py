"""Systems on the same items: a CSV's columns, two trials of a study."""

import json
import math
from pathlib import Path

import numpy as np
import optuna
import pytest
from click.testing import CliRunner
from tiny_sweep import LETTERS_DIR
from tiny_training import mlx_lm_loss

from hawsweep.cli import main
from hawsweep.data.load import load_data
from hawsweep.data.tokens import encode
from hawsweep.errors import DataError, ScoringError, SpecError, StudyError
from hawsweep.results import compare_systems
from hawsweep.results.compare_trials import compare
from hawsweep.scoring.score import Scorer
from hawsweep.spec.read import check_sweep
from hawsweep.spec.scoring import ScoringSpec
from hawsweep.spec.sweep import DataSpec
from hawsweep.spec.train import TrainSpec
from hawsweep.study.place import Place

REFERENCES = [
    "Leilani read the book.",
    "The sea is calm.",
    "Play at the beach.",
    "He is hungry.",
    "We went to the mountain.",
    "Her father is a fisherman.",
    "Do you want this milk?",
    "It rained yesterday.",
]


class Letters:
    """An embedder whose similarity is the share of letters in common."""

    def embed(self, texts):
        pass

    def similarity(self, references, outputs):
        return [
            len(set(a) & set(b)) / len(set(a) | set(b)) if b.strip() else 0.0
            for a, b in zip(references, outputs, strict=True)
        ]


@pytest.fixture
def letters(tmp_path, monkeypatch):
    def scorer(spec, **_):
        made = Scorer(tmp_path, spec)
        made.embedder = Letters()
        return made

    monkeypatch.setattr(compare_systems, "_scorer", scorer)


def table(tmp_path, *columns, n=8, name="p.csv", encoding="utf-8"):
    rows = [["Hawaiian", "English", *(title for title, _ in columns)]]
    for i in range(n):
        rows.append([f"source {i}", REFERENCES[i], *(make(REFERENCES[i]) for _, make in columns)])
    path = tmp_path / name
    mark = "\t" if name.endswith("tsv") else ","
    path.write_text("".join(f"{mark.join(row)}\n" for row in rows), encoding=encoding)
    return path


def score(path, **spec):
    return compare_systems.score_file(path, "Hawaiian", "English", ScoringSpec(**spec))


HALF = ("half", lambda text: text[: len(text) // 2])
SAME = ("same", lambda text: text)
NONE = ("none", lambda _: "")
UPPER = ("upper", lambda text: text.upper())


@pytest.mark.parametrize("name", ["p.csv", "p.tsv"])
def test_columns_are_ranked_with_leads_and_faults(letters, tmp_path, name):
    found = score(table(tmp_path, HALF, NONE, SAME, name=name))
    assert [each.name for each in found.systems] == ["same", "half", "none"]
    same, half, none = found.systems
    assert same.score.score == same.score.exact_match == 1
    assert same.score.chrf == pytest.approx(100)
    assert none.score.faults == {"empty": 8}
    assert none.score.score == 0
    assert half.score.length_ratio == pytest.approx(0.48, abs=0.04)
    assert same.lead.mean == pytest.approx(1 - half.score.score)
    assert half.lead.excludes_zero
    assert none.lead is None
    assert found.agreement == pytest.approx(1)
    assert found.reversed_pairs == ()


def test_metrics_that_disagree_are_named(letters, tmp_path):
    backwards = ("backwards", lambda text: text[::-1])
    found = score(table(tmp_path, backwards, HALF, SAME))
    assert [each.name for each in found.systems][:2] == ["backwards", "same"]
    assert found.reversed_pairs == (("backwards", "same"),)
    assert found.agreement < 1


def test_metric_may_be_another(letters, tmp_path):
    found = score(table(tmp_path, UPPER, SAME), metric="exact_match")
    assert [each.score.score for each in found.systems] == [1, 1]
    assert found.systems[0].lead.mean == 0
    found = score(table(tmp_path, UPPER, SAME), metric="chrf")
    assert found.systems[0].name == "same"
    assert found.systems[0].score.score == pytest.approx(100)


def test_one_row_has_no_interval(letters, tmp_path):
    found = score(table(tmp_path, HALF, SAME, n=1))
    assert found.systems[0].score.summary()["low"] is None
    done = CliRunner().invoke(
        main,
        ["score", str(tmp_path / "p.csv"), "--source", "Hawaiian", "--reference", "English"],
    )
    assert done.exit_code == 0
    assert "same" in done.output
    assert "inf" not in done.output


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.write_text("Hawaiian,English\na,b\n"), "no column beside"),
        (lambda p: p.write_text("Hawaiian,English,x\n"), "no rows"),
        (lambda p: p.write_text("Hawaiian,Deutsch,x\na,b,c\n"), "no column 'English'. Its columns"),
        (lambda p: p.write_text("Hawaiian,English,x\na,,c\n"), "1 of 1 rows have an empty H"),
        (
            lambda p: p.write_text("Hawaiian,English,x\n ,b,c\n"),
            "have an empty Hawaiian or English",
        ),
        (lambda p: p.write_text("Hawaiian,English,x\na,b,c,d\n"), "more cells than the header"),
        (lambda p: p.write_bytes(b"Hawaiian,English,x\n\xff,b,c\n"), "as a CSV in UTF-8"),
        (lambda p: p.write_text(""), "p.csv is empty"),
        (lambda p: p.write_text("Hawaiian,English,group\na,b,c\n"), "no column beside"),
        (lambda p: p.unlink(), "No such file"),
    ],
)
def test_file_that_cannot_be_scored_says_why(letters, tmp_path, change, words):
    path = table(tmp_path, HALF)
    change(path)
    with pytest.raises(DataError, match=words):
        score(path)


def test_unknown_metric_is_refused_in_the_terminal(tmp_path):
    path = table(tmp_path, HALF)
    done = CliRunner().invoke(main, ["score", str(path), "--metric", "rouge"])
    assert done.exit_code == 1
    assert "metric" in done.output
    with pytest.raises(SpecError):
        compare_systems.score_file(path, "Hawaiian", "English", ScoringSpec(metric="absent:f"))


def test_loss_of_a_model_is_that_of_all_answers_of_the_split(
    tiny_model, tiny_model_dir, chat_data_dir
):
    spec = ScoringSpec(embedder=LETTERS_DIR, max_tokens=2, max_examples=4)
    given = (str(tiny_model_dir), None, DataSpec(path=str(chat_data_dir)), "test", spec)
    (system,) = compare_systems.score_model(*given).systems
    records = load_data([DataSpec(path=str(chat_data_dir))]).test
    encoded = encode(records, tiny_model.template, TrainSpec(max_seq_length=256, mask_prompt=True))
    losses = [mlx_lm_loss(tiny_model.model, each) for each in encoded.examples]
    n_tokens = sum(count.item() for _, count in losses)
    expected = sum(loss.item() * count.item() for loss, count in losses) / n_tokens
    assert system.loss == pytest.approx(expected, rel=1e-4)
    assert system.perplexity == pytest.approx(math.exp(expected), rel=1e-3)
    assert len(system.score.samples) == 4


def test_adapter_of_a_study_answers_the_prompts_of_its_study(tmp_path):
    data = {
        "path": str(tmp_path / "pairs.csv"),
        "source": "English",
        "target": "Hawaiian",
        "prompt": "Unuhi: {source}",
        "seed": 3,
        "test_fraction": 0.2,
    }
    content = {"model": "m", "data": data, "search": {"learning_rate": {"choices": [1e-4]}}}
    spec, adapter = check_sweep(content, "a"), tmp_path / "study" / "trials" / "0001" / "adapters"
    adapter.mkdir(parents=True)
    (tmp_path / "study" / "spec.yaml").write_text(spec.dump_yaml())
    (known,) = spec.data
    given = (data["path"], adapter)
    assert compare_systems.data_to_score(*given, None, None) == known
    turned = compare_systems.data_to_score(*given, "Hawaiian", "English")
    assert (turned.source, turned.target, turned.prompt) == ("Hawaiian", "English", known.prompt)
    fused = tmp_path / "study" / "export" / "fused"
    assert compare_systems.data_to_score(data["path"], fused, None, None) == known
    for other in (("other.csv", adapter), (data["path"], Path("a/b")), (data["path"], tmp_path)):
        path, at = other
        assert compare_systems.data_to_score(path, at, None, None) == DataSpec(path=path)


@pytest.mark.parametrize(
    "arguments",
    [
        *([], ["a.csv", "--model", "x"], ["--model", "x"]),
        ["--marks", "m.json", "--source", "x"],
    ],
)
def test_score_needs_one_thing_to_score(arguments):
    assert CliRunner().invoke(main, ["score", *arguments]).exit_code == 2


def samples(folder, scores, **others):
    folder.mkdir(parents=True)
    lines = [
        {
            "source": f"s{i}",
            "reference": f"r{i}",
            "output": f"{folder.name} {i}",
            "score": value,
            "similarity": 0.0,
            "group": "even" if i % 2 == 0 else "odd",
            **others,
        }
        for i, value in enumerate(scores)
    ]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (folder / "samples.jsonl").write_text(text)


@pytest.fixture
def compared(tmp_path):
    place = Place(tmp_path)
    study = optuna.create_study(study_name="s", direction="maximize")
    for value in (0.5, 0.6, 0.4):
        study.add_trial(optuna.trial.create_trial(value=value))
    base = np.array([0.2, 0.4, 0.3, 0.5, 0.1, 0.2])
    samples(tmp_path / "s" / "base", base)
    samples(place.trial_dir("s", 0), base + [0.3, -0.1, 0.1, -0.2, 0.5, 0.0])
    samples(place.trial_dir("s", 1), base + 0.4)
    return study, place


def test_items_are_ordered_from_harmed_to_improved(compared):
    found = compare(*compared, None, 0)
    assert found.labels == ("base", "trial 0")
    assert [item.source for item in found.items] == ["s3", "s1", "s5", "s2", "s0", "s4"]
    assert found.gain.mean == pytest.approx(0.1)
    assert (found.n_better, found.n_worse) == (3, 2)
    assert found.items[0].outputs == ("base 3", "0000 3")
    assert [row.group for row in found.groups] == ["others (2 groups)"]
    assert found.groups[0].gain.mean == pytest.approx(0.1)
    assert found.groups[0].n_prompts == 6


def test_best_trial_is_compared_with_the_base_by_default(compared):
    assert compare(*compared).labels == ("base", "trial 1")
    assert compare(*compared, 0, 1).labels == ("trial 0", "trial 1")


def test_what_did_not_answer_cannot_be_compared(compared):
    with pytest.raises(ScoringError, match="trial 2 has not answered"):
        compare(*compared, None, 2)
    with pytest.raises(StudyError, match="has no trial 7; it has 0 to 2"):
        compare(*compared, None, 7)
    study, place = compared
    samples(place.trial_dir("s", 2), [0.5, 0.4])
    with pytest.raises(ScoringError, match="6 prompts and trial 2 2: they cannot be paired"):
        compare(study, place, None, 2)
    empty = optuna.create_study(study_name="s", direction="maximize")
    with pytest.raises(StudyError, match="no complete trial"):
        compare(empty, place)
