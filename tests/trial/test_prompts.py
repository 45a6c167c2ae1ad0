"""The untuned model's prompts: chosen by the validation prompts, and asked again on the test's."""

import json

import pytest
from trial_bench import FixedScorer, judged

from hawsweep.data.records import Record
from hawsweep.errors import DataError
from hawsweep.trial.measure_base import measure_base, score_test
from hawsweep.trial.prompts import Prompt, instructed, pick, room_in, untried

INSTRUCTIONS = ["Say it in English.", "{prompt} In English:"]
PAIR = {"prompt": "Aloha", "completion": "Hello"}
CHAT = {
    "messages": [
        {"role": "system", "content": "Translate."},
        {"role": "user", "content": "Aloha"},
        {"role": "assistant", "content": "Hello"},
    ]
}


class Prefers(FixedScorer):
    """Scores a prompt by what is in it; ``asked`` has the splits' questions as they were put."""

    def score(self, loaded, records, on_batch):
        self.asked.append([[each["content"] for each in record.messages] for record in records])
        texts = self.asked[-1][0]
        is_second = texts[-2].endswith("In English:")
        n_examples = sum(text.endswith("In English:") for text in texts) - 1
        return judged([0.7 + 0.01 * n_examples if is_second else 0.4 for _ in records])


def always(record):
    return True


def contents(record):
    return [each["content"] for each in record.messages]


def test_instruction_is_a_system_message_or_around_each_question():
    chat, pair = Record(CHAT), Record(PAIR)
    assert contents(instructed(chat, INSTRUCTIONS[0])) == [INSTRUCTIONS[0], "Aloha", "Hello"]
    assert contents(instructed(pair, INSTRUCTIONS[0])) == [INSTRUCTIONS[0], "Aloha", "Hello"]
    asked = ["Aloha In English:", "Hello"]
    assert contents(instructed(chat, INSTRUCTIONS[1])) == ["Translate.", *asked]
    assert contents(instructed(pair, INSTRUCTIONS[1])) == asked
    assert instructed(chat, "") is chat


def test_examples_are_instructed_as_the_question_is():
    shown = Record({"prompt": "ʻAe", "completion": "Yes"})
    prompt = Prompt((shown,), 2, INSTRUCTIONS[1])
    asked = prompt.of(Record(PAIR), always)
    assert contents(asked) == ["ʻAe In English:", "Yes", "Aloha In English:", "Hello"]
    assert asked.reference == "Hello"
    assert prompt.about == {"n_examples": 1, "instruction": 2}
    assert Prompt((shown,)).about == {"n_examples": 1}


def test_each_prompt_is_tried_on_the_validation_prompts_and_the_best_tested(sweep, tmp_path):
    made = sweep(
        scoring={"prompt": {"examples": [0, 1, 2], "instructions": INSTRUCTIONS}},
        train={"max_seq_length": 512},
    )
    context = made.context
    tried = [(each.number, len(each.examples)) for each in context.prompts]
    # With no example and the data's own prompt it is the base.
    assert tried == [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]
    assert len(tried) == made.spec.scoring.prompt.n_tried
    context.scorer = Prefers()
    found = measure_base(context, tmp_path / "base")["few_shot"]
    assert {len(asked) for asked in context.scorer.asked} == {len(context.valid_prompts)}
    assert (found["n_examples"], found["instruction"], found["score"]) == (2, 2, 0.72)
    assert [each["score"] for each in found["tried"]] == [0.4] * 5 + [0.7, 0.71, 0.72]
    assert found["tried"][2] == {
        "n_examples": 0, "instruction": 1, "score": 0.4, "low": 0.4, "high": 0.6,
    }  # fmt: skip
    kept = (tmp_path / "base" / "few_shot_samples.jsonl").read_text().splitlines()
    assert json.loads(kept[0])["score"] == 0.72

    trial, folder, _ = made.run()
    scores = score_test(context, trial, folder / "adapters", found)
    _, few_shot, tuned = context.scorer.asked[-3:]
    assert len(few_shot) == len(context.test_prompts)
    assert all(texts[-2].endswith("In English:") for texts in few_shot)
    assert len(few_shot[0]) == len(tuned[0]) + 4  # two examples
    assert scores["few_shot"].score == 0.72
    assert scores["trial"].score == 0.4  # asked with the data's own prompt


def test_prompts_that_room_makes_alike_are_tried_once(sweep):
    asked = {"examples": [0, 18, 19], "instructions": INSTRUCTIONS[:1]}
    prompts = sweep(scoring={"prompt": asked}, train={"max_seq_length": 96}).context.prompts
    found = [(each.number, each.n_examples) for each in prompts]
    assert len(found) < 5
    assert len(set(found)) == len(found)
    assert max(n for _, n in found) < 18
    assert sweep(scoring={"prompt": {"examples": [0]}}).context.prompts == []


def written(folder, **splits):
    folder.mkdir()
    for name, records in splits.items():
        lines = "".join(json.dumps({"messages": each}) + "\n" for each in records)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def chat(question, answer="Yes", system=None, role="system"):
    first = [] if system is None else [{"role": role, "content": system}]
    asked = {"role": "user", "content": question}
    return [*first, asked, {"role": "assistant", "content": answer}]


def test_each_question_has_as_many_examples_as_leave_it_room(sweep, tmp_path):
    train = [chat(f"ʻAe {n}") for n in range(9)]
    valid = [chat("Aloha"), chat("Aloha kakou " * 8), chat("Aloha kakou " * 60)]
    made = sweep(written(tmp_path / "a", train=train, valid=valid), train={"max_seq_length": 128})
    context = made.context
    (prompt,) = context.prompts
    assert prompt.about == {"n_examples": 4}
    has_room = room_in(made.spec, context.loaded)
    shown = [len(prompt.shown(each, has_room)) for each in context.valid_prompts]
    assert shown[0] == 4
    assert 0 < shown[1] < 4
    assert shown[2] == 0
    (said,) = untried(made.spec, context.loaded, [prompt], context.valid_prompts)
    assert said.startswith("1 of 3 questions are asked without examples")


@pytest.mark.parametrize("role", ["system", "developer"])
def test_each_system_message_has_its_own_examples(sweep, tmp_path, role):
    systems = ["To English.", "To French.", None]
    train = [chat(f"{n}", str(system), system, role) for n in range(12) for system in systems]
    valid = [chat("Aloha", "?", system, role) for system in systems]
    context = sweep(written(tmp_path / "b", train=train, valid=valid)).context
    (prompt,) = context.prompts
    assert prompt.about == {"n_examples": 4}
    for record, system in zip(context.valid_prompts, systems, strict=True):
        shown = contents(prompt.of(record, always))
        assert shown[1 - (system is None) :][1::2] == [str(system)] * 4 + ["?"]
        assert len(shown) == 10 + (system is not None)


@pytest.mark.parametrize("instructions", [[], INSTRUCTIONS[:1]])
def test_records_that_cannot_be_shown_are_not_drawn(sweep, tmp_path, instructions):
    twice = [chat("Who?")[0], *chat("Pele?")]  # a question that has no answer
    train = [chat("1"), *[twice] * 30, chat("2"), chat("3"), chat("4")]
    asked = {"examples": 4, "instructions": instructions}
    data = written(tmp_path / "e", train=train, valid=[chat("Aloha")])
    prompts = sweep(data, scoring={"prompt": asked}).context.prompts
    assert [each.n_examples for each in prompts] == [4] * (1 + len(instructions))


def test_instruction_that_is_the_system_message_goes_with_any_examples(sweep, tmp_path):
    train, valid = [chat(f"{n}", system=f"{n}.") for n in range(9)], [chat("Aloha", system="?")]
    asked = {"examples": 4, "instructions": INSTRUCTIONS}
    made = sweep(written(tmp_path / "c", train=train, valid=valid), scoring={"prompt": asked})
    context = made.context
    assert [each.about for each in context.prompts] == [
        {"n_examples": 4, "instruction": 1},
        {"n_examples": 0, "instruction": 2},
    ]
    shown = contents(context.prompts[0].of(context.valid_prompts[0], always))
    assert shown[0] == INSTRUCTIONS[0]
    assert shown[2::2] == ["Yes"] * 5
    assert untried(made.spec, context.loaded, context.prompts, context.valid_prompts) == []


def test_examples_that_cannot_be_shown_are_said(sweep, tmp_path):
    train, valid = [chat(f"{n}", system=f"{n}.") for n in range(9)], [chat("Aloha", system="?")]
    made = sweep(written(tmp_path / "d", train=train, valid=valid))
    context = made.context
    assert context.prompts == []
    (said,) = untried(made.spec, context.loaded, [], context.valid_prompts)
    assert said.startswith("1 of 1 questions are asked without examples")
    none = sweep(scoring={"prompt": {"examples": 0}})
    assert untried(none.spec, none.context.loaded, [], none.context.valid_prompts) == []


def test_longer_question_is_asked_with_the_instruction_chosen():
    shown = Record(PAIR)
    prompts = [Prompt((shown,)), Prompt((), 1, "One."), Prompt((shown,), 1, "One.")]
    assert pick(prompts, {"n_examples": 4, "instruction": 1}) is prompts[2]
    assert pick(prompts, {"n_examples": 0, "instruction": 1}) is prompts[1]
    assert pick(prompts, {}) is prompts[0]
    assert pick(prompts[1:], {"n_examples": 4}) == Prompt()  # not another instruction


def test_instruction_that_the_template_does_not_show_is_refused(sweep, tiny_model, monkeypatch):
    monkeypatch.setitem(tiny_model.template._shown, "system", False)
    assert sweep(scoring={"prompt": {"instructions": INSTRUCTIONS[1]}}).context.prompts
    told = r"scoring\.prompt\.instructions\[0\] is a system message, which .* does not show\. Write"
    with pytest.raises(DataError, match=told):
        sweep(scoring={"prompt": {"instructions": INSTRUCTIONS}})
