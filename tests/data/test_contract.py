"""What is learned is what is asked and scored: a model memorizes pairs through hawsweep's own
encoding and loss, and answers through its own generation.
"""

import json
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import pytest
import tiny_llama
from chat_templates import KINDS, THINK, Kind, make_tokenizer
from tiny_sweep import LETTERS_DIR
from tiny_training import Recorder, batch_order, settings
from tokenizers.normalizers import NFD, Sequence, StripAccents
from tokenizers.processors import TemplateProcessing

from hawsweep.data.records import Record
from hawsweep.data.tokens import encode, encode_prompt, is_example
from hawsweep.errors import DataError, ModelError
from hawsweep.models.chat_template import ChatTemplate, without_thoughts
from hawsweep.models.load import load_model, load_template
from hawsweep.scoring.score import Scorer, translate
from hawsweep.spec.scoring import ScoringSpec
from hawsweep.spec.train import TrainSpec
from hawsweep.training.evaluation import make_evaluator
from hawsweep.training.train import train_adapter, trainable

PAIRS = {
    "Aloha kākou": "Greetings to us all.",
    "Ua ola nā iʻa": "The fish lived",
    "He wahine ʻo ia": "She is a woman; he is not.",
    "ʻAʻole": "No!",
}
CHATML = KINDS["ChatML"].template
TOOLS = [{"type": "function", "function": {"name": "lookup", "description": "Look up a word"}}]
SCORING = ScoringSpec(max_tokens=40, batch_size=4, embedder=LETTERS_DIR)
PAIR = Record({"prompt": "Aloha", "completion": "Hello"}, "a.jsonl:1")
SHORT = TrainSpec(max_seq_length=64, mask_prompt=True)
WHOLE = TrainSpec(max_seq_length=256, mask_prompt=True)


# Of these no pairs are memorized.
MORE_KINDS = {
    # A line break stands between the prompt and the answer.
    "break first": replace(
        KINDS["ChatML"], template=CHATML.replace("assistant\\n' }}", "assistant' }}")
    ),
    # A marker of its own opens an answer, and another one reasoning.
    "marked content": Kind(
        "{% for m in messages %}{{ '<|start|>' + m.role + '<|content|>' + m.content }}"
        "{{ '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}",
        ("<|start|>", "<|content|>", "<|think|>", "<|end|>"),
        "<|end|>",
        None,
        "<|end|>",
    ),
    # It asks for the next answer in any case.
    "always asking": replace(
        KINDS["ChatML"], template=CHATML.replace("{% if add_generation_prompt %}", "{% if true %}")
    ),
}


def template_of(name, **changes):
    return ChatTemplate(make_tokenizer(replace({**KINDS, **MORE_KINDS}[name], **changes)))


def records_for(name):
    tools = {"tools": TOOLS} if "tools" in name else {}
    return [
        Record({"prompt": source, "completion": target, **tools}, f"train.jsonl:{number}")
        for number, (source, target) in enumerate(PAIRS.items(), 1)
    ]


def save_model(folder, tokenizer):
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128}
    tiny_llama.save(folder, tokenizer, seed=1, num_key_value_heads=2, **sizes)


@pytest.mark.parametrize("name", KINDS)
def test_memorized_pairs_are_answered_exactly(tmp_path, name):
    records = records_for(name)
    save_model(tmp_path, make_tokenizer(KINDS[name]))
    loaded = load_model(tmp_path)
    examples = encode(records, loaded.template, WHOLE).examples
    adam = {"optimizer": "adam", "learning_rate": 5e-3, "fine_tune_type": "full"}
    train = settings(iters=100, steps_per_report=100, **adam)
    with trainable(loaded.model, train):
        evaluate = make_evaluator(loaded.model, examples, 4)
        order = batch_order(train, examples)
        train_adapter(loaded.model, train, examples, order, evaluate, tmp_path / "run", Recorder())
        score = Scorer(Path(LETTERS_DIR), SCORING).score(loaded, records)
    assert [sample.output for sample in score.samples] == list(PAIRS.values())
    assert score.similarity == pytest.approx(1)
    assert score.faults == {}


@pytest.mark.parametrize("name", [*KINDS, *MORE_KINDS])
def test_contract_is_kept(name):
    template = template_of(name)
    tokenizer = template.tokenizer
    assert tokenizer.convert_ids_to_tokens(template.end) == {**KINDS, **MORE_KINDS}[name].end
    for record in records_for(name):
        found = template.encode(record.messages, record.tools)
        prompt, learned = found.tokens[: found.start], found.tokens[found.start :]
        assert encode_prompt(record, template) == prompt
        assert record.source in tokenizer.decode(prompt)
        assert ("lookup" in tokenizer.decode(prompt)) == (record.tools is not None)
        assert record.source not in tokenizer.decode(learned)
        assert template.answer(learned) == record.reference
        assert template.end in learned


@pytest.mark.parametrize("name", ["DeepSeek R1", "Gemma 4", "Vicuna"])
def test_prompt_ends_before_text_that_no_answer_follows(name):
    template = template_of(name)
    (repair,) = template.repairs
    assert "prompts end before it" in repair
    asked = template.text(PAIR.messages[:-1], to_answer=True)
    assert template.text(PAIR.messages).startswith(asked)


def test_prompt_does_not_depend_on_the_answer():
    template = template_of("Vicuna")  # its prompt ends in a space, which is part of some answers
    prompts = {
        tuple(encode_prompt(Record({"prompt": "Aloha", "completion": answer}), template))
        for answer in ("Hello", "2", "Greetings to you", "ʻAe", "!")
    }
    assert prompts == {tuple(template.prompt(PAIR.messages[:-1]))}


def test_next_answer_that_a_template_always_opens_is_not_learned():
    template = template_of("always asking")
    found = template.encode(PAIR.messages)
    assert template.tokenizer.decode(found.tokens[found.start :]) == "Hello<|im_end|>"


@pytest.mark.parametrize("name", ["GLM 4", "Alpaca"])
def test_answer_that_the_template_does_not_end_ends_with_the_end_of_sequence(name):
    template = template_of(name)
    assert template.repairs == [
        f"The chat template ends no answer: {KINDS[name].end} is learned after each."
    ]
    found = template.encode(PAIR.messages)
    assert found.tokens[-1] == template.tokenizer.eos_token_id


@pytest.mark.parametrize("name", ["GLM 4", "Alpaca"])
def test_template_without_an_end_and_a_tokenizer_without_one_are_refused(name):
    with pytest.raises(ModelError, match=r"Nothing ends an answer: .* Set eos_token in"):
        template_of(name, eos=None)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ nothing() }}", "cannot be learned: the model's chat template refuses the record: "),
        ("{{ messages[0].content }}", "make '' of the answer 'Hello'. The model cannot learn"),
        (CHATML.replace("m.content", "m.content | upper"), "make 'HELLO' of the answer 'Hello'"),
        (
            CHATML.replace("m.content", "(m.content if m.role == 'assistant' else '')"),
            "The chat template does not show the question.",
        ),
        # Whether a question is the last decides how it is written.
        (
            CHATML.replace("m.content", "(m.content + '!' if loop.last else m.content)"),
            "the chat template writes the question in two ways: '!<|im_end|>",
        ),
    ],
    ids=["fails", "no answer", "another answer", "no question", "two questions"],
)
def test_template_that_keeps_no_contract_is_refused_with_the_reason(template, message):
    with pytest.raises(ModelError) as caught:
        template_of("ChatML", template=template)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "written"),
    [("Llama 3.1 to 3.3", "27 Nov 2026"), ("gpt-oss (harmony)", "2026-11-27")],
)
def test_date_in_the_prompt_is_the_studys_also_after_midnight(name, written):
    tokenizer = make_tokenizer(KINDS[name])
    first, same, next_day = (
        ChatTemplate(tokenizer, today=date(2026, 11, day)).encode(PAIR.messages)
        for day in (27, 27, 28)
    )
    assert first == same
    assert first != next_day
    assert written in tokenizer.decode(first.tokens[: first.start])


def test_date_is_written_as_transformers_writes_it():
    form = "%A %a %B %b %d %m %Y %y %-d %-m %e %F %D %j"
    # A line break first: a template is not changed by what stops its clock.
    dated = "\n {{ strftime_now(format='" + form + "') }}" + CHATML
    template = template_of("ChatML", template=dated)
    theirs = template.tokenizer.apply_chat_template(PAIR.messages, tokenize=False)
    assert datetime.now().strftime(form) in theirs
    assert template.text(PAIR.messages) == theirs


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Hello", "Hello"),
        ("<think>\n\n</think>\n\nHello", "\n\nHello"),
        ("<think>Is it?</think>Hello<think>Yes</think>!", "Hello!"),
        ("of a block that the prompt opened</think>Hello", "Hello"),
        ("<think>It may be that", None),
        ("[THINK]no[/THINK]Hello", "Hello"),
        ("<|channel>thought\nIs it?<channel|>Hello", "Hello"),
        ("<mm:think>no</mm:think>Hello", "Hello"),
        ("1 < 2 and <b>bold</b>", "1 < 2 and <b>bold</b>"),
    ],
)
def test_reasoning_is_no_part_of_an_answer(text, left):
    assert without_thoughts(text) == left


def test_reference_is_without_reasoning():
    answer = "<think>It is a greeting.</think>Hello"
    assert Record({"prompt": "Aloha", "completion": answer}).reference == "Hello"
    assert Record({"prompt": "Aloha", "completion": "<think>only"}).reference == "<think>only"


@pytest.mark.parametrize(
    ("name", "generated", "answer"),
    [
        ("Qwen 3", "<think>\nIs it?\n</think>\n\nHello<|im_end|>", "Hello"),
        ("Qwen 3", "<think>\nIs it", None),
        ("Qwen 3", "Hello<|im_end|>\n<|im_start|>user", "Hello"),
        ("gpt-oss (harmony)", "<|channel|>final<|message|>Hello<|return|>", "Hello"),
        ("gpt-oss (harmony)", "Hello", "Hello"),
        (
            "gpt-oss (harmony)",
            "<|channel|>analysis<|message|>Is it?<|end|><|start|>assistant"
            "<|channel|>final<|message|>Hello",
            "Hello",
        ),
        ("gpt-oss (harmony)", "<|channel|>analysis<|message|>Is it", None),
        ("Command R7B", "<|START|>Hello<|STOP|><|END|>", "Hello"),
        ("Command R7B", "Hello<|END|>", "Hello"),
        ("Alpaca", "Hello\n\n", "Hello"),
        ("break first", "\nOne.\nTwo.", "One.\nTwo."),
        ("break first", "\nYes\n", "Yes"),
        ("marked content", "<|content|>Hello", "Hello"),
        ("marked content", "<|think|>let me see", None),
        ("marked content", "<|think|>let me see<|content|>Hello", "Hello"),
    ],
)
def test_answer_is_read_without_markers_and_reasoning(name, generated, answer):
    template = template_of(name)
    tokens = template.tokenizer.encode(generated, add_special_tokens=False)
    assert template.answer(tokens) == answer


def test_reasoning_in_the_data_is_learned_and_not_scored():
    template = template_of("Qwen 3")
    answer = "<think>\nA greeting.\n</think>\n\nHello"
    found = template.encode(Record({"prompt": "Aloha", "completion": answer}).messages)
    learned = found.tokens[found.start :]
    assert "A greeting." in template.tokenizer.decode(learned)
    assert template.answer(learned) == "Hello"


def test_reasoning_that_takes_all_tokens_is_an_empty_answer_and_said(tmp_path, monkeypatch):
    save_model(tmp_path, make_tokenizer(KINDS["Qwen 3"]))
    loaded = load_model(tmp_path)
    monkeypatch.setattr(loaded.template, "answer", lambda _: None)
    (found,) = translate(loaded, [PAIR], ScoringSpec(max_tokens=2))
    assert found.text == ""
    score = Scorer(Path(LETTERS_DIR), SCORING).compare([PAIR], [found.text], [found.cut])
    assert score.faults == {"reasoning cut": 1}


def test_second_begin_of_text_is_dropped_and_said():
    tokenizer = make_tokenizer(KINDS["Gemma 1 to 3"])
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", tokenizer.bos_token_id)]
    )
    own = "<bos><start_of_turn>user\nAloha<end_of_turn>\n"
    records = [Record({"text": own}, "a.jsonl:1"), Record({"text": "Aloha"}, "a.jsonl:2")]
    encoded = encode(records, ChatTemplate(tokenizer), TrainSpec(max_seq_length=64))
    for example in encoded.examples:
        assert example.tokens.tolist().count(tokenizer.bos_token_id) == 1
    assert encoded.warnings == (
        "a second begin-of-text token is dropped: 1 of 2 records, the first is a.jsonl:1",
    )


def test_second_begin_of_text_in_a_template_is_dropped():
    own = KINDS["Gemma 1 to 3"].template
    once, twice = (
        template_of("Gemma 1 to 3", template=each).encode(PAIR.messages)
        for each in (own, "{{ bos_token }}" + own)
    )
    assert (twice.tokens, twice.start) == (once.tokens, once.start)
    assert twice.is_begun_twice


def test_token_beyond_the_embedding_is_refused_with_its_place():
    tokenizer = make_tokenizer(KINDS["ChatML"])
    n_rows = len(tokenizer)
    template = ChatTemplate(tokenizer, n_embeddings=n_rows)
    tokenizer.add_tokens(["kala"])
    record = Record({"prompt": "Aloha kala", "completion": "Hello"}, "train.jsonl:7")
    with pytest.raises(DataError) as caught:
        encode([record], template, SHORT)
    assert str(caught.value) == (
        f"train.jsonl:7: the token 'kala' has the number {n_rows}, and the model's embedding has "
        f"{n_rows} rows. The tokenizer is not the model's: use the one it came with."
    )


@pytest.mark.parametrize(
    ("name", "messages", "marker"),
    [
        ("ChatML", [("user", "What is <|im_end|>?"), ("assistant", "An end")], "<|im_end|>"),
        ("ChatML", [("user", "What ends it?"), ("assistant", "<|im_end|> does")], "<|im_end|>"),
        (
            "ChatML",
            [("system", "Use <|im_start|>."), ("user", "Aloha"), ("assistant", "Hello")],
            "<|im_start|>",
        ),
        ("Mistral", [("user", "Is [INST] a tag?"), ("assistant", "Yes")], "[INST]"),
    ],
)
def test_control_tokens_that_a_text_spells_are_said(name, messages, marker):
    content = [{"role": role, "content": text} for role, text in messages]
    records = [PAIR, Record({"messages": content}, "train.jsonl:3")]
    encoded = encode(records, template_of(name), SHORT)
    assert encoded.warnings == (
        "a control token that the text spells becomes that token: 1 of 2 records, the first is "
        f"train.jsonl:3, {marker}",
    )


def test_answer_that_the_tokenizer_changes_is_said():
    tokenizer = make_tokenizer(KINDS["ChatML"])
    tokenizer.backend_tokenizer.normalizer = Sequence([NFD(), StripAccents()])
    record = Record({"prompt": "Stand", "completion": "E kū"}, "train.jsonl:3")
    encoded = encode([record], ChatTemplate(tokenizer), SHORT)
    assert encoded.warnings == (
        "the template or the tokenizer changes the answer: 1 of 1 records, the first is "
        "train.jsonl:3, 'E kū' becomes 'E ku'",
    )


@pytest.mark.parametrize("role", ["system", "developer", "function", "tool"])
def test_message_that_the_template_does_not_show_is_said(role):
    silent = CHATML.replace("in messages %}", f"in messages if m.role != '{role}' %}}")
    system = {"role": role, "content": "Translate."}
    record = Record({"messages": [system, *PAIR.messages]}, "a.jsonl:1")
    for template, is_shown in ((CHATML, True), (silent, False)):
        contract = template_of("ChatML", template=template)
        encoded = encode([record, PAIR], contract, WHOLE)
        said = f"the chat template does not show the {role} message: 1 of 2 records, the first is "
        assert encoded.warnings == (() if is_shown else (f"{said}a.jsonl:1",))


def test_template_that_needs_tools_shows_them():
    needing = "{% if not tools %}{{ raise_exception('no tools') }}{% endif %}" + CHATML
    record = Record({**PAIR.content, "tools": TOOLS}, "a.jsonl:1")
    template = template_of("ChatML with tools")
    template.tokenizer.chat_template = needing
    assert encode([record], template, WHOLE).warnings == ()


@pytest.mark.parametrize(("name", "is_shown"), [("ChatML with tools", True), ("ChatML", False)])
def test_tools_that_the_template_does_not_show_are_said(name, is_shown):
    record = Record({**PAIR.content, "tools": TOOLS}, "a.jsonl:1")
    encoded = encode([record], template_of(name), WHOLE)
    said = "the chat template does not show the tools: 1 of 1 records, the first is a.jsonl:1"
    assert encoded.warnings == (() if is_shown else (said,))


@pytest.mark.parametrize("role", ["user", "tool", "system"])
def test_conversation_that_does_not_end_with_an_answer_teaches_nothing_and_is_counted(role):
    thanks = [*PAIR.messages, {"role": role, "content": "Bye"}]
    records = [PAIR, Record({"messages": thanks}, "a.jsonl:2")]
    encoded = encode(records, template_of("ChatML"), SHORT)
    assert encoded.record_indices.tolist() == [0]
    assert encoded.n_empty == 1
    assert encoded.warnings == (
        "no answer is at the end, so nothing is learned: 1 of 2 records, the first is a.jsonl:2",
    )


def test_prompt_longer_than_a_record_may_be_is_not_learned():
    template = template_of("Qwen 3")
    long = Record({"prompt": "Aloha kākou " * 20, "completion": "Hello"})
    n_prompt = len(encode_prompt(long, template))
    for width in (n_prompt - 10, n_prompt):
        encoded = encode([long, PAIR], template, TrainSpec(max_seq_length=width, mask_prompt=True))
        assert encoded.record_indices.tolist() == [1]


SYSTEM, USER, ASSISTANT, TOOL = (
    {"role": role, "content": "x"} for role in ("system", "user", "assistant", "tool")
)


@pytest.mark.parametrize(
    ("content", "can_be"),
    [
        (PAIR.content, True),
        ({"messages": [SYSTEM, USER, ASSISTANT]}, True),
        ({"messages": [USER, ASSISTANT, USER, ASSISTANT]}, True),
        ({"messages": [USER, ASSISTANT, TOOL, ASSISTANT]}, False),
        ({"messages": [USER, USER, ASSISTANT]}, False),
        ({"messages": [USER, ASSISTANT, USER]}, False),
        ({"messages": [USER, ASSISTANT], "tools": TOOLS}, False),
    ],
)
def test_only_questions_and_answers_in_turn_are_examples(content, can_be):
    assert is_example(Record(content)) == can_be


def test_template_in_a_file_beside_the_tokenizer_is_read(tmp_path):
    tokenizer = make_tokenizer(KINDS["ChatML"])
    tokenizer.chat_template = None
    save_model(tmp_path, tokenizer)
    with pytest.raises(ModelError, match="has no chat template"):
        load_template(tmp_path)
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": CHATML}))
    assert load_template(tmp_path).repairs == []


def difference(template):
    """What the contract does beyond mlx_lm's way, in words."""
    found = ["date of the study"] if template.reads_clock else []
    if template._unlearned:
        found.append(f"prompt without {code(template._unlearned)}")
    if template._appended:
        found.append(f"{code(template.ends[0])} is added")
    if template._opening:
        found.append(f"{code(template._opening)} is no part of the answer")
    return "; ".join(found) or ("thinking is off" if template.differs else "nothing")


def code(text):
    return f"`{text}`".replace("\n", "\\n").replace("|", "\\|")


def test_table_of_templates_in_the_documents_is_right():
    rows = [
        f"| {name} | {code(kind.end)} | {difference(template_of(name))} |"
        for name, kind in KINDS.items()
    ]
    page = Path(__file__).parents[2] / "docs" / "templates.md"
    written = page.read_text().partition("| template |")[2].splitlines()[2:]
    assert [line for line in written if line.startswith("|")] == rows


def test_template_of_mlx_lms_own_in_code_is_used(tmp_path):
    """As DeepSeek V3.2 has it: no Jinja, its own tokens, a switch for thinking."""
    special = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>")
    kind = Kind("", special, special[1], special[0], special[1], THINK)
    tokenizer = make_tokenizer(kind)
    tokenizer.chat_template = None
    save_model(tmp_path, tokenizer)
    path = tmp_path / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"chat_template_type": "deepseek_v32"}
    path.write_text(json.dumps(config))
    template = load_template(tmp_path)
    found = template.encode(PAIR.messages)
    prompt = template.tokenizer.decode(found.tokens[: found.start])
    assert prompt.startswith(f"{special[0]}{special[2]}Aloha{special[3]}")
    assert template.answer(found.tokens[found.start :]) == "Hello"
    assert load_model(tmp_path).template.encode(PAIR.messages) == found
