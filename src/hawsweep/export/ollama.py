"""A Modelfile, with which Ollama runs an exported model as the study did.

Its template comes from the model's chat template: conversations are rendered with placeholders, and
the text around the placeholders is the template. It is used only if it renders them equally.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hawsweep.errors import ExportError
from hawsweep.models.chat_template import ChatTemplate
from hawsweep.models.config_file import read_config

# Architectures that Ollama imports from a folder of safetensors (its convert/convert.go).
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
    """The text that a chat template puts before and after each kind of message.

    Attributes:
        system: Around a system message in a turn of its own; None if there is no such turn.
        folded: Around a system message that is part of the first question's turn.
        answer: The text after which the model goes on.
    """

    system: tuple[str, str] | None
    folded: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]
    answer: str

    def render(self, messages: Messages) -> str:
        """The prompt's text, without the begin-of-sequence token."""
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
        """The turns as a Go template for Ollama."""

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


def find_turns(template: ChatTemplate, system: str | None) -> tuple[Turns, str | None] | None:
    """A chat template as turns, and its system message: ``system``, else the template's
    default. None if the template does not consist of such turns.
    """
    try:
        turns = _probe(template)
        if turns is None:
            return None
        if system is None:
            system = _default_system(template, turns)
        first = [] if system is None else [("system", system)]
        for conversation in (
            [*first, ("user", "a b")],
            [*first, ("user", "a"), ("assistant", "c"), ("user", "d")],
            [("system", "Do."), ("user", "a"), ("assistant", "c"), ("user", "d")],
        ):
            if turns.render(conversation) != _rendered(template, conversation):
                return None
    except Exception:  # a template may raise anything for messages it does not support
        return None
    return turns, system


def _probe(template: ChatTemplate) -> Turns | None:
    system, question, answer = ("system", _SYSTEM), ("user", _QUESTION), ("assistant", _ANSWER)
    marks = (_SYSTEM, _QUESTION, _ANSWER, _AGAIN)
    text = _rendered(template, [system, question, answer, ("user", _AGAIN)])
    if [each for each in text if each in marks] != list(marks):
        return None
    before, to_question, to_answer, to_again, end = _split(text, marks)
    # Without a generation prompt the text ends with the part after the last message.
    after_user = _rendered(template, [system, question], to_go_on=False).partition(_QUESTION)[2]
    last = _rendered(template, [system, question, answer], to_go_on=False)
    after_assistant = last.partition(_ANSWER)[2]
    user = (to_again.removeprefix(after_assistant), after_user)
    assistant = (to_answer.removeprefix(after_user), after_assistant)
    go_on = end.removeprefix(after_user)
    if to_question.endswith(user[0]) and not before.startswith(user[0]):
        around = (before, to_question.removesuffix(user[0]))
        return Turns(around, ("", ""), user, assistant, go_on)
    return Turns(None, (before.removeprefix(user[0]), to_question), user, assistant, go_on)


def _default_system(template: ChatTemplate, turns: Turns) -> str | None:
    """The system message that a template adds to a conversation without one."""
    question = [("user", _QUESTION)]
    text = _rendered(template, question)
    if turns.system is None or text == turns.render(question):
        return None
    before, after = turns.system
    found = text.removesuffix(turns.render(question)).removeprefix(before).removesuffix(after)
    return found if turns.render([("system", found), *question]) == text else None


def _rendered(template: ChatTemplate, messages: Messages, *, to_go_on: bool = True) -> str:
    """Messages rendered by the model's own template, without the begin-of-sequence token, which
    llama.cpp adds itself.
    """
    text = template.text(
        [{"role": role, "content": content} for role, content in messages], to_answer=to_go_on
    )
    bos = template.tokenizer.bos_token
    # In ChatML the token begins every turn, so there it is part of the turns.
    return text.removeprefix(bos) if bos and text.count(bos) == 1 else text


def modelfile(template: ChatTemplate, system: str | None, title: str) -> str:
    """The text of a Modelfile beside the folder ``fused``.

    Args:
        system: The system message of all training data; None if there is none, or several.

    Raises:
        ExportError: A text cannot be written in a Modelfile.
    """
    found = find_turns(template, system)
    lines = [f"# {' '.join(title.split())}", FROM]
    if found is None:
        lines += ["# No TEMPLATE: Ollama takes its own template for this model.", ""]
    else:
        turns, system = found
        lines += [f"TEMPLATE {_quoted('template', turns.to_go())}", ""]
    if system is not None:
        lines += [f"SYSTEM {_quoted('system message', system)}", ""]
    lines += ["# As in the study: greedy decoding without a repetition penalty."]
    lines += ["PARAMETER temperature 0", "PARAMETER repeat_penalty 1"]
    lines += [f'PARAMETER stop "{each}"' for each in template.ends]
    return "\n".join(lines) + "\n"


def _quoted(name: str, text: str) -> str:
    """A text quoted for Ollama's parser. The parser has no escapes: it reads up to the first line
    that ends in three quotes.
    """
    if any(line.rstrip().endswith(_QUOTES) for line in f"{_QUOTES[1:]}{text}".splitlines()[:-1]):
        raise ExportError(
            f"The {name} has a line that ends in three quotes, which a Modelfile cannot hold. "
            "Export without --ollama."
        )
    return f"{_QUOTES}{text}{_QUOTES}"


def imports(folder: Path) -> bool:
    """Whether Ollama imports this architecture from a folder of safetensors."""
    return any(each in IMPORTED for each in read_config(folder).get("architectures", ()))


def _go(text: str) -> str:
    """Text for a Go template: an opening ``{{`` is written as a string."""
    return text.replace("{{", '{{ "{{" }}')


def _split(text: str, marks: Sequence[str]) -> list[str]:
    parts = []
    for mark in marks:
        part, _, text = text.partition(mark)
        parts.append(part)
    return [*parts, text]
