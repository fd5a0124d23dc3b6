"""Dictionaries: sparse autoencoders and transcoders, loaded, checked against a model, trained."""

from circuit_toolkit.dictionaries.check import DictionaryCheck, check_dictionaries
from circuit_toolkit.dictionaries.dictionary import Dictionary, save_dictionary
from circuit_toolkit.dictionaries.dictionary import shared_bos as shared_bos
from circuit_toolkit.dictionaries.given import as_dictionaries
from circuit_toolkit.dictionaries.loading import bind_dictionary, load_dictionaries
from circuit_toolkit.dictionaries.raw_sites import Coordinates, coordinates
from circuit_toolkit.dictionaries.training.train import train_dictionaries
from circuit_toolkit.dictionaries.training.trainers import DictionaryConfig

__all__ = [
    "Coordinates",
    "Dictionary",
    "DictionaryCheck",
    "DictionaryConfig",
    "as_dictionaries",
    "bind_dictionary",
    "check_dictionaries",
    "coordinates",
    "load_dictionaries",
    "save_dictionary",
    "train_dictionaries",
]
