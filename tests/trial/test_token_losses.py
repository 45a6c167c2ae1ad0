import numpy as np
import optuna
import pytest
from click.testing import CliRunner
from tiny_sweep import tiny_sweep

from hawsweep.cli import main
from hawsweep.data.load import load_data
from hawsweep.data.tokens import encode
from hawsweep.errors import StudyError
from hawsweep.search.distributions import distributions
from hawsweep.spec.read import check_sweep
from hawsweep.spec.space import apply_settings
from hawsweep.spec.train import TrainSpec
from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage
from hawsweep.study.study import create_study
from hawsweep.training.adapters import adapted, save_adapter
from hawsweep.training.evaluation import make_evaluator
from hawsweep.trial.token_losses import hardest_tokens

SETTINGS = {"learning_rate": 1e-3, "lora_parameters.rank": 2, "iters": 24}


@pytest.fixture
def trained(tiny_model, tiny_model_dir, chat_data_dir, tmp_path):
    """A study with a trial whose adapter is new, so that it changes nothing; and its spec."""
    spec = check_sweep(tiny_sweep(tiny_model_dir, chat_data_dir), "tiny")
    place = Place(tmp_path / "studies")
    study, _ = create_study(open_storage(place, create=True), place, "tiny", spec, {})
    known = distributions(spec.search)
    study.add_trial(optuna.create_trial(params=SETTINGS, distributions=known, value=0.5))
    train = apply_settings(spec.train, SETTINGS)
    with adapted(tiny_model.model, train):
        save_adapter(tiny_model.model, train, place.trial_dir("tiny", 0) / "adapters")
    return study, place, spec


def test_hardest_tokens_are_those_of_highest_loss_in_their_answers(trained, tiny_model):
    study, place, spec = trained
    every = hardest_tokens(study, place, 0, 10**6)
    records = load_data(spec.data).valid[:]  # all of them, else the count below differs
    records = [record for record in records if record.where in {each.where for each in every}]
    assert len(records) == spec.scoring.max_examples
    examples = encode(
        records, tiny_model.template, TrainSpec(max_seq_length=256, mask_prompt=True)
    ).examples
    assert len(every) == examples.n_targets.sum()
    expected = make_evaluator(tiny_model.model, examples, 1)(0).val_loss
    assert np.mean([each.loss for each in every]) == pytest.approx(expected, rel=1e-4)
    losses = [each.loss for each in every]
    assert losses == sorted(losses, reverse=True)
    answers = {record.where: record.reference for record in records}
    for each in every:
        if "�" not in each.before + each.token + each.after:  # a token may be half of a letter
            assert (each.before + each.token + each.after).startswith(answers[each.where])
    assert hardest_tokens(study, place, 0, 3) == every[:3]


def test_tokens_are_shown_in_their_sentence(trained):
    _, place, _ = trained
    given = ["show", "tiny", "0", "--tokens", "2", "--studies-dir", str(place.studies_dir)]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 0, done.output
    assert "The hardest tokens of the validation answers" in done.stdout
    assert done.stdout.count("valid.jsonl:") == 2


def test_trial_without_an_adapter_has_no_tokens(trained):
    study, place, _ = trained
    (place.trial_dir("tiny", 0) / "adapters" / "adapters.safetensors").unlink()
    with pytest.raises(StudyError, match=r"Trial 0 of study 'tiny' has no adapter: it did not"):
        hardest_tokens(study, place, 0, 1)
