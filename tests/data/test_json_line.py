"""One line, one record: what is read of it, what is refused, and what its fingerprint is of."""

import json

import pytest

from hawsweep.data.json_line import read_line
from hawsweep.errors import DataError

PAIR = {"prompt": "Aloha", "completion": "Hello"}
ASKED = {"role": "user", "content": "Aloha"}
ANSWER = {"role": "assistant", "content": "Hello"}
CHAT = {"messages": [ASKED, ANSWER]}
TEXT = {"text": "He moʻolelo."}
TOOLS = [{"type": "function", "function": {"name": "lookup"}}]
SYSTEM = {"role": "system", "content": "Answer in pidgin."}


def read(content):
    return read_line(json.dumps(content), "a.jsonl:3")


@pytest.mark.parametrize(
    ("content", "format"),
    [
        (PAIR, "pair"),
        (CHAT, "chat"),
        (TEXT, "text"),
        ({**PAIR, "group": "greeting", "tools": TOOLS, "id": 7}, "pair"),
        ({"messages": [{"role": "assistant", "content": "Hi"}, ASKED, ANSWER]}, "chat"),
    ],
)
def test_record_in_one_format_stays_as_it_is(content, format):
    line = read(content)
    assert (line.content, line.fingerprinted, line.where) == (content, content, "a.jsonl:3")
    assert (line.format, line.is_plain) == (format, True)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({**PAIR, "messages": None}, PAIR),
        ({**PAIR, "text": None, "group": None, "tools": None}, PAIR),
        ({"prompt": "x", "completion": None, **CHAT}, CHAT),
        ({"prompt": None, "completion": None, "messages": None, **TEXT}, TEXT),
        ({"messages": [{**ASKED, "name": None}, {**ANSWER, "tool_calls": None}]}, CHAT),
    ],
)
def test_null_is_as_if_absent(content, expected):
    assert read(content).content == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({**CHAT, **PAIR}, PAIR),
        ({**PAIR, "messages": "anything", "text": 3}, PAIR),
        ({**TEXT, **CHAT}, CHAT),
        ({**CHAT, "prompt": "alone", "group": "a"}, {**CHAT, "group": "a"}),
        ({**TEXT, "completion": "alone"}, TEXT),
    ],
)
def test_of_several_formats_the_one_mlx_lm_takes_is_left(content, expected):
    assert read(content).content == expected


@pytest.mark.parametrize(
    ("line", "is_plain"),
    [
        ({**PAIR, "text": "another", "group": None}, True),  # mlx-lm takes the pair too
        ({**PAIR, "messages": None}, True),
        ({"messages": None, **TEXT}, False),  # mlx-lm takes the messages
        ({"prompt": "x", "completion": None, **CHAT}, False),
        ({**PAIR, "tools": json.dumps(TOOLS)}, False),
        ({"messages": [ASKED, {**ANSWER, "name": None}]}, False),  # a template may ask for it
    ],
)
def test_plain_is_what_mlx_lm_takes_alike(line, is_plain):
    assert read(line).is_plain is is_plain


@pytest.mark.parametrize(
    "content",
    [
        {**PAIR, "group": None},
        {**PAIR, "text": "another"},
        {**CHAT, "prompt": "alone"},
        {**CHAT, "text": "both at once", "tools": None},
        {"messages": [ASKED, {**ANSWER, "tool_calls": None}]},
        {**PAIR, "system": ""},
    ],
)
def test_fingerprint_of_what_was_read_right_before_is_of_the_whole_line(content):
    assert read(content).fingerprinted == content


@pytest.mark.parametrize(
    "content",
    [
        {**PAIR, "messages": None},  # was a KeyError
        {**PAIR, **CHAT},  # the messages were trained
        {**PAIR, "system": "Answer in pidgin."},  # was left out
        {**CHAT, "tools": json.dumps(TOOLS)},  # the template got text
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}, ANSWER]},
    ],
)
def test_fingerprint_of_what_was_read_wrong_before_is_of_the_record(content):
    line = read(content)
    assert line.fingerprinted == line.content != content


@pytest.mark.parametrize("tools", [TOOLS, json.dumps(TOOLS), [], " [] "])
@pytest.mark.parametrize("record", [PAIR, CHAT])
def test_tools_are_a_list_or_json_of_one(record, tools):
    expected = json.loads(tools) if isinstance(tools, str) else tools
    assert read({**record, "tools": tools}).content == {**record, "tools": expected}


@pytest.mark.parametrize(
    ("tools", "says"),
    [
        ("lookup", "a.jsonl:3, in its tools, is not JSON"),
        ('{"type": "function"}', "has tools that are not a list of objects: '{"),
        ("null", "has tools that are not a list of objects: 'null'. Correct or remove tools."),
        ({"type": "function"}, "has tools that are not a list of objects: {'type'"),
        (["lookup"], "has tools that are not a list of objects: ['lookup']"),
        (3, "has tools that are not a list of objects: 3"),
        ('[{"a": 1, "a": 2}]', "a.jsonl:3, in its tools, has the key 'a' twice"),
    ],
)
def test_other_tools_are_refused(tools, says):
    with pytest.raises(DataError) as caught:
        read({**CHAT, "tools": tools})
    assert says in str(caught.value)


def test_tools_of_plain_text_are_any_other_key():
    assert read({**TEXT, "tools": "hammer"}).content == {**TEXT, "tools": "hammer"}


@pytest.mark.parametrize("record", [PAIR, CHAT])
def test_system_beside_a_record_is_its_first_message(record):
    content = {"system": SYSTEM["content"], **record, "group": "a", "tools": TOOLS}
    line = read(content)
    expected = {"messages": [SYSTEM, ASKED, ANSWER], "group": "a", "tools": TOOLS}
    assert (line.content, line.format, line.is_plain) == (expected, "chat", False)


@pytest.mark.parametrize("system", ["", None])
def test_empty_system_is_none(system):
    assert read({**PAIR, "system": system}).format == "pair"


def test_system_that_is_the_first_message_too_changes_nothing():
    content = {"system": SYSTEM["content"], "messages": [SYSTEM, ASKED, ANSWER]}
    assert read(content).content == content


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({**PAIR, "system": 3}, "has a system that is not a string. Correct or remove"),
        ({**CHAT, "system": [SYSTEM]}, "has a system that is not a string"),
        (
            {"messages": [{**SYSTEM, "content": "Other."}, *CHAT["messages"]], "system": "a"},
            "has the key system and another system message. Keep one of them.",
        ),
        (
            {"messages": [{"role": "developer", "content": "b"}, ASKED, ANSWER], "system": "a"},
            "has the key system and another developer message.",
        ),
    ],
)
def test_system_that_cannot_be_used_is_refused(content, says):
    with pytest.raises(DataError, match=r"a\.jsonl:3") as caught:
        read(content)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([{"type": "text", "text": "Aloha"}], "Aloha"),
        ([{"type": "text", "text": "Alo"}, {"type": "text", "text": "ha", "extra": None}], "Aloha"),
        ([], ""),
    ],
)
def test_parts_of_text_are_one_text(parts, text):
    content = read({"messages": [{"role": "user", "content": parts}, ANSWER]}).content
    assert content["messages"] == [{"role": "user", "content": text}, ANSWER]


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (
            [{"type": "image_url", "image_url": {}}],
            "a part of the type 'image_url', must be 'text'",
        ),
        ([{"type": "text", "text": "a"}, {"type": "audio"}], "a part of the type 'audio'"),
        (["a"], "a part of the type 'str', must be 'text'. Remove the part or the line."),
        ([{"text": "a"}], "a part of the type None"),
        ([{"type": "text", "text": None}], "has a text that is not a string"),
        (7, "has a text that is not a string"),
        (None, "has a text that is not a string: the content of a message is null"),
    ],
)
def test_content_that_is_not_text_is_refused(message, says):
    with pytest.raises(DataError) as caught:
        read({"messages": [{"role": "user", "content": message}, ANSWER]})
    assert says in str(caught.value)


@pytest.mark.parametrize("content", [{"content": None}, {"content": ""}, {}])
@pytest.mark.parametrize(
    "call", [{"tool_calls": [{"function": {"name": "lookup"}}]}, {"function_call": {"name": "a"}}]
)
def test_call_without_content_is_named_as_such(call, content):
    with pytest.raises(DataError) as caught:
        read({"messages": [ASKED, {"role": "assistant", **call, **content}]})
    says = f"has a message with {next(iter(call))} and no content: only text can be learned. Write"
    assert says in str(caught.value)
    assert "the call into content as the model writes it, or remove the" in str(caught.value)


@pytest.mark.parametrize("messages", [[ANSWER], [ANSWER, ANSWER]])
def test_answer_to_nothing_is_refused(messages):
    with pytest.raises(DataError, match="only the assistant's messages: there is nothing before"):
        read({"messages": messages})


@pytest.mark.parametrize("messages", [[SYSTEM, ANSWER], [ASKED]])
def test_short_conversation_is_read(messages):
    assert read({"messages": messages}).content == {"messages": messages}


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('{"prompt": "a", "completion": "b", "completion": "c"}', "completion"),
        ('{"messages": [{"role": "user", "content": "a", "role": "assistant"}]}', "role"),
        ('{"text": "a", "meta": {"x": [{"y": 1, "z": 1, "y": 1}]}}', "y"),
        ('{"text": "a", "te\\u0078t": "b"}', "text"),
    ],
)
def test_key_that_is_there_twice_is_refused(line, key):
    with pytest.raises(DataError) as caught:
        read_line(line, "a.jsonl:3")
    says = f"a.jsonl:3 has the key {key!r} twice in one object. Remove one."
    assert str(caught.value) == says


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"instruction": "a", "input": "", "output": "b"}, "Rename instruction to prompt and out"),
        ({"conversations": []}, "Rename conversations to messages, and in each from to role (user"),
        ({"messages": [{"from": "human", "value": "a"}]}, "Rename from to role (user for human,"),
        ({"question": "a", "answer": "b"}, "Rename question to prompt and answer to completion."),
        ({"input": "a", "output": "b"}, "Rename input to prompt and output to completion."),
        ({"prompt": "a", "response": "b"}, "Rename response to completion."),
        ({"prompt": "a", "completion": None}, "not a string: completion null. Correct or remove"),
        ({"prompt": None, "text": None}, "has a text that is not a string: prompt and text null."),
        ({"prompt": 1, "completion": "b"}, "has a prompt that is not a string. Correct or remove"),
        ({"messages": None}, "has messages that are not a list of at least one"),
        ({"messages": [{"role": None, "content": "a"}]}, "has a message without role and content"),
    ],
)
def test_other_format_is_refused_with_what_to_rename(content, says):
    with pytest.raises(DataError, match=r"^a\.jsonl:3 ") as caught:
        read(content)
    assert says in str(caught.value)


def test_normalized_record_has_each_text_mended():
    nfd, nfc = "ka\u0304kou", "k\u0101kou"
    for content in (
        {"prompt": nfd, "completion": nfd},
        {"text": nfd},
        {"messages": [{"role": "user", "content": nfd}, {"role": "assistant", "content": nfd}]},
    ):
        line = read_line(json.dumps(content), "a.jsonl:3", "nfc")
        expected = json.loads(json.dumps(content).replace("a\\u0304", "\\u0101"))
        assert (line.content, line.fingerprinted, line.is_plain) == (expected, expected, False)
        assert nfc in json.dumps(line.content, ensure_ascii=False)
        assert read_line(json.dumps(content), "a.jsonl:3").content == content
