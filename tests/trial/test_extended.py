"""A trial that is given more iterations while it runs."""

from hawsweep.machine.backend import mx

import pytest
from trial_bench import SETTINGS

from hawsweep.search.distributions import distributions
from hawsweep.study.optuna_door import storage_of, trial_id
from hawsweep.study.queue import repeat_trial

EIGHT_TO_16 = {"iters": {"choices": [8, 16]}}


def losses(trial):
    return dict(sorted(trial.intermediate_values.items()))


@pytest.mark.parametrize("at", [4, 8])
def test_extended_trial_ends_as_if_it_had_had_all_iterations(sweep, at):
    whole, folder, _ = sweep(search=EIGHT_TO_16).run(iters=16)
    made = sweep(search=EIGHT_TO_16)

    def tell(kind, **values):
        if kind == "eval" and values["iteration"] == at:
            running = made.study.get_trials(deepcopy=False)[0]
            storage_of(made.study).set_trial_user_attr(trial_id(running), "iters", 16)

    extended, other, metrics = made.run(tell, iters=8)
    assert losses(extended) == losses(whole)
    assert list(losses(extended)) == [4, 8, 12, 16]
    assert extended.params == {**SETTINGS, "iters": 8}
    assert [each["iteration"] for each in metrics if each["type"] == "eval"] == [4, 8, 12, 16]
    one, two = (mx.load(str(each / "adapters/adapters.safetensors")) for each in (folder, other))
    assert all(mx.array_equal(one[name], two[name]) for name in one)


def test_extended_trial_that_dies_is_repeated_with_its_iterations(sweep):
    made = sweep(search=EIGHT_TO_16)
    trial = made.study.ask(distributions(made.spec.search))
    trial.set_user_attr("iters", 16)
    repeat_trial(made.study, trial.number)
    assert made.study.trials[-1].user_attrs["iters"] == 16
