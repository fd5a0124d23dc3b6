"""A transcoder with the k largest features of each token, which sae_lens does not have.

It is known to sae_lens under the name of its architecture, so that folders hold it as any other.
"""

from __future__ import annotations

from functools import cache

ARCHITECTURE = "topk_transcoder"


@cache
def register() -> None:
    """Make the class known to sae_lens, once."""
    from dataclasses import dataclass
    from typing import Any

    from sae_lens.registry import register_sae_class
    from sae_lens.saes.topk_sae import TopK
    from sae_lens.saes.transcoder import SkipTranscoder, SkipTranscoderConfig
    from sae_lens.util import filter_valid_dataclass_fields

    @dataclass
    class TopKTranscoderConfig(SkipTranscoderConfig):
        k: int = 32

        @classmethod
        def architecture(cls) -> str:
            return ARCHITECTURE

        @classmethod
        def from_dict(cls, config_dict: dict[str, Any]) -> TopKTranscoderConfig:
            from sae_lens.saes.sae import SAEMetadata

            made = cls(**filter_valid_dataclass_fields(config_dict, cls))
            made.metadata = SAEMetadata(**(config_dict.get("metadata") or {}))
            return made

        def to_dict(self) -> dict[str, Any]:
            return {**super().to_dict(), "k": self.k}

    class TopKTranscoder(SkipTranscoder):
        cfg: TopKTranscoderConfig  # pyright: ignore[reportIncompatibleVariableOverride]

        def get_activation_fn(self) -> TopK:
            return TopK(self.cfg.k)

        @classmethod
        def from_dict(cls, config_dict: dict[str, Any]) -> TopKTranscoder:
            return cls(TopKTranscoderConfig.from_dict(config_dict))

    register_sae_class(ARCHITECTURE, TopKTranscoder, TopKTranscoderConfig)
