"""The contract of a chat template with training and generation.

Training tokens, the prompt that scoring sends, and the text of an answer come from one object, so a
model is asked what it was trained on. What a template gets wrong is repaired where there is one
right way, and said in ``repairs``; otherwise the model or the record is refused.
"""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import takewhile
from typing import Any

from hawsweep.errors import DataError, ModelError

Messages = Sequence[Mapping[str, Any]]
Tools = Sequence[Any] | None

# What opens and closes a reasoning block, in the public models that write one.
_THOUGHTS = (
    ("<think>", "</think>"),
    ("<|channel>thought", "<channel|>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<seed:think>", "</seed:think>"),
    ("<longcat_think>", "</longcat_think>"),
    ("<mm:think>", "</mm:think>"),
    ("<think:opensource>", "</think:opensource>"),
    ("<thinking>", "</thinking>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|think:start|>", "<|think:end|>"),
)
QUESTION = {"role": "user", "content": "Is it?"}
SYSTEM = {"role": "system", "content": "Answer briefly."}
# They differ in their first and in their last character.
PROBES = ("Hello", "Yes")
# Directives of ``strftime``, those of two letters first.
_DIRECTIVES = (*(f"-{each}" for each in "dmHIMSyj"), *"aAbBcdDeFHhIjklmMnpRSTuUVwWxXyYZ")


def without_thoughts(text: str) -> str | None:
    """A text without its reasoning blocks; None if one does not end.

    A block may begin before the text, as some prompts open one.
    """
    for opening, closing in _THOUGHTS:
        if opening not in text and closing not in text:
            continue
        text = re.sub(f"{re.escape(opening)}.*?{re.escape(closing)}", "", text, flags=re.DOTALL)
        text = text.rpartition(closing)[2]
        if opening in text:
            return None
    return text


@dataclass(frozen=True)
class Conversation:
    """A conversation, or a text, as tokens.

    Attributes:
        tokens: Token ids, ``[tokens]``.
        start: The place of the answer's first token: all before is the prompt. Behind the last
            token where a conversation does not end with an answer; 0 in a text.
        is_begun_twice: Whether a doubled begin-of-text token was dropped.
    """

    tokens: list[int]
    start: int = 0
    is_begun_twice: bool = False


class ChatTemplate:
    """The chat template of a tokenizer, tried on a question and two answers.

    Args:
        tokenizer: A tokenizer of mlx-lm's or transformers'.
        n_embeddings: Rows of the model's embedding; None if unknown.
        today: The date for templates that ask the clock; None for the present day. A study keeps
            its own, so that its tokens stay the same.

    Attributes:
        end: The token that ends an answer: generation stops there.
        repairs: What the template gets wrong and how it is mended, in sentences.
        reads_clock: Whether the date is in its prompts.
        differs: Whether mlx_lm learns, asks or reads answers otherwise.

    Raises:
        ModelError: No answer can be learned by it.
    """

    def __init__(
        self, tokenizer: Any, n_embeddings: int | None = None, today: date | None = None
    ) -> None:
        self.tokenizer, self.n_embeddings = tokenizer, n_embeddings
        self.repairs: list[str] = []
        self.reads_clock = "strftime_now" in str(tokenizer.chat_template)
        self._clock = _stopped_clock(date.today() if today is None else today)
        # Names of the switch in public templates; in others they have no meaning.
        self._options = {"enable_thinking": False, "thinking": False, "return_dict": False}
        self._appended: list[int] = []
        self._shown: dict[str, bool] = {"user": True, "assistant": True}  # or it is refused
        self._n_unlearned = self._n_beyond = 0
        self._special = _special_tokens(tokenizer)
        self._markers = re.compile("|".join(re.escape(self._name(each)) for each in self._special))
        self._probe()

    def encode(self, messages: Messages, tools: Tools = None) -> Conversation:
        """The tokens of a conversation, and where its answer begins.

        The prompt is the part that a prompt for an answer and the answered conversation have in
        common: some templates end a prompt in text that no answer follows. It does not depend on
        the answer, but where that begins with reasoning.

        Raises:
            DataError: The template refuses it or writes its question in two ways, or it has a token
                that the model does not know.
        """
        whole, is_begun_twice = self._begun_once(self._rendered(messages, tools))
        start = len(whole)
        if messages[-1].get("role") == "assistant":
            prompt, _ = self._begun_once(self._rendered(messages[:-1], tools, to_answer=True))
            start = _n_common(prompt, whole)
            if start < len(prompt):
                self._check_question(messages, tools)
            start = min(start, len(prompt) - self._n_unlearned)
            whole = whole[: len(whole) - self._n_beyond] + self._appended
        self._check_known(whole)
        return Conversation(whole, start, is_begun_twice)

    def encode_text(self, text: str) -> Conversation:
        """The tokens of a text without roles; the end-of-sequence token follows it."""
        tokens, is_begun_twice = self._begun_once(list(self.tokenizer.encode(text)))
        end = self.tokenizer.eos_token_id
        if end is not None and tokens[-1:] != [end]:
            tokens.append(end)
        self._check_known(tokens)
        return Conversation(tokens, 0, is_begun_twice)

    def prompt(self, messages: Messages, tools: Tools = None) -> list[int]:
        """The tokens after which the model answers, as training has them before the answer.

        Args:
            messages: With the answer, which is not in the prompt; without one an answer is assumed.
        """
        if messages[-1].get("role") != "assistant":
            messages = [*messages, _message(PROBES[0])]
        found = self.encode(messages, tools)
        return found.tokens[: found.start]

    def answer(self, tokens: Sequence[int]) -> str | None:
        """The answer in generated tokens, without reasoning and markers.

        Returns:
            The text; None if reasoning does not end.
        """
        ends = (self.end, self.tokenizer.eos_token_id)
        tokens = list(takewhile(lambda token: token not in ends, tokens))
        markers = self._special.intersection(tokens)
        text = without_thoughts(self.tokenizer.decode(tokens))
        if text is None:
            return None
        if not self._is_marked:
            text = text.removeprefix(self._opening)
        elif self._opening in text:
            text = text.rpartition(self._opening)[2]
        elif markers:
            return None  # it opened another channel than the answer's
        for token in markers:
            text = text.replace(self._name(token), "")
        return text.strip().removesuffix(self._closing).rstrip()

    def text(self, messages: Messages, *, to_answer: bool = False) -> str:
        """Messages as text; ``to_answer`` adds what opens an answer, as ``prompt`` has it."""
        text = self._text(messages, None, to_answer=to_answer)
        return text.removesuffix(self._unlearned) if to_answer else text

    @property
    def ends(self) -> list[str]:
        """The tokens that end an answer, as text."""
        numbers = (self.end, self.tokenizer.eos_token_id)
        return [self._name(each) for each in dict.fromkeys(numbers) if each is not None]

    def shows(self, role: str) -> bool:
        """Whether a message of that role, before a question, changes the prompt."""
        if role not in self._shown:
            try:
                found = self.prompt([{**SYSTEM, "role": role}, QUESTION])
                self._shown[role] = found != self.prompt([QUESTION])
            except DataError:  # then it refuses the record
                self._shown[role] = True
        return self._shown[role]

    def marker_in(self, text: str) -> str | None:
        """The first special token that a text spells, which becomes that token; mostly None."""
        found = self._markers.search(text)
        return found and found[0]

    @property
    def switches(self) -> dict[str, bool]:
        """Options that are off here and change the prompt where they are on, as mlx-lm has them of
        some models, or not given: who asks a model that was trained with this template gives them.
        """
        asked = self._text([QUESTION], None, to_answer=True)

        def is_other(options: dict[str, bool]) -> bool:
            other = copy.copy(self)
            other._options = options
            try:
                return other._text([QUESTION], None, to_answer=True) != asked
            except DataError:
                return True

        return {
            key: False
            for key in self._options
            if key != "return_dict"
            and (
                is_other(self._options | {key: True})
                or is_other({name: on for name, on in self._options.items() if name != key})
            )
        }

    def _probe(self) -> None:
        """Learn from a question and two answers what opens an answer and what ends it."""
        try:
            self._use_options()
            asked, _ = self._begun_once(self._rendered([QUESTION], to_answer=True))
            answered = [self.encode([QUESTION, _message(text)]) for text in PROBES]
        except DataError as fault:
            raise ModelError(f"A question with its answer cannot be learned: {fault}") from fault
        start = min(each.start for each in answered)
        self._n_unlearned = len(asked) - start
        if QUESTION["content"].casefold() not in self.tokenizer.decode(asked).casefold():
            raise ModelError(
                "The chat template does not show the question. The model would answer nothing: use "
                "another one."
            )
        self._unlearned = self.tokenizer.decode(asked[start:])
        if self._unlearned:
            self.repairs.append(
                f"The prompt for an answer ends in {self._unlearned!r}, and the answered "
                "conversation does not have it: prompts end before it."
            )
        one, other = (each.tokens[start:] for each in answered)
        n_opening = _n_common(one, other)
        n_after = _n_common(one[n_opening:][::-1], other[n_opening:][::-1])
        self._opening = self.tokenizer.decode(one[:n_opening])
        self._is_marked = not self._special.isdisjoint(one[:n_opening])
        after = one[len(one) - n_after :]
        ends = [place for place, token in enumerate(after) if token in self._special]
        self.end = after[ends[0]] if ends else self._append_end()
        self._closing = self.tokenizer.decode(after[: ends[0]] if ends else after).strip()
        if len(ends) > 1 and self._rendered([QUESTION]) == asked:
            # It begins the next answer in any case: nothing follows this one.
            self._n_beyond = len(after) - ends[0] - 1
            answered = [self.encode([QUESTION, _message(text)]) for text in PROBES]
        self.differs = self._differs(answered[0])
        for text, tokens in zip(PROBES, (one, other), strict=True):
            given = self.answer(tokens)
            if given != text:
                raise ModelError(
                    f"The chat template and the tokenizer make {given!r} of the answer {text!r}. "
                    "The model cannot learn what it is shown: use another one."
                )

    def _differs(self, answered: Conversation) -> bool:
        """Whether mlx_lm has other tokens for the probe: it leaves options at their defaults."""
        if self.reads_clock or self._appended or self._opening:
            return True
        messages = [QUESTION, _message(PROBES[0])]
        plain = {key: value for key, value in self._options.items() if key == "return_dict"}
        try:
            whole, asked = (
                self.tokenizer.apply_chat_template(
                    messages[:n], add_generation_prompt=n < len(messages), **plain
                )
                for n in (2, 1)
            )
        except Exception:  # with thinking on, a template may ask for a message's reasoning
            return True
        return (list(whole), len(asked)) != (answered.tokens, answered.start)

    def _append_end(self) -> int:
        end: int | None = self.tokenizer.eos_token_id
        if end is None:
            raise ModelError(
                "Nothing ends an answer: the chat template puts no special token after it, and the "
                "tokenizer has no end-of-sequence token. Set eos_token in tokenizer_config.json."
            )
        self.repairs.append(
            f"The chat template ends no answer: {self._name(end)} is learned after each."
        )
        self._appended = [end]
        return end

    def _use_options(self) -> None:
        try:
            self._rendered([QUESTION], to_answer=True)
        except DataError as fault:
            if not isinstance(fault.__cause__, TypeError):
                raise
            self._options = {"enable_thinking": False}  # a renderer in code, not in Jinja

    def _check_question(self, messages: Messages, tools: Tools) -> None:
        """Raise if the question itself, not what follows it, is another once it is answered."""
        asked = self._text(messages[:-1], tools, to_answer=True)
        answered = self._text(messages, tools)
        n_same = _n_common(asked, answered)
        plain = self._text(messages[:-1], tools)
        if plain == asked:  # it opens an answer in any case: only the question counts
            last = str(messages[-2].get("content")).strip() if len(messages) > 1 else ""
            plain = asked[: asked.rfind(last) + len(last)]
        if n_same < _n_common(asked, plain):
            raise DataError(
                "the chat template writes the question in two ways: "
                f"{asked[n_same:][:60]!r} to have it answered, and {answered[n_same:][:60]!r} with "
                "its answer. What is learned would not be what is asked: use another model."
            )

    def _rendered(
        self, messages: Messages, tools: Tools = None, *, to_answer: bool = False
    ) -> list[int]:
        return list(self._apply(messages, tools, to_answer=to_answer, tokenize=True))

    def _text(self, messages: Messages, tools: Tools, *, to_answer: bool = False) -> str:
        return str(self._apply(messages, tools, to_answer=to_answer, tokenize=False))

    def _apply(self, messages: Messages, tools: Tools, *, to_answer: bool, tokenize: bool) -> Any:
        options: dict[str, Any] = self._options | ({} if tools is None else {"tools": tools})
        try:
            if self.reads_clock:
                template = self.tokenizer.get_chat_template(tools=tools)
                options["chat_template"] = f"{self._clock}\n{template}"
            return self.tokenizer.apply_chat_template(
                list(messages), add_generation_prompt=to_answer, tokenize=tokenize, **options
            )
        except Exception as fault:  # a chat template is the model's code and may raise anything
            raise DataError(f"the model's chat template refuses the record: {fault}") from fault

    def _begun_once(self, tokens: list[int]) -> tuple[list[int], bool]:
        begin = self.tokenizer.bos_token_id
        is_begun_twice = begin is not None and tokens[:2] == [begin, begin]
        return tokens[is_begun_twice:], is_begun_twice

    def _check_known(self, tokens: Sequence[int]) -> None:
        largest = max(tokens, default=0)
        if self.n_embeddings is not None and largest >= self.n_embeddings:
            raise DataError(
                f"the token {self._name(largest)!r} has the number {largest}, and the model's "
                f"embedding has {self.n_embeddings} rows. The tokenizer is not the model's: use "
                "the one it came with."
            )

    def _name(self, token: int) -> str:
        return str(self.tokenizer.convert_ids_to_tokens(token))


def _message(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _n_common(one: Sequence[Any], other: Sequence[Any]) -> int:
    """The length of the longest common beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _stopped_clock(today: date) -> str:
    """A macro in place of ``strftime_now``, which transformers gives to each template."""
    replaced = "".join(
        f" | replace('%{each}', {today.strftime(f'%{each}')!r})" for each in _DIRECTIVES
    )
    return f"{{% macro strftime_now(format) %}}{{{{ format{replaced} }}}}{{% endmacro %}}"


def _special_tokens(tokenizer: Any) -> frozenset[int]:
    added = tokenizer.added_tokens_decoder.items()
    special = (number for number, token in added if token.special)
    return frozenset((*tokenizer.all_special_ids, *special))
