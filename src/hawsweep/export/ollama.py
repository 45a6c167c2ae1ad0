"""A Modelfile: how Ollama runs an exported model as the study ran it.

Its template is worked out from the model's own: conversations are rendered with placeholders, and
what stands around those is the template. It is kept only where it renders them as the model does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hawsweep.data.records import Record
from hawsweep.data.tokens import end_of_turn
from hawsweep.errors import ExportError
from hawsweep.models.shape import read_config

# What Ollama makes a model of out of a folder of safetensors (its convert/convert.go).
IMPORTED = (
    "CohereForCausalLM",
    "Gemma2ForCausalLM",
    "Gemma3ForCausalLM",
    "Gemma3ForConditionalGeneration",
    "GemmaForCausalLM",
    "GptOssForCausalLM",
    "LlamaForCausalLM",
    "Lfm2ForCausalLM",
    "Mistral3ForConditionalGeneration",
    "MixtralForCausalLM",
    "Olmo3ForCausalLM",
    "Phi3ForCausalLM",
    "Qwen2ForCausalLM",
)
_SYSTEM, _QUESTION, _ANSWER, _AGAIN = "\ue000", "\ue001", "\ue002", "\ue003"
_QUOTES = '"""'
FROM = "FROM ./fused\n"
Messages = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Turns:
    """What a chat template puts around messages, each before and after.

    Attributes:
        system: Around a system message that is a turn of its own; None where there is no such turn.
        folded: Around a system message that stands before the first question, in its turn.
        answer: Where the model is to go on.
    """

    system: tuple[str, str] | None
    folded: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]
    answer: str

    def render(self, messages: Messages) -> str:
        """The text that the model is given, without what begins a sequence."""
        text, folded = "", ""
        for role, content in messages:
            if role == "system" and self.system is None:
                folded = content.join(self.folded)
            elif role == "system" and self.system is not None:
                text += content.join(self.system)
            elif role == "user":
                text += (folded + content).join(self.user)
                folded = ""
            else:
                text += content.join(self.assistant)
        return text + self.answer

    def to_go(self) -> str:
        """As a template of Ollama's, which are Go's."""

        def turn(role: str, around: tuple[str, str], before: str = "") -> str:
            inside = f"{_go(around[0])}{before}{{{{ .Content }}}}{_go(around[1])}"
            return f'{{{{ if eq .Role "{role}" }}}}{inside}{{{{ end }}}}'

        folded = ""
        if self.system is None:
            inside = "{{ $.System }}".join(map(_go, self.folded))
            folded = f"{{{{ if and (eq $i 1) $.System }}}}{inside}{{{{ end }}}}"
        return (
            "{{ range $i, $_ := .Messages }}"
            + ("" if self.system is None else turn("system", self.system))
            + turn("user", self.user, folded)
            + turn("assistant", self.assistant)
            + "{{ end }}"
            + _go(self.answer)
        )


def find_turns(tokenizer: Any, system: str | None) -> tuple[Turns, str | None] | None:
    """A tokenizer's chat template as turns, and the system message there is to be: ``system``, else
    what the template says where there is none. None where the template is not of that kind.
    """
    try:
        turns = _probe(tokenizer)
        if turns is None:
            return None
        if system is None:
            system = _default_system(tokenizer, turns)
        first = [] if system is None else [("system", system)]
        for conversation in (
            [*first, ("user", "a b")],
            [*first, ("user", "a"), ("assistant", "c"), ("user", "d")],
            [("system", "Do."), ("user", "a"), ("assistant", "c"), ("user", "d")],
        ):
            if turns.render(conversation) != _rendered(tokenizer, conversation):
                return None
    except Exception:  # a template raises what it likes where it has no such messages
        return None
    return turns, system


def _probe(tokenizer: Any) -> Turns | None:
    system, question, answer = ("system", _SYSTEM), ("user", _QUESTION), ("assistant", _ANSWER)
    marks = (_SYSTEM, _QUESTION, _ANSWER, _AGAIN)
    text = _rendered(tokenizer, [system, question, answer, ("user", _AGAIN)])
    if [each for each in text if each in marks] != list(marks):
        return None
    before, to_question, to_answer, to_again, end = _split(text, marks)
    # What is asked for no answer ends with what comes after the last message.
    after_user = _rendered(tokenizer, [system, question], to_go_on=False).partition(_QUESTION)[2]
    last = _rendered(tokenizer, [system, question, answer], to_go_on=False)
    after_assistant = last.partition(_ANSWER)[2]
    user = (to_again.removeprefix(after_assistant), after_user)
    assistant = (to_answer.removeprefix(after_user), after_assistant)
    go_on = end.removeprefix(after_user)
    if to_question.endswith(user[0]) and not before.startswith(user[0]):
        around = (before, to_question.removesuffix(user[0]))
        return Turns(around, ("", ""), user, assistant, go_on)
    return Turns(None, (before.removeprefix(user[0]), to_question), user, assistant, go_on)


def _default_system(tokenizer: Any, turns: Turns) -> str | None:
    """The system message that a template gives where a conversation has none."""
    question = [("user", _QUESTION)]
    text = _rendered(tokenizer, question)
    if turns.system is None or text == turns.render(question):
        return None
    before, after = turns.system
    found = text.removesuffix(turns.render(question)).removeprefix(before).removesuffix(after)
    return found if turns.render([("system", found), *question]) == text else None


def _rendered(tokenizer: Any, messages: Messages, *, to_go_on: bool = True) -> str:
    """What the model's own template makes of messages, without what begins a sequence: llama.cpp
    puts that there by itself.
    """
    text = str(
        tokenizer.apply_chat_template(
            [{"role": role, "content": content} for role, content in messages],
            add_generation_prompt=to_go_on,
            tokenize=False,
        )
    )
    bos = tokenizer.bos_token
    # Where it begins every turn, as in ChatML, it is part of the turns.
    return text.removeprefix(bos) if bos and text.count(bos) == 1 else text


def modelfile(tokenizer: Any, system: str | None, title: str) -> str:
    """The text of a Modelfile beside the folder ``fused``.

    Args:
        system: The system message of all training data; None where there is none, or several.

    Raises:
        ExportError: There is no way to write a text in one.
    """
    found = find_turns(tokenizer, system)
    lines = [f"# {' '.join(title.split())}", FROM]
    if found is None:
        lines += ["# Without TEMPLATE: Ollama takes the one it knows for the model's own.", ""]
    else:
        turns, system = found
        lines += [f"TEMPLATE {_quoted('template', turns.to_go())}", ""]
    if system is not None:
        lines += [f"SYSTEM {_quoted('system message', system)}", ""]
    lines += ["# As it was scored: the likeliest token each time, and nothing penalized."]
    lines += ["PARAMETER temperature 0", "PARAMETER repeat_penalty 1"]
    lines += [f'PARAMETER stop "{each}"' for each in stops(tokenizer)]
    return "\n".join(lines) + "\n"


def _quoted(name: str, text: str) -> str:
    """A text as Ollama's parser reads it back: it knows no escapes, and takes everything up to the
    first line that ends in three quotes.
    """
    if any(line.rstrip().endswith(_QUOTES) for line in f"{_QUOTES[1:]}{text}".splitlines()[:-1]):
        raise ExportError(
            f"The {name} has a line that ends in three quotes, which a Modelfile cannot hold. "
            "Export without --ollama."
        )
    return f"{_QUOTES}{text}{_QUOTES}"


def stops(tokenizer: Any) -> list[str]:
    """The tokens that end an answer, as text."""
    numbers = [end_of_turn(tokenizer), tokenizer.eos_token_id]
    known = [tokenizer.convert_ids_to_tokens(each) for each in numbers if each is not None]
    return list(dict.fromkeys(known))


def common_system(records: Sequence[Record]) -> str | None:
    """The system message that all records have; None where they have none, or several."""
    found: set[str | None] = set()
    for record in records:
        first = (record.messages or [{}])[0]
        found.add(str(first["content"]) if first.get("role") == "system" else None)
        if len(found) > 1:
            return None
    return found.pop() if found else None


def imports(folder: Path) -> bool:
    """Whether Ollama makes a model of such a folder of safetensors."""
    return any(each in IMPORTED for each in read_config(folder).get("architectures", ()))


def _go(text: str) -> str:
    """Text as it stands in a Go template: what opens an action is given as a string."""
    return text.replace("{{", '{{ "{{" }}')


def _split(text: str, marks: Sequence[str]) -> list[str]:
    parts = []
    for mark in marks:
        part, _, text = text.partition(mark)
        parts.append(part)
    return [*parts, text]
