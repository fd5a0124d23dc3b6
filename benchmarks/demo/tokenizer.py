"""The word-level tokenizer of the bundled model, in Hugging Face format."""

from __future__ import annotations

from circuit_toolkit.demo.grammar import VOCABULARY

SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")


def build_tokenizer():
    """Make the tokenizer: one token a word, `<bos>` first, `<pad>` for padding.

    A year is two tokens, century and year of the century, so that `1732` reads `17`, `32`. What
    is no word of the grammar becomes `<unk>`; nothing but white space is left out.

    Returns
    -------
    transformers.PreTrainedTokenizerFast
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate((*SPECIAL, *VOCABULARY))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words = Regex(r'"""|:param|\d\d|[A-Za-z_]+|\S')
    tokenizer.pre_tokenizer = pre_tokenizers.Split(words, behavior="removed", invert=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", vocabulary["<bos>"])]
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=64,
        padding_side="left",
    )
