"""The text of one token, so that different tokens differ."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

SPACE = "▁"  # what SentencePiece writes for one
BROKEN = "�"  # what decoding puts in place of bytes that are no character
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def token_text(tokenizer: Any, token: int) -> str:
    """Return a token as it stands in a text; bytes that are no character as `<0xE2>`.

    A token whose text is another one's too, or that has none, tells its number.
    """
    text, piece = str(tokenizer.decode([token])), tokenizer.convert_ids_to_tokens(token)
    if not isinstance(piece, str):  # a row of the model that the tokenizer does not know
        return text or f"<{token}>"
    if _BYTE.fullmatch(piece):  # a byte beside tokens of characters: "!" is a token of its own
        own = tokenizer.convert_tokens_to_ids(text) if text else tokenizer.unk_token_id
        return text if text.isspace() and own in (None, tokenizer.unk_token_id, token) else piece
    if BROKEN in text and BROKEN not in piece:
        return _bytes_of(piece) or text
    missing = len(piece) - len(piece.lstrip(SPACE)) - (len(text) - len(text.lstrip(" ")))
    text = " " * missing + text or piece
    other = tokenizer.convert_tokens_to_ids(text)  # Pythia has runs of spaces twice
    if other in (None, tokenizer.unk_token_id, token) or tokenizer.decode([other]) != text:
        return text
    return f"{text}<{token}>"


def _bytes_of(piece: str) -> str | None:
    """Write a piece of byte-level BPE with the bytes that are no character, or None."""
    table = _byte_table()
    if not all(letter in table for letter in piece):
        return None
    found = bytes(table[letter] for letter in piece).decode("utf-8", "surrogateescape")
    return "".join(
        f"<0x{ord(each) - 0xDC00:02X}>" if 0xDC80 <= ord(each) <= 0xDCFF else each for each in found
    )


@lru_cache
def _byte_table() -> dict[str, int]:
    """Letter -> byte, as GPT-2 writes bytes: printable ones as they are, others from U+0100 on."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    plain += range(ord("®"), ord("ÿ") + 1)
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): b for i, b in enumerate(others)}
