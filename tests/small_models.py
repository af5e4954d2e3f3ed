"""Small tokenizers, image processors and models of transformers, made on the spot."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LEARNS_FAST = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.1}
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
SIDE = 32


def write_wordpiece(directory: Path, texts: Iterable[str], size: int = 600, **options: Any) -> Path:
    """A BERT tokenizer that has seen some texts."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(list(texts), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **names | options,
    )
    fast.save_pretrained(directory)
    return directory


def write_bert(directory: Path, texts: Iterable[str], size: int = 600, **changes: Any) -> Path:
    """A BERT configuration beside a tokenizer that has seen some texts."""
    write_wordpiece(directory, texts, size)
    options = {"vocab_size": size, "max_position_embeddings": 256} | SIZES | LEARNS_FAST
    transformers.BertConfig(**options | changes).save_pretrained(directory)
    return directory


def write_byte_level(directory: Path, texts: Iterable[str], size: int = 400) -> Path:
    """A byte-level tokenizer without a padding token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(list(texts), trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")
    fast.save_pretrained(directory)
    return directory


def write_gpt(directory: Path, texts: Iterable[str], size: int = 400) -> Path:
    """A GPT-2 configuration beside a byte-level tokenizer."""
    write_byte_level(directory, texts, size)
    transformers.GPT2Config(
        vocab_size=size,
        n_positions=128,
        n_embd=64,
        n_layer=2,
        n_head=4,
        initializer_range=0.1,
        bos_token_id=0,
        eos_token_id=0,
    ).save_pretrained(directory)
    return directory


def write_llama(directory: Path, texts: Iterable[str], size: int = 400) -> Path:
    """A Llama configuration, of whose weights some have two names, beside a byte-level tokenizer."""
    write_byte_level(directory, texts, size)
    transformers.LlamaConfig(
        **SIZES,
        vocab_size=size,
        max_position_embeddings=128,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        initializer_range=0.1,
        bos_token_id=0,
        eos_token_id=0,
    ).save_pretrained(directory)
    return directory


def write_vit(directory: Path) -> Path:
    """A ViT configuration beside an image processor."""
    transformers.ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(directory)
    options = {"image_size": SIDE, "patch_size": 8} | SIZES | LEARNS_FAST
    transformers.ViTConfig(**options).save_pretrained(directory)
    return directory


def save_base(directory: Path, kind: str) -> Path:
    """Random weights for the configuration in a directory, as a class of transformers saves them."""
    transformers.set_seed(0)
    config = transformers.AutoConfig.from_pretrained(directory)
    getattr(transformers, kind)(config).save_pretrained(directory)
    return directory
