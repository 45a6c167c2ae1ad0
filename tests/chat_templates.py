"""Chat templates of public models, rebuilt in essence, with small tokenizers.

Each has what is particular in its kind: what opens and ends an answer, whether the prompt opens a
reasoning block, whether a system message, tools or the date have a place.
"""

from dataclasses import dataclass, field

from tiny_sweep import phrasebook_lines
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

VOCABULARY = 400
THINK = ("<think>", "</think>")


@dataclass(frozen=True)
class Kind:
    """A chat template.

    Attributes:
        special: Special tokens; the model's text never has them.
        added: Other tokens of their own, which decoding shows.
        end: The token that ends an answer.
    """

    template: str
    special: tuple[str, ...]
    end: str
    bos: str | None = None
    eos: str | None = None
    added: tuple[str, ...] = field(default=())


def _turns(before, after, answer, first="", role="m.role"):
    """A template of turns that are alike but for the role's name."""
    return (
        first
        + "{% for m in messages %}{{ "
        + f"'{before[0]}' + {role} + '{before[1]}' + m.content + '{after}'"
        + " }}{% endfor %}{% if add_generation_prompt %}"
        + f"{{{{ '{answer}' }}}}"
        + "{% endif %}"
    )


_CHATML = _turns(("<|im_start|>", "\\n"), "<|im_end|>\\n", "<|im_start|>assistant\\n")
_CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_TOOLS = (
    "{% if tools %}{{ '<|im_start|>system\\nTools: ' + tools | tojson + '<|im_end|>\\n' }}"
    "{% endif %}"
)
# Llama 3's: the system turn comes with the date.
_DATED = (
    "{{ bos_token }}{% if not date_string is defined %}{% if strftime_now is defined %}"
    "{% set date_string = strftime_now('%d %b %Y') %}"
    "{% else %}{% set date_string = '26 Jul 2024' %}{% endif %}{% endif %}"
    "{{ '<|start|>system<|end|>\\nToday: ' + date_string + '<|eot|>' }}"
)
_ALTERNATING = (
    "{{ bos_token }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' }}"
    "{{ m.content | trim + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
_INST = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content + ' ' + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant') }}{% endif %}{% endfor %}"
)
_MISTRAL = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'assistant' %}{{ m.content + eos_token }}{% else %}"
    "{{ '[INST]' + m.content + '[/INST]' }}{% endif %}{% endfor %}"
)
_COHERE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|TURN|>' }}{% if m.role == 'assistant' %}"
    "{{ '<|BOT|><|START|>' + m.content + '<|STOP|>' }}{% else %}{{ '<|USER|>' + m.content }}"
    "{% endif %}{{ '<|END|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|TURN|><|BOT|>' }}{% endif %}"
)
_HARMONY = (
    "{{ '<|start|>system<|message|>Today: ' + strftime_now('%Y-%m-%d') + '<|end|>' }}"
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{{ '<|start|>assistant<|channel|>final<|message|>' + m.content }}"
    "{{ '<|return|>' if loop.last and not add_generation_prompt else '<|end|>' }}"
    "{% else %}{{ '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)
_GLM = _turns(("<|", "|>\\n"), "", "<|assistant|>\\n", "{{ '[gMASK]<sop>' }}")
_R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}"
    "{{ '<|Assistant|>' + m.content.split('</think>')[-1] + eos_token }}"
    "{% else %}{{ '<|User|>' + m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|><think>\\n' }}{% endif %}"
)
# An empty reasoning block stands before the last answer; the prompt has it where thinking is off.
_QWEN3 = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{% if m.role == 'assistant' and loop.last and '</think>' not in m.content %}"
    "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{{ m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}"
)
# The same without the switch: the block is learned, and no part of the answer.
_ALWAYS_THINKING = _QWEN3.replace(
    "enable_thinking is defined and enable_thinking is false", "false"
)
# Here the prompt opens a block where thinking is on.
_QWEN35 = _QWEN3.replace(
    "{% if enable_thinking is defined and enable_thinking is false %}",
    "{% if enable_thinking is not defined or enable_thinking is true %}"
    "{{ '<think>\\n' }}{% else %}",
)
_GEMMA4 = (
    "{{ bos_token }}{% if enable_thinking %}{{ '<|turn>system\\n<|think|><turn|>\\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' +"
    " m.content | trim + '<turn|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|turn>model\\n' }}"
    "{% if not enable_thinking %}{{ '<|channel>thought\\n<channel|>' }}{% endif %}{% endif %}"
)
# Whether it thinks stands in the system turn.
_SMOLLM3 = (
    "{{ '<|im_start|>system\\n' + ('/think' if enable_thinking | default(true) else '/no_think') +"
    " '<|im_end|>\\n' }}{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{% if m.role == 'assistant' and not enable_thinking | default(true) %}"
    "{{ '<think>\\n\\n</think>\\n' }}{% endif %}{{ m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{% if not enable_thinking | default(true) %}{{ '<think>\\n\\n</think>\\n' }}{% endif %}"
    "{% endif %}"
)
_ALPACA = (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{{ '### Response:\\n' + m.content + '\\n\\n' }}{% else %}"
    "{{ '### Instruction:\\n' + m.content + '\\n\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}"
)
# The prompt ends in a space, with which the answer's first word is one token.
_VICUNA = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ 'ASSISTANT: ' + m.content + '</s>' }}"
    "{% else %}{{ 'USER: ' + m.content + ' ' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT: ' }}{% endif %}"
)
# What ends an answer also begins the text.
_OLMO = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' if not loop.last }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '\\n<|assistant|>\\n' }}{% endif %}"
)
_S = ("<unk>", "<s>", "</s>")

KINDS = {
    "ChatML": Kind(_CHATML, _CHATML_TOKENS, "<|im_end|>", None, "<|im_end|>"),
    "ChatML with tools": Kind(_TOOLS + _CHATML, _CHATML_TOKENS, "<|im_end|>", None, "<|im_end|>"),
    "Llama 2": Kind(_INST, _S, "</s>", "<s>", "</s>"),
    "Llama 3.1 to 3.3": Kind(
        _turns(("<|start|>", "<|end|>\\n"), "<|eot|>", "<|start|>assistant<|end|>\\n", _DATED),
        ("<|begin|>", "<|text_end|>", "<|start|>", "<|end|>", "<|eot|>"),
        "<|eot|>",
        "<|begin|>",
        "<|text_end|>",
    ),
    "Gemma 1 to 3": Kind(
        _ALTERNATING,
        ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
        "<end_of_turn>",
        "<bos>",
        "<eos>",
    ),
    "Gemma 4": Kind(
        _GEMMA4,
        ("<eos>", "<bos>", "<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|think|>"),
        "<turn|>",
        "<bos>",
        "<eos>",
    ),
    "Phi 3 and 4": Kind(
        _turns(("<|", "|>\\n"), "<|end|>\\n", "<|assistant|>\\n"),
        ("<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"),
        "<|end|>",
        None,
        "<|endoftext|>",
    ),
    "Mistral": Kind(_MISTRAL, (*_S, "[INST]", "[/INST]"), "</s>", "<s>", "</s>"),
    "Command R7B": Kind(
        _COHERE,
        ("<BOS>", "<|TURN|>", "<|BOT|>", "<|USER|>", "<|START|>", "<|STOP|>", "<|END|>"),
        "<|STOP|>",
        "<BOS>",
        "<|END|>",
    ),
    "gpt-oss (harmony)": Kind(
        _HARMONY,
        ("<|startoftext|>", "<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>"),
        "<|return|>",
        "<|startoftext|>",
        "<|return|>",
    ),
    "GLM 4": Kind(
        _GLM,
        ("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>"),
        "<|endoftext|>",
        None,
        "<|endoftext|>",
    ),
    "DeepSeek R1": Kind(
        _R1,
        ("<|bos|>", "<|eos|>", "<|User|>", "<|Assistant|>"),
        "<|eos|>",
        "<|bos|>",
        "<|eos|>",
        THINK,
    ),
    "Qwen 3": Kind(_QWEN3, _CHATML_TOKENS, "<|im_end|>", None, "<|im_end|>", THINK),
    "Qwen 3.5": Kind(_QWEN35, _CHATML_TOKENS, "<|im_end|>", None, "<|im_end|>", THINK),
    "always thinking": Kind(
        _ALWAYS_THINKING, _CHATML_TOKENS, "<|im_end|>", None, "<|im_end|>", THINK
    ),
    "SmolLM3": Kind(_SMOLLM3, _CHATML_TOKENS, "<|im_end|>", None, "<|im_end|>", THINK),
    "Granite 3 and 4": Kind(
        _turns(("<|start|>", "<|end|>"), "<|eot|>\\n", "<|start|>assistant<|end|>"),
        ("<|start|>", "<|end|>", "<|eot|>"),
        "<|eot|>",
        "<|eot|>",
        "<|eot|>",
    ),
    "Zephyr, TinyLlama": Kind(
        _turns(("<|", "|>\\n"), "</s>\\n", "<|assistant|>\\n"), _S, "</s>", "<s>", "</s>"
    ),
    "OLMo 2": Kind(_OLMO, ("<|endoftext|>",), "<|endoftext|>", "<|endoftext|>", "<|endoftext|>"),
    "Alpaca": Kind(_ALPACA, _S, "</s>", "<s>", "</s>"),
    "Vicuna": Kind(_VICUNA, _S, "</s>", "<s>", "</s>"),
}


def make_tokenizer(kind):
    """Byte-level BPE, learned from the phrase book, with a kind's tokens and template."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(kind.special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(phrasebook_lines("train", 100), trainer)
    inner.add_tokens([AddedToken(each, normalized=False) for each in kind.added])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token=kind.bos,
        eos_token=kind.eos,
        extra_special_tokens=list(kind.special),
        chat_template=kind.template,
    )
