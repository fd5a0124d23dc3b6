"""Dictionaries: sparse autoencoders and transcoders, loaded, checked against a model, trained."""

from circuit_toolkit.dictionaries.check import DictionaryCheck, check_dictionaries
from circuit_toolkit.dictionaries.coordinates import Coordinates, coordinates
from circuit_toolkit.dictionaries.dictionary import (
    Dictionary,
    save_dictionary,
    shared_bos,
    under,
)
from circuit_toolkit.dictionaries.loading import bind_dictionary, load_dictionaries
from circuit_toolkit.dictionaries.training.train import train_dictionaries
from circuit_toolkit.dictionaries.training.trainers import (
    DictionaryConfig,
    train_sae,
    train_transcoder,
)

__all__ = [
    "Coordinates",
    "Dictionary",
    "DictionaryCheck",
    "DictionaryConfig",
    "bind_dictionary",
    "check_dictionaries",
    "coordinates",
    "load_dictionaries",
    "save_dictionary",
    "shared_bos",
    "train_dictionaries",
    "train_sae",
    "train_transcoder",
    "under",
]
