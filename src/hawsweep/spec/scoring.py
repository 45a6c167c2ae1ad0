"""ScoringSpec: how answers are scored, as a sweep says it; with the prompts of the untuned model,
and what the tuned one is to keep.
"""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from hawsweep.spec.train import Section

BUNDLED_RETENTION = "bundled"
# In an instruction: where the user's message goes.
QUESTION = "{prompt}"
_MOST_EXAMPLES = 1000
_MOST_VALUES = 20


def _check_examples(value: Any) -> tuple[int, ...]:
    listed = value if isinstance(value, list | tuple) else [value]
    if 0 < len(listed) <= _MOST_VALUES and all(
        isinstance(each, int) and not isinstance(each, bool) and 0 <= each <= _MOST_EXAMPLES
        for each in listed
    ):
        return tuple(dict.fromkeys(listed))
    raise ValueError(
        f"must be a whole number from 0 to {_MOST_EXAMPLES}, or a list of up to {_MOST_VALUES}"
    )


def _check_instructions(value: Any) -> tuple[str, ...]:
    listed = value if isinstance(value, list | tuple) else [value]
    is_text = all(isinstance(each, str) and each.strip() for each in listed)
    if is_text and len(set(listed)) == len(listed) <= _MOST_VALUES:
        return tuple(listed)
    raise ValueError(f"must be a text, or a list of up to {_MOST_VALUES} different ones")


class PromptSpec(Section):
    """A baseline beside the untuned model: the same with the best of other prompts."""

    examples: Annotated[tuple[int, ...], BeforeValidator(_check_examples)] = Field(
        (4,), examples=["examples: [0, 2, 4, 8]"]
    )
    """Training examples shown before each question, fewer where the prompt would exceed
    max_seq_length; 0 for none. Of a list each number is tried on the validation prompts."""
    instructions: Annotated[tuple[str, ...], BeforeValidator(_check_instructions)] = Field(
        (), examples=['instructions: ["Translate Hawaiian to English.", "{prompt} In English:"]']
    )
    """Tried beside the data's own prompt, each with each number of examples: a text with {prompt}
    takes the place of the user's message, which it holds there; another that of the system
    message."""

    @property
    def is_searched(self) -> bool:
        """Whether there are several prompts to choose from."""
        return self.n_tried > 1

    @property
    def n_tried(self) -> int:
        """How many prompts the untuned model answers with, beside the data's own alone."""
        return (len(self.instructions) + 1) * len(self.examples) - (0 in self.examples)


class ScoringSpec(Section):
    """How survivors are judged: they translate validation prompts greedily."""

    metric: str = Field(
        "semantic_similarity",
        pattern=r"^(semantic_similarity|chrf|bleu|exact_match|[^\W\d]\w*:[^\W\d]\w*)$",
        examples=["metric: chrf"],
    )
    """The study's value: semantic_similarity, chrf, bleu, exact_match, or module:function of a
    module.py in the current folder, given source, reference and output."""
    embedder: str = Field("all-MiniLM-L6-v2", examples=["embedder: nomic-ai/nomic-embed-text-v1.5"])
    """A sentence-transformers model: bundled, folder or repository."""
    embedder_prompt: str = Field("auto", examples=['embedder_prompt: "clustering: "'])
    """Prompt before each text; auto sets it for nomic-embed-text and E5."""
    max_tokens: int = Field(128, ge=1, le=2**20, examples=["max_tokens: 256"])
    """Longest translation, in tokens."""
    max_examples: int = Field(64, ge=1, le=10**6, examples=["max_examples: 100"])
    """Validation prompts translated; test: twice as many."""
    batch_size: int = Field(16, ge=1, le=2**16, examples=["batch_size: 8"])
    """Prompts generated at a time."""
    test: bool = Field(True, examples=["test: false"])
    """Let the winner and the base answer the test split at the end."""
    prompt: PromptSpec = Field(default_factory=PromptSpec)
    difference: float = Field(0.02, gt=0, le=1, examples=["difference: 0.05"])
    """The difference between trials that matters, as a share of the way from other prompts'
    references to the right ones; a warning says if there are too few prompts."""
    references: dict[str, float] | None = Field(
        None, examples=["references: {gpt-4o-mini: 0.8787}"]
    )
    """Scores known from elsewhere, by name, shown but not measured here."""


def with_data(value: object) -> object:
    """A retention set's name as its keys."""
    return {"data": value} if isinstance(value, str) else value


class RetentionSpec(Section):
    """Questions that the tuned model is to answer as the untuned one does."""

    data: str = Field(BUNDLED_RETENTION, min_length=1, examples=["retention: {data: bundled}"])
    """Where retention is set: bundled, forty everyday questions in English, or a .jsonl with
    prompts, maybe with completions, or a .txt with a prompt a line."""
    most: float = Field(0.1, gt=0, le=1, examples=["retention: {most: 0.2}"])
    """The most that the winner may lose of the untuned model's score against its own answers, as a
    share of it; the verdict names a larger loss."""
