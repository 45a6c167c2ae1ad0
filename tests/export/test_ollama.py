"""Modelfiles: templates that say what the model's own says, and texts that Ollama reads back."""

import re

import pytest
from transformers import PreTrainedTokenizerFast

from hawsweep.errors import ExportError
from hawsweep.export.ollama import find_turns, imports, modelfile
from hawsweep.models.chat_template import ChatTemplate

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    "{% endif %}"
)
# As Gemma's: a system message stands before the first question, and roles must alternate.
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{% set first = messages[0]['content'] + '\n\n' %}{% set rest = messages[1:] %}"
    "{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}"
    "{% for message in rest %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else 'user') + '\n'"
    " + (first if loop.first else '') + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
# A system message goes into the last question, so that no turn is always the same.
MISTRAL = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{% set system = messages[0]['content'] + '\n\n' %}{% set rest = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}"
    "{% for message in rest %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + (system if loop.last else '') + message['content'] + '[/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
# Go's braces, as text.
BRACES = (
    "{% for message in messages %}{{ '{{' + message['role'] + '}}' + message['content'] + '|' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '{{assistant}}' }}{% endif %}"
)


def with_template(tokenizer, template, bos="<s>"):
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        bos_token=bos,
        eos_token=tokenizer.eos_token,
        chat_template=template,
    )


def render_go(template, messages):
    """What Go's text/template makes of the few actions that are used here."""
    tokens = re.split(r"(\{\{.*?\}\})", template)
    system = next((text for role, text in messages if role == "system"), "")

    def block(at, index, message):
        text = ""
        while at < len(tokens):
            token = tokens[at]
            at += 1
            if not token.startswith("{{"):
                text += token
                continue
            action = token[2:-2].strip()
            if action == "end":
                return text, at
            if action == '"{{"':
                text += "{{"
            elif action == ".Content":
                text += message[1]
            elif action == "$.System":
                text += system
            elif action.startswith("range"):
                for number, each in enumerate(messages):
                    part, end = block(at, number, each)
                    text += part
                at = end
            else:
                role = re.fullmatch(r'if eq \.Role "(\w+)"', action)
                holds = role[1] == message[0] if role else index == 1 and bool(system)
                assert role or action == "if and (eq $i 1) $.System"
                part, at = block(at, index, message)
                text += part if holds else ""
        return text, at

    return block(0, 0, ("", ""))[0]


def parse_modelfile(text):
    """As Ollama's parser reads one: a value goes on over spaces and newlines until its quotes are
    closed, and a newline ends it then.
    """

    def unquote(value):
        for quotes in ('"""', '"'):
            if value.startswith(quotes):
                ends = len(value) >= 2 * len(quotes) and value.endswith(quotes)
                return value[len(quotes) : -len(quotes)] if ends else None
        return value

    found, value = [], None
    for line in text.split("\n"):
        if value is None:
            if not line or line.startswith("#"):
                continue
            name, value = line.split(" ", 1)
        else:
            value += f"\n{line}"
        if (whole := unquote(value.strip())) is not None:
            found.append((name, whole))
            value = None
    assert value is None
    return found


CONVERSATIONS = [
    [("user", "Aloha kākou.")],
    [("user", "a"), ("assistant", "b"), ("user", "c")],
]


@pytest.mark.parametrize("template", [CHATML, LLAMA3, GEMMA, BRACES])
@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_template_says_what_the_models_own_says(tokenizer, template, conversation):
    own = with_template(tokenizer, template)
    system = 'Translate "Hawaiian".\nBe brief.'
    turns, found = find_turns(ChatTemplate(own), system)
    assert found == system
    messages = [("system", system), *conversation]
    wanted = own.apply_chat_template(
        [{"role": role, "content": text} for role, text in messages],
        add_generation_prompt=True,
        tokenize=False,
    ).removeprefix("<s>")
    assert render_go(turns.to_go(), messages) == turns.render(messages) == wanted


@pytest.mark.parametrize(
    ("template", "system"),
    [(CHATML, "You are helpful."), (LLAMA3, None), (GEMMA, None), (BRACES, None)],
)
def test_system_message_is_the_templates_own_where_the_data_has_none(tokenizer, template, system):
    own = with_template(tokenizer, template)
    turns, found = find_turns(ChatTemplate(own), None)
    assert found == system
    question = [{"role": "user", "content": "Aloha."}]
    wanted = own.apply_chat_template(question, add_generation_prompt=True, tokenize=False)
    first = [] if system is None else [("system", system)]
    messages = [*first, ("user", "Aloha.")]
    assert render_go(turns.to_go(), messages) == wanted.removeprefix("<s>")


def test_what_begins_every_turn_is_not_taken_for_the_beginning_of_a_sequence(tokenizer):
    own = with_template(tokenizer, CHATML, bos="<|im_start|>")
    turns, _ = find_turns(ChatTemplate(own), "S")
    assert turns.user == ("<|im_start|>user\n", "<|im_end|>\n")
    assert turns.system == ("<|im_start|>system\n", "<|im_end|>\n")


def test_template_that_is_not_of_turns_is_left_to_ollama(tokenizer):
    own = with_template(tokenizer, MISTRAL)
    assert find_turns(ChatTemplate(own), "Be brief.") is None


def test_modelfile_is_read_back_as_it_was_meant(tokenizer):
    own = with_template(tokenizer, CHATML)
    system = 'Say "no" to """this""" and end with "quotes"'
    text = modelfile(ChatTemplate(own), system, "Trial 1\nof a sweep")
    found = parse_modelfile(text)
    assert found[0] == ("FROM", "./fused")
    assert dict(found)["SYSTEM"] == system
    turns, _ = find_turns(ChatTemplate(own), system)
    assert dict(found)["TEMPLATE"] == turns.to_go()
    parameters = [value for name, value in found if name == "PARAMETER"]
    assert parameters == ["temperature 0", "repeat_penalty 1", 'stop "<|im_end|>"']


def test_modelfile_of_an_unknown_template_has_none(tokenizer):
    text = modelfile(ChatTemplate(with_template(tokenizer, MISTRAL)), None, "Trial 1")
    assert [name for name, _ in parse_modelfile(text)][:2] == ["FROM", "PARAMETER"]
    assert "takes its own template" in text


@pytest.mark.parametrize("system", ['Three """\nquotes', "\nquotes", 'x"""  \ny'])
def test_text_that_a_modelfile_cannot_hold_is_refused(tokenizer, system):
    own = with_template(tokenizer, CHATML)
    if '"""' not in system:
        text = modelfile(ChatTemplate(own), system, "Trial 1")
        assert dict(parse_modelfile(text))["SYSTEM"] == system
        return
    with pytest.raises(ExportError, match=r"system message has a line that ends in three quotes"):
        modelfile(ChatTemplate(own), system, "Trial 1")


def test_architectures_that_ollama_imports_are_known(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"]}')
    assert imports(tmp_path)
    path.write_text('{"model_type": "rwkv", "architectures": ["RWKV"]}')
    assert not imports(tmp_path)
