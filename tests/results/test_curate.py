"""Doubtful training records, the data set without them, and whether it is better."""

import json
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_sweep import phrasebook_lines, tiny_sweep

from hawsweep import load_sweep, run_sweep
from hawsweep.cli import main
from hawsweep.data.doubts import doubts_of_texts, pairs_of
from hawsweep.data.load import load_data
from hawsweep.errors import DataError
from hawsweep.results.curate import Curation, best_first, curate, write_proposal
from hawsweep.results.curate_proof import proof_specs
from hawsweep.spec.sweep import DataSpec
from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage
from hawsweep.study.study import load_study
from hawsweep.trial.pair_losses import pair_losses
from hawsweep.views.json_schema import OUTPUTS

N = 300
DATA = [DataSpec(path="phrasebook")]


def lines_of(split, n, prompt="Translate: {}"):
    """Pairs of the phrase book, as source and reference."""
    found = [json.loads(line)["messages"] for line in phrasebook_lines(split, n)]
    return [(prompt.format(each[1]["content"]), each[2]["content"]) for each in found]


def write(folder, **splits):
    folder.mkdir(exist_ok=True)
    for name, pairs in splits.items():
        records = [{"prompt": source, "completion": reference} for source, reference in pairs]
        text = "".join(json.dumps(record) + "\n" for record in records)
        (folder / f"{name}.jsonl").write_text(text)
    return load_data([DataSpec(path=str(folder))])


def doubts(folder, train, valid=None, information=None):
    """Kinds of doubt by the place of the record."""
    splits = write(folder, train=train, valid=valid or lines_of("valid", 20))
    gain = np.full(len(train), 9.0) if information is None else np.asarray(information)
    found = curate("pairs", 0, splits, np.full(len(train), 3.0), 3.0 + gain)
    return {each.at: set(each.reasons) for each in found.removed}


def test_phrase_book_has_no_doubtful_record(tmp_path):
    assert doubts(tmp_path, lines_of("train", N)) == {}


def test_each_kind_of_harm_is_found_by_its_texts(tmp_path):
    train = lines_of("train", N)
    source, reference = train[7]
    hawaiian = source.removeprefix("Translate: ")
    valid = lines_of("valid", 20)
    train[7] = f"Translate: {reference}", hawaiian
    train[20] = train[20][0], train[20][0].removeprefix("Translate: ")
    train[30] = train[30][0], train[40][0].removeprefix("Translate: ")
    train[50] = train[51]
    train[60] = train[60][0], 9 * train[60][1]
    train[70] = train[70][0], " "
    train[80] = valid[3][0].upper(), valid[3][1]
    assert doubts(tmp_path, train, valid) == {
        7: {"direction"},
        20: {"copy", "language"},
        30: {"language"},
        51: {"repeat"},
        60: {"length"},
        70: {"empty", "length"},
        80: {"leak"},
    }


def test_same_words_in_another_order_are_no_repetition(tmp_path):
    said = ("Aia kāna kalo ma ke kai o Hāna.", "Her taro is at the sea of Hana.")
    asked = ("Aia anei kāna kalo ma ke kai o Hāna?", "Is her taro at the sea of Hana?")
    train = [*lines_of("train", N), asked, said]
    assert doubts(tmp_path, train) == {}
    nearly = said[0], f"Yes: {said[1]}"
    assert doubts(tmp_path, [*train, nearly]) == {N + 2: {"repeat"}}


def test_sides_of_one_language_are_not_told_apart(tmp_path):
    train = lines_of("train", N)
    generator = random.Random(0)
    english = [reference for _, reference in train]
    pairs = [(f"{one} {generator.choice(english)}", one) for one in english]
    assert not any(
        "direction" in each or "language" in each for each in doubts(tmp_path, pairs).values()
    )


def test_reference_that_gains_little_from_its_source_is_unrelated(tmp_path):
    splits = write(tmp_path, train=lines_of("train", N), valid=lines_of("valid", 9))
    generator = np.random.default_rng(0)
    own, other = generator.normal(5, 1, N), generator.normal(20, 3, N)
    own[4], other[4] = 18.0, 17.0  # shuffled
    own[7], other[7] = 18.0, 40.0  # hard, but its source says much
    own[9], other[9] = 1.0, 1.5  # easy without its source
    own[11] = other[11] = np.nan
    found = curate("pairs", 0, splits, own, other)
    assert [(each.at, list(each.reasons)) for each in found.removed] == [(4, ["unrelated"])]
    assert (
        "lowers the loss of its reference by -6%; usual is 7"
        in found.removed[0].reasons["unrelated"]
    )


def test_words_tell_shuffled_references_without_a_model(tmp_path):
    pairs = lines_of("train", 3 * N)
    shuffled = range(0, 3 * N, 60)
    following = [pairs[at][1] for at in (*shuffled[1:], shuffled[0])]
    for at, reference in zip(shuffled, following, strict=True):
        pairs[at] = pairs[at][0], reference
    splits = write(tmp_path, train=pairs, valid=lines_of("valid", 9))
    nothing = np.full(3 * N, np.nan)
    found = curate("pairs", 0, splits, nothing, nothing)
    right = [each for each in found.removed if each.at in shuffled]
    assert len(right) >= 0.8 * len(shuffled)
    assert len(right) >= 0.8 * len(found.removed)
    assert all(list(each.reasons) == ["unrelated"] for each in right)
    assert found.unchecked == (
        "Conflicting references were not looked for: the trial's model does not read the sources "
        "well enough.",
    )


def test_model_that_does_not_read_its_sources_tells_no_shuffled_reference(tmp_path):
    splits = write(tmp_path, train=lines_of("train", N), valid=lines_of("valid", 9))
    information = np.tile([1.0, -1.0], N // 2)
    found = curate("pairs", 0, splits, np.full(N, 3.0), 3.0 + information)
    assert found.removed == ()
    assert found.sentences()[0] == "Nothing is proposed: none of 300 training records is doubtful."
    assert "does not read the sources" in found.sentences()[1]


def test_of_two_references_of_a_source_the_one_that_follows_stays(tmp_path):
    train, information = lines_of("train", N), np.full(N, 9.0)
    train[12] = train[90][0], train[12][1]
    information[12] = 4.0
    assert doubts(tmp_path, train, information=information) == {12: {"conflict", "unrelated"}}
    information[12] = 5.0
    assert doubts(tmp_path, train, information=information) == {12: {"unrelated"}}  # by its words


def proposed(splits):
    own = np.linspace(3, 4, len(splits.train))
    own[4] = 13.0
    return curate("pairs", 0, splits, own, np.full(len(own), 12.0))


def test_proposal_holds_all_but_the_doubtful_records(tmp_path):
    splits = write(tmp_path / "pairs", train=lines_of("train", N), valid=lines_of("valid", 9))
    folder = tmp_path / "pairs-curated"
    for _ in range(2):  # its own folder is written again
        write_proposal(proposed(splits), splits, DATA, folder)
    again = load_data([DataSpec(path=str(folder))])
    kept = [each for at, each in enumerate(splits.train) if at != 4]
    assert [each.content for each in again.train] == [each.content for each in kept]
    assert again.valid.fingerprint == splits.valid.fingerprint
    (removed,) = map(json.loads, (folder / "removed.jsonl").read_text().splitlines())
    assert removed["record"] == splits.train[4].content
    assert list(removed["reasons"]) == ["unrelated"]


def test_best_first_is_the_order_of_what_sources_tell(tmp_path):
    splits = write(tmp_path / "pairs", train=lines_of("train", 5), valid=lines_of("valid", 9))
    other = np.array([10.0, 20.0, 10.0, np.nan, 10.0])
    order = best_first(np.array([5.0, 8.0, 9.0, 3.0, 11.0]), other)
    assert order == [1, 0, 2, 4, 3]  # shares .6, .5, .1, -.1, and one that was not measured
    without = curate("pairs", 0, splits, np.full(5, np.nan), np.full(5, np.nan))
    write_proposal(without, splits, DATA, tmp_path / "ordered", order)
    again = load_data([DataSpec(path=str(tmp_path / "ordered"))]).train
    assert [each.content for each in again] == [splits.train[at].content for at in order]


def test_folder_of_something_else_is_refused(tmp_path):
    splits = write(tmp_path / "pairs", train=lines_of("train", N), valid=lines_of("valid", 9))
    before = (tmp_path / "pairs/train.jsonl").read_bytes()
    with pytest.raises(DataError, match="is no proposal of `hawsweep curate`"):
        write_proposal(proposed(splits), splits, DATA, tmp_path / "pairs")
    (tmp_path / "pairs/removed.jsonl").write_text("")  # a proposal on which the study was trained
    own = [DataSpec(path=str(tmp_path / "pairs"))]
    with pytest.raises(DataError, match="has the study's own data, which stay as they are"):
        write_proposal(proposed(splits), splits, own, tmp_path / "pairs")
    assert (tmp_path / "pairs/train.jsonl").read_bytes() == before


def test_proposal_takes_an_empty_folder_and_leaves_no_split_of_an_earlier_one(tmp_path):
    splits = write(tmp_path / "pairs", train=lines_of("train", N), valid=lines_of("valid", 9))
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / ".DS_Store").write_text("")
    write_proposal(proposed(splits), splits, DATA, folder)
    (folder / "test.jsonl").write_text("of an earlier one\n")
    write_proposal(proposed(splits), splits, DATA, folder)
    names = {each.name for each in folder.iterdir()}
    assert names == {".DS_Store", "removed.jsonl", "train.jsonl", "valid.jsonl"}


def test_what_most_records_do_is_not_doubtful(tmp_path):
    lines = [("Write a proverb.", each) for each in ("He waʻa", "He lei", "He aloha", "Imua")]
    splits = write(tmp_path / "pairs", train=lines, valid=lines_of("valid", 9))
    nothing = np.full(len(lines), np.nan)
    assert curate("pairs", 0, splits, nothing, nothing).removed == ()
    said = ("He lei", "Kimo", "Ka hale", "Aloha", "Mahalo nui", "Pehea")
    copies = [(each, each) for each in said]
    splits = write(tmp_path / "copies", train=copies, valid=lines_of("valid", 9))
    nothing = np.full(len(copies), np.nan)
    found = curate("pairs", 0, splits, nothing, nothing)
    assert found.removed == ()
    assert "Not proposed: 6 of 6 records for copy, which is usual here." in found.unchecked


def test_instruction_that_all_share_makes_no_leak(tmp_path):
    told = " ".join(f"word{n}" for n in range(40))
    train = [(f"{told}: {n} lei", f"{n} wreaths") for n in range(60)]
    valid = [(f"{told}: {n} waʻa", f"{n} canoes") for n in range(9)]
    splits = write(tmp_path / "pairs", train=[*train, valid[3]], valid=valid)
    found = list(doubts_of_texts(pairs_of(splits.train), splits.train, splits))
    assert [(at, kind) for at, kind, _ in found if kind == "leak"] == [(60, "leak")]


def test_empty_proposal_is_one_sentence():
    found = Curation("pairs", 0, 12, (), ())
    assert found.sentences() == ["Nothing is proposed: none of 12 training records is doubtful."]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_model_dir):
    """A place with a trained study, whose data have a repeated record."""
    place = tmp_path_factory.mktemp("curated")
    pairs = lines_of("train", 60)
    write(place / "pairs", train=[*pairs, pairs[5]], valid=lines_of("valid", 12))
    changes = {"trials": 1, "search.iters.choices": (8,), "train.steps_per_eval": 4}
    spec = load_sweep(tiny_sweep(tiny_model_dir, place / "pairs"), changes)
    with ThreadPoolExecutor() as threads:
        threads.submit(run_sweep, spec, "tiny", studies_dir=place).result(timeout=1800)
    return place


def test_proposal_is_shown_written_and_proved(trained):
    command = ["curate", "tiny", "--studies-dir", str(trained)]
    shown = CliRunner().invoke(main, command)
    assert shown.exit_code == 0, shown.output
    words = " ".join(shown.output.split())
    assert "1 of 61 training records (1.6%) are proposed to be left out." in words
    assert "repeats another record" in words
    assert (trained / "pairs-curated/train.jsonl").read_text().count("\n") == 60
    proved = CliRunner().invoke(main, [*command, "--prove", "--json"])
    found = json.loads(proved.stdout)
    OUTPUTS["curate"].validate_python(found)
    assert found["folder"] == str(trained / "pairs-curated")
    assert found["proof"]["n_seeds"] == 2
    one, other = found["proof"]["val_losses"]
    assert one - other == pytest.approx(found["proof"]["loss_gain"]["mean"])


def test_best_first_is_written_and_proved_in_that_order(trained, tmp_path):
    folder = tmp_path / "ordered"
    command = ["curate", "tiny", "--best-first", "--out", str(folder), "--studies-dir"]
    shown = CliRunner().invoke(main, [*command, str(trained)])
    assert shown.exit_code == 0, shown.output
    assert "It is ordered best first" in " ".join(shown.output.split())
    command[-2] = str(tmp_path / "again")
    as_json = CliRunner().invoke(main, [*command, str(trained), "--json"])
    assert json.loads(as_json.stdout)["is_ordered"]
    place = Place(trained)
    study = load_study(open_storage(place), "tiny")
    trial, splits = study.trials[0], load_data([DataSpec(path=str(trained / "pairs"))])
    losses = pair_losses(study, place, 0, splits)
    shares = 1 - losses.own / losses.other
    known = {each.texts[0]: share for each, share in zip(splits.train, shares, strict=True)}
    del known[splits.train[5].texts[0]]  # it is there twice
    written = [each.texts[0] for each in load_data([DataSpec(path=str(folder))]).train]
    found = [known[each] for each in written if each in known]
    assert len(found) == 59
    assert found == sorted(found, reverse=True)
    order = {"order": "curriculum", "difficulty": "place"}
    everything, proposal = proof_specs(study, place, trial, splits, folder, 1, 2, order).values()
    assert everything.train.order == "shuffle"
    assert (proposal.train.order, proposal.train.difficulty) == ("curriculum", "place")


def test_losses_are_kept_for_the_next_time(trained, monkeypatch):
    assert (
        CliRunner().invoke(main, ["curate", "tiny", "--studies-dir", str(trained)]).exit_code == 0
    )
    monkeypatch.setattr("hawsweep.trial.pair_losses.adapted_model", None)
    again = CliRunner().invoke(main, ["curate", "tiny", "--studies-dir", str(trained)])
    assert again.exit_code == 0, again.output


def test_study_without_a_trial_and_wrong_names_are_refused(trained):
    for more in (["none"], ["tiny", "--trial", "7"]):
        refused = CliRunner().invoke(main, ["curate", *more, "--studies-dir", str(trained)])
        assert refused.exit_code == 1
        assert "Traceback" not in refused.output
