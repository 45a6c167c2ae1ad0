"""Trials pause at rungs and are promoted; whatever dies meanwhile, nothing is trained twice."""

PROMOTED = {
    "pruning": {"name": "promote"},
    "sampler": {"name": "gp"},
    "search": {
        "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "lora_parameters.rank": {"choices": [2, 4]},
    },
    "confirm": {"top": 2, "seeds": 1},
}


def test_sweep_promotes(lab):
    here = lab(trials=8, **PROMOTED)
    with here.start("train.iters=160") as run:
        assert run.wait() == 0
    for e in run.events:
        if e["kind"] in ("trial_start", "trial_end", "confirm_end", "exhausted"):
            print(
                e["kind"],
                e["values"].get("number"),
                e["values"].get("state"),
                e["values"].get("reason"),
                e["values"].get("val_loss"),
            )
    for t in here.trials():
        print(
            t.number,
            t.state,
            t.params,
            t.last_step,
            t.value,
            t.user_attrs.get("reason"),
            t.user_attrs.get("time_s"),
        )
    assert 0
