"""Circuits: the noun, and the methods that find one."""
