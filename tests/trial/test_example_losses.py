"""A trial's hardest and easiest training examples."""

import shutil
from itertools import islice

import numpy as np
import pytest
from trial_bench import SETTINGS

from hawsweep.data.load import load_data
from hawsweep.errors import DataError, HawsweepError
from hawsweep.spec.space import apply_settings
from hawsweep.training.adapters import adapted, load_adapter
from hawsweep.training.evaluation import make_evaluator
from hawsweep.trial.example_losses import hardest_and_easiest


def test_examples_are_ranked_by_the_loss_of_the_final_adapter(sweep):
    made = sweep()
    _, folder, _ = made.run(iters=12)
    hardest, easiest = hardest_and_easiest(made.study, made.place, 0, n_each=3)
    context = made.context
    examples = context.train.examples
    with adapted(context.loaded.model, apply_settings(made.spec.train, SETTINGS)):
        load_adapter(context.loaded.model, folder / "adapters")
        losses = [make_evaluator(context.loaded.model, [each], 1)(0).val_loss for each in examples]
    ranked = sorted(losses)
    assert [example.loss for example in hardest] == pytest.approx(ranked[::-1][:3], rel=1e-5)
    assert [example.loss for example in easiest] == pytest.approx(ranked[:3], rel=1e-5)
    at = int(context.train.record_indices[int(np.argmax(losses))])
    assert hardest[0].source == load_data(made.spec.data).train[at].source


def test_only_examples_that_the_trial_trained_on_are_ranked(sweep):
    n = 9
    made = sweep(search={"max_train_samples": {"choices": [n, 12]}})
    made.run(max_train_samples=n)
    hardest, easiest = hardest_and_easiest(made.study, made.place, 0, n_each=n)
    order = made.context.order(made.spec.train.model_copy(update={"max_train_samples": n}))
    trained = {i for batch in islice(order, n) for i in batch}
    records = load_data(made.spec.data).train
    shown = [each.where for each in (*hardest, *easiest)]
    assert len(set(shown)) == 2 * (n // 2)
    assert set(shown) <= {records[int(made.context.train.record_indices[i])].where for i in trained}


def test_variants_are_trained_and_ranked_as_examples_are(sweep):
    made = sweep(train={"augment": {"name": "reverse", "prompt": "Say it: {source}"}})
    _, folder, _ = made.run()
    n = int(made.context.augmented.is_plain(made.context.train.record_indices).sum())
    batches = islice(made.context.order(made.spec.train), 2 * n // made.spec.train.batch_size)
    assert sorted(i for batch in batches for i in batch) == [*range(2 * n)]
    hard, easy = hardest_and_easiest(made.study, made.place, 0, n_each=2 * n)
    assert len(hard) == len(easy) == n
    other_way = [each for each in (*hard, *easy) if " (reverse):" in each.where]
    assert all(each.source.startswith("Say it: ") for each in other_way)
    assert len(other_way) == n
    assert "# mlx_lm.lora has no key for: augment: reverse" in (folder / "config.yaml").read_text()
    assert len(made.context.workload(with_variants=False).lengths) == n


def test_examples_of_a_trial_without_its_adapter_are_refused(sweep):
    made = sweep()
    _, folder, _ = made.run()
    shutil.rmtree(folder / "adapters")
    with pytest.raises(HawsweepError, match="Trial 0 of study 'tiny' has no adapter"):
        hardest_and_easiest(made.study, made.place, 0, 3)


def test_examples_of_data_that_changed_are_refused(sweep, chat_data_dir, tmp_path):
    copied = tmp_path / "copied"
    shutil.copytree(chat_data_dir, copied)
    made = sweep(data=str(copied))
    made.run()
    lines = (copied / "train.jsonl").read_text().splitlines(keepends=True)
    (copied / "train.jsonl").write_text("".join(lines[1:]))
    with pytest.raises(DataError, match="The data of study 'tiny' has changed since"):
        hardest_and_easiest(made.study, made.place, 0, 3)
