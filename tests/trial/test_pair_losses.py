"""A trial's losses on references after their own sources and after others."""

import json
import shutil

import numpy as np
import pytest
from trial_bench import SETTINGS

from hawsweep.data.load import load_data
from hawsweep.data.records import Record
from hawsweep.data.tokens import encode
from hawsweep.errors import DataError
from hawsweep.spec.space import apply_settings
from hawsweep.spec.train import TrainSpec
from hawsweep.training.adapters import adapted, load_adapter
from hawsweep.training.evaluation import make_evaluator
from hawsweep.trial.pair_losses import pair_losses, with_other_sources


def test_each_source_stands_before_another_reference_once(sweep):
    records = list(load_data(sweep().spec.data).train)
    others = with_other_sources(records)
    assert [each.reference for each in others] == [each.reference for each in records]
    assert sorted(each.source for each in others) == sorted(each.source for each in records)
    assert all(one.source != other.source for one, other in zip(records, others, strict=True))


def test_losses_are_those_of_each_pair_alone_by_the_trials_adapter(sweep):
    made = sweep()
    _, folder, _ = made.run(iters=12)
    splits = load_data(made.spec.data)
    found = pair_losses(made.study, made.place, 0, splits)
    records = list(splits.train)
    model = made.context.loaded.model

    def loss(record: Record) -> float:
        (example,) = encode(
            [record], made.context.loaded.template, TrainSpec(max_seq_length=256, mask_prompt=True)
        ).examples
        return make_evaluator(model, [example], 1)(0).val_loss * example.n_targets

    with adapted(model, apply_settings(made.spec.train, SETTINGS)):
        load_adapter(model, folder / "adapters")
        own = [loss(each) for each in records]
        other = [loss(each) for each in with_other_sources(records)]
    assert found.own == pytest.approx(own, rel=1e-4)
    assert found.other == pytest.approx(other, rel=1e-4)
    assert not np.allclose(own, other)


def test_data_that_changed_or_has_no_answers_is_refused(sweep, chat_data_dir, tmp_path):
    copied = tmp_path / "copied"
    shutil.copytree(chat_data_dir, copied)
    made = sweep(data=str(copied))
    made.run()
    path = copied / "train.jsonl"
    first, *lines = path.read_text().splitlines()
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match="The data of study 'tiny' has changed since"):
        pair_losses(made.study, made.place, 0, load_data(made.spec.data))
    asked = json.loads(first)["messages"][:-1]
    path.write_text("\n".join([json.dumps({"messages": asked}), *lines]))
    unanswered = sweep(data=str(copied))
    with pytest.raises(DataError, match="A training record has no answer"):
        pair_losses(unanswered.study, unanswered.place, 0, load_data(unanswered.spec.data))
