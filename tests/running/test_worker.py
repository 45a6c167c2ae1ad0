import json
from datetime import date

import pytest
import tiny_llama
from chat_templates import KINDS, make_tokenizer
from harness import Lab
from optuna.trial import TrialState

from hawsweep.layout import ADAPTER_DIR
from hawsweep.study import study as study_module
from hawsweep.study.attributes import ARTIFACT, ARTIFACTS

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}


@pytest.fixture
def dated(tmp_path, chat_data_dir, monkeypatch):
    """A sweep of a model whose template asks the clock, and the calendar to turn."""

    class Calendar(date):
        now = date(2026, 1, 31)

        @classmethod
        def today(cls):
            return cls.now

    monkeypatch.setattr(study_module, "date", Calendar)
    monkeypatch.setattr("hawsweep.models.chat_template.date", Calendar)
    folder = tmp_path / "model"
    tokenizer = make_tokenizer(KINDS["Llama 3.1 to 3.3"])
    tiny_llama.save(folder, tokenizer, seed=1, num_key_value_heads=2, **SIZES)
    (tmp_path / "lab").mkdir()
    return Lab(tmp_path / "lab", folder, chat_data_dir), folder, Calendar


def test_study_over_midnight_keeps_its_tokens(dated):
    lab, folder, calendar = dated
    before = lab.worker(folder).context
    calendar.now = date(2026, 2, 1)
    after = lab.worker(folder).context  # as one started anew for the next trial
    prompts = [
        context.loaded.tokenizer.decode(context.train.examples[0].tokens.tolist())
        for context in (before, after)
    ]
    assert "31 Jan 2026" in prompts[0]
    assert prompts[0] == prompts[1]


def test_trial_keeps_its_result_where_its_files_cannot_travel(
    tmp_path, tiny_model_dir, chat_data_dir
):
    lab = Lab(tmp_path, tiny_model_dir, chat_data_dir)
    worker = lab.worker(tiny_model_dir)
    worker._study.set_user_attr(ARTIFACTS, str(tmp_path / "missing"))
    lab.run_next(worker)
    [trial] = lab.trials()
    assert trial.state == TrialState.COMPLETE
    assert ARTIFACT not in trial.user_attrs
    assert (worker.place.trial_dir("tiny", 0) / ADAPTER_DIR).is_dir()
    events = [json.loads(line) for line in worker._events.getvalue().splitlines()]
    [told] = [each["text"] for each in events if each["event"] == "not_told"]
    assert told == (
        f"The folder of artifacts {tmp_path / 'missing'} is not there. Make it, or mount it. The "
        "files of trial 0 stay where they are"
    )
    kinds = [each["event"] for each in events]
    assert kinds.index("not_told") < kinds.index("trial_end")


def test_trial_that_is_ended_elsewhere_just_before_its_result_is_told_has_no_fault(
    tmp_path, tiny_model_dir, chat_data_dir, monkeypatch
):
    lab = Lab(tmp_path, tiny_model_dir, chat_data_dir)
    worker = lab.worker(tiny_model_dir)
    put = worker._put

    def put_slowly(study, number, **how):
        put(study, number, **how)
        study.tell(number, state=TrialState.FAIL)

    monkeypatch.setattr(worker, "_put", put_slowly)
    lab.run_next(worker)
    [trial] = lab.trials()
    assert trial.state == TrialState.FAIL
    events = [json.loads(line) for line in worker._events.getvalue().splitlines()]
    [end] = [each for each in events if each["event"] == "trial_end"]
    assert (end["fault"], end["reason"]) == (None, "marked as failed from outside")
    assert not worker.is_tainted


def test_fault_of_the_gpu_in_a_trial_ended_elsewhere_taints_the_worker(
    tmp_path, tiny_model_dir, chat_data_dir, monkeypatch
):
    lab = Lab(tmp_path, tiny_model_dir, chat_data_dir)
    worker = lab.worker(tiny_model_dir)

    def fails(study, trial, folder):
        study.tell(trial.number, state=TrialState.FAIL)
        raise RuntimeError("[METAL] Command buffer execution failed: Internal Error (0000000e:")

    monkeypatch.setattr(worker, "_value_of", fails)
    lab.run_next(worker)
    events = [json.loads(line) for line in worker._events.getvalue().splitlines()]
    [end] = [each for each in events if each["event"] == "trial_end"]
    assert (end["fault"], end["reason"]) == ("gpu", "marked as failed from outside")
    assert worker.is_tainted
