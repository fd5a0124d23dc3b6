"""Documents changed by hand and sealed anew: what a forger would write."""

from __future__ import annotations

from typing import Any

from circuit_toolkit.files.documents import digest

HEAD = ("format", "schema_version", "sha256")


def resealed(document: Any) -> Any:
    """The same document with the checksum of what it holds now."""
    if not isinstance(document, dict):
        return document
    if "content" in document:
        return document | {"sha256": digest(document["content"])}
    content = {name: value for name, value in document.items() if name not in HEAD}
    return document | {"sha256": digest(content)}
