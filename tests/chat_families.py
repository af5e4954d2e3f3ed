"""Small tokenizers of each family's kind, with the family's special tokens and a chat template that writes its format.

The templates write what the families' own do, in the same variables, with what matters here: who is trimmed, where the
system prompt and the tools go, what is refused, which date is asked for.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEMPLATES = Path(__file__).parent / "templates"
TEXTS = ["red green blue small large round square stone river cloud weather system user assistant model"] * 3


def byte_level(special: list[str]) -> Tokenizer:
    """As Llama 3's, Qwen's and Phi-4's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens(special)
    return tokenizer


def _byte_fallback(special: list[str]) -> Tokenizer:
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=200, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"], "[", "]", "/"]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    blank = decoders.Replace("▁", " ")
    tokenizer.decoder = decoders.Sequence([blank, decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(special)
    return tokenizer


def prepended(special: list[str]) -> Tokenizer:
    """As Llama 2's, Mistral's and Phi-3's: a blank is put before each part of the text between special tokens."""
    tokenizer = _byte_fallback(special)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer


def metaspace(special: list[str]) -> Tokenizer:
    """As those of the same families that were converted later: a blank is put before the whole alone."""
    tokenizer = _byte_fallback(special)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return tokenizer


def replaced(special: list[str]) -> Tokenizer:
    """As Gemma's: no blank is put anywhere."""
    tokenizer = _byte_fallback(special)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    return tokenizer


@dataclass(frozen=True)
class Family:
    """What a family's tokenizer and chat template are like.

    Args:
        template: The name of its template.
        kind: Makes its tokenizer.
        special: Its special tokens, separated by blanks.
        end_token: Its end token.
        answer: What the template makes of an answer, behind the prompt for it; `{}` stands for its text.
        question: What it makes of a user's text, with a blank before; empty if nothing can be said.
        begin_token: Its begin token, if it has one.
        trims: Whether the template trims what turns say.
        swallows: Whether special tokens take the white space behind them.
        closing: What the template writes behind the whole.
        header: The answer's header, where the template writes it with the question, of which it then is a part.
        system: "written", "refused", or "lost" where an answer is last.
        call: What the template makes of a call; `{}` stands for its arguments. Empty if it has no tools.
        forgets: Whether the template writes an answer so only where the conversation ends with it.
    """

    template: str
    kind: Callable[[list[str]], Tokenizer]
    special: str
    end_token: str
    answer: str
    question: str
    begin_token: str | None = None
    trims: bool = False
    swallows: bool = False
    closing: str = ""
    header: str = ""
    system: str = "written"
    call: str = ""
    forgets: bool = False


LLAMA_3 = {
    "kind": byte_level,
    "special": "<|begin_of_text|> <|end_of_text|> <|start_header_id|> <|end_header_id|> <|eot_id|>",
    "begin_token": "<|begin_of_text|>",
    "end_token": "<|eot_id|>",
    "answer": "{}<|eot_id|>",
    "question": "{}<|eot_id|>",
    "trims": True,
}
LLAMA_3_TOOLS = {"call": '{{"name": "weather", "parameters": {}}}<|eot_id|>'}
SENTENCEPIECE = {"special": "<s> </s>", "begin_token": "<s>", "end_token": "</s>"}
MISTRAL_V3 = "<s> </s> [INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_CALLS] [TOOL_RESULTS] [/TOOL_RESULTS]"
GEMMA = Family(
    "gemma",
    replaced,
    "<bos> <eos> <start_of_turn> <end_of_turn>",
    begin_token="<bos>",
    end_token="<eos>",
    answer="{}<end_of_turn>\n",
    question="{}<end_of_turn>\n",
    trims=True,
    system="refused",
)
LLAMA_2 = {"answer": " {} </s>", "question": " {} [/INST]", "trims": True, **SENTENCEPIECE}
QWEN = {
    "kind": byte_level,
    "special": "<|endoftext|> <|im_start|> <|im_end|>",
    "end_token": "<|im_end|>",
    "answer": "{}<|im_end|>\n",
    "question": "{}<|im_end|>\n",
}
PHI_3 = {
    "kind": prepended,
    "special": "<s> <|endoftext|> <|system|> <|user|> <|assistant|> <|end|>",
    "begin_token": "<s>",
    "end_token": "<|endoftext|>",
    "answer": "{}<|end|>\n",
    "swallows": True,
}
PHI_4 = {
    "kind": byte_level,
    "special": "<|endoftext|> <|im_start|> <|im_sep|> <|im_end|>",
    "end_token": "<|im_end|>",
    "answer": "{}<|im_end|>",
}
FAMILIES: dict[str, Family] = {
    "Llama 2": Family("llama_2", prepended, **LLAMA_2),
    "Code Llama": Family("llama_2", metaspace, **LLAMA_2),
    "Llama 3": Family("llama_3", **LLAMA_3),
    "Llama 3.1": Family("llama_3_1", **LLAMA_3, **LLAMA_3_TOOLS),
    "Llama 3.2": Family("llama_3_2", **LLAMA_3, **LLAMA_3_TOOLS),
    "Llama 3.3": Family("llama_3_1", **LLAMA_3, **LLAMA_3_TOOLS),
    "Qwen 2": Family("qwen_2", **QWEN),
    "Qwen 2.5": Family(
        "qwen_2_5", **QWEN, call='<tool_call>\n{{"name": "weather", "arguments": {}}}\n</tool_call><|im_end|>\n'
    ),
    "Qwen 3": Family(
        "qwen_3",
        **QWEN
        | {
            "special": "<|endoftext|> <|im_start|> <|im_end|> <think> </think>",
            "answer": "<think>\n\n</think>\n\n{}<|im_end|>\n",
        },
        call='<think>\n\n</think>\n\n<tool_call>\n{{"name": "weather", "arguments": {}}}\n</tool_call><|im_end|>\n',
        forgets=True,
    ),
    "Mistral v1": Family(
        "mistral_v1", prepended, answer="{}</s>", question=" {} [/INST]", system="refused", **SENTENCEPIECE
    ),
    "Mistral v3": Family(
        "mistral_v3",
        metaspace,
        **SENTENCEPIECE | {"special": MISTRAL_V3},
        answer=" {}</s>",
        question=" {}[/INST]",
        system="lost",
        call='[TOOL_CALLS] [{{"name": "weather", "arguments": {}, "id": "abcdefghi"}}]</s>',
    ),
    "Gemma": GEMMA,
    "Gemma 2": GEMMA,
    "Phi-3": Family("phi_3", **PHI_3, question="{}<|end|>\n", closing="<|endoftext|>"),
    "Phi-3 medium": Family("phi_3_medium", **PHI_3, question="{}<|end|>\n", header="<|assistant|>\n", system="lost"),
    "Phi-4": Family("phi_4", **PHI_4, question="{}<|im_end|>"),
    "Phi-4, first": Family("phi_4_first", **PHI_4, question="{}<|im_end|>", header="<|im_start|>assistant<|im_sep|>"),
}


@cache
def tokenizer_of(name: str) -> PreTrainedTokenizerFast:
    """A small tokenizer of a family, with its template."""
    family = FAMILIES[name]
    special = [AddedToken(token, rstrip=family.swallows, special=True) for token in family.special.split()]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=family.kind(special),
        bos_token=family.begin_token,
        eos_token=family.end_token,
        pad_token=family.special.split()[0],
    )
    tokenizer.chat_template = (TEMPLATES / f"{family.template}.jinja").read_text()
    return tokenizer
