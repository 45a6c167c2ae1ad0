"""Searched settings that are no plain numbers: lengths, layers by name, shares of the blocks."""

import numpy as np
import pytest

from hawsweep.data.tokens import Encoded, Examples
from hawsweep.errors import DataError, SpecError
from hawsweep.planning.workload import Workload
from hawsweep.search.coordinates import Coordinates
from hawsweep.spec.read import check_sweep
from hawsweep.spec.space import apply_settings, corners, values_of
from hawsweep.spec.train import TrainSpec


def sweep(search, **train):
    content = {"model": "m", "data": "phrasebook", "search": search, "train": train}
    return check_sweep(content, "a sweep")


def encoded():
    """Three examples of 3, 6 and 9 tokens, learned from their third, fourth and eighth on."""
    tokens = np.arange(18, dtype=np.int32)
    lengths, n_targets = np.array([3, 6, 9], np.int32), np.array([1, 3, 2], np.int32)
    weights = np.array([1.0, 2.0, 3.0], np.float32)
    return Encoded(Examples(tokens, lengths, n_targets), np.array([0, 4, 7]), 0, 0, 0, weights)


def test_examples_are_cut_as_if_they_were_encoded_so():
    cut = encoded().cut(5)
    assert [each.tokens.tolist() for each in cut.examples] == [[0, 1, 2], [3, 4, 5, 6, 7]]
    assert [each.offset for each in cut.examples] == [2, 3]
    # The third has nothing to learn within five tokens.
    assert cut.record_indices.tolist() == [0, 4]
    assert cut.weights.tolist() == [1.0, 2.0]
    whole = encoded().cut(9)
    assert [len(each.tokens) for each in whole.examples] == [3, 6, 9]
    with pytest.raises(DataError, match="anything to learn"):
        encoded().cut(2)


def test_workload_is_cut_with_its_targets():
    work = Workload(np.array([3, 6, 9]), np.array([1, 3, 2]), "made up").cut(8)
    assert work.lengths.tolist() == [3, 6, 8]
    assert work.n_targets.tolist() == [1, 3, 1]
    assert work.cut(8) is work


def test_searched_length_cuts_training_alone():
    spec = sweep({"max_seq_length": {"choices": [64, 256, 128]}})
    assert spec.train.max_seq_length == 256  # of validation, prompts and plans
    assert apply_settings(spec.train, {"max_seq_length": 64}).max_seq_length == 64
    again = check_sweep(
        spec.model_dump(mode="json", exclude_none=True)
        | {"train": {}, "search": {"max_seq_length": {"choices": [64, 256, 128]}}},
        "again",
    )
    assert again.fingerprint()["train"]["max_seq_length"] == 256
    with pytest.raises(SpecError, match=r"also fixed as train\.max_seq_length"):
        sweep({"max_seq_length": {"choices": [64, 128]}}, max_seq_length=64)


def test_layers_to_adapt_are_searched_by_name():
    choices = ["all", ["self_attn.q_proj"], ["self_attn.q_proj", "mlp.up_proj"]]
    spec = sweep({"lora_parameters": {"keys": {"choices": choices}}})
    asked = spec.search["lora_parameters.keys"]
    found = [
        apply_settings(spec.train, settings).lora_parameters.keys
        for settings in corners(spec.search, spec.search)
    ]
    assert found == [None, ("self_attn.q_proj",), ("self_attn.q_proj", "mlp.up_proj")]
    queued = {"enqueue": [{"lora_parameters.keys": choices[2]}]}
    again = check_sweep({**spec.model_dump(mode="json", exclude_none=True), **queued}, "a sweep")
    assert again.enqueue == ({"lora_parameters.keys": "self_attn.q_proj, mlp.up_proj"},)
    assert values_of("lora_parameters.keys", asked)[-1] == "self_attn.q_proj, mlp.up_proj"
    assert Coordinates(spec.search).count() == 3
    assert (
        TrainSpec.model_validate({"lora_parameters": {"keys": "all"}}).lora_parameters.keys is None
    )


@pytest.mark.parametrize(
    ("asked", "blocks"),
    [
        (0.5, {30: 15, 34: 17, 3: 2}),
        (0.01, {30: 1, 3: 1}),
        (-1, {30: 30, 3: 3}),
        (8, {30: 8, 3: 8}),
    ],
)
def test_share_of_the_blocks_means_the_same_for_every_model(asked, blocks):
    train = TrainSpec(num_layers=asked)
    assert {n_all: train.n_blocks(n_all) for n_all in blocks} == blocks


def test_shares_of_the_blocks_are_searched_in_their_order():
    spec = sweep({"num_layers": {"choices": [0.5, -1, 0.25]}})
    assert values_of("num_layers", spec.search["num_layers"]) == [0.25, 0.5, -1]
    with pytest.raises(SpecError, match=r"has shares \(0\.5\) beside numbers of layers"):
        sweep({"num_layers": {"choices": [0.5, 8, -1]}})
    with pytest.raises(SpecError, match=r"has shares \(0\.25, 0\.5\) beside numbers of layers"):
        sweep({"num_layers": {"choices": [0.25, 0.5, 1.0]}})  # one block, not all
    for ends, said in ((0.25, 0.75), "0.25, 0.75"), ((0.5, 4), "0.5"):
        with pytest.raises(SpecError, match=rf"has shares \({said}\) as ends .* Give shares as ch"):
            sweep({"num_layers": dict(zip(("low", "high"), ends, strict=True))})


@pytest.mark.parametrize("wrong", [0, -2, 1.5, "8", True])
def test_number_of_layers_that_cannot_be_is_refused(wrong):
    with pytest.raises(SpecError, match=r"train\.num_layers is"):
        sweep({"learning_rate": {"choices": [1e-4]}}, num_layers=wrong)
