"""Dictionaries: sparse autoencoders and transcoders, loaded, checked against a model, trained."""

from circuit_toolkit.dictionaries.dictionary import Dictionary, load_dictionaries, save_dictionary
from circuit_toolkit.dictionaries.training import DictionaryConfig, train_sae, train_transcoder

__all__ = [
    "Dictionary",
    "DictionaryConfig",
    "load_dictionaries",
    "save_dictionary",
    "train_sae",
    "train_transcoder",
]
