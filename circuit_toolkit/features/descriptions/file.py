"""Descriptions as a Parquet or JSON file: one row a feature, and what stands out inside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_toolkit.errors import FileFormatError
from circuit_toolkit.features.descriptions.data import DescriptionData
from circuit_toolkit.features.descriptions.tables import TABLES, SiteTables, check_tables
from circuit_toolkit.files.checks import check_ending, check_file, existing_file
from circuit_toolkit.files.documents import (
    content_of,
    document,
    read_document,
    write_document,
    write_file,
)
from circuit_toolkit.files.reading import parsed_json
from circuit_toolkit.sites import Site

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = "circuit_toolkit.weight_lens"
SCHEMA_VERSION = 3
ENDINGS = (".parquet", ".json")
_NUMBERS = ("embedding_total", "upstream_total", "sampled")
_KEY = b"circuit_toolkit"
_SLACK = 2**20  # bytes that a Parquet file has besides its rows
_UNREADABLE = (ValueError, OSError, KeyError, TypeError, AttributeError, IndexError, OverflowError)
_REMEDY = "Describe the features again, and save them."


def save_descriptions(descriptions: DescriptionData, path: Path) -> Path:
    """Write descriptions, see `FeatureDescriptions.save`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_ending(path, ENDINGS)
    check_file(path)
    table = pa.concat_tables([_rows(descriptions, site) for site in descriptions.tables])
    head = {
        "settings": dict(descriptions.settings),
        "strings": {str(i): text for i, text in descriptions.strings.items()},
        "shown": [str(site) for site in descriptions.shown],
        "sites": {str(site): each.n_features for site, each in descriptions.tables.items()},
        "kinds": {str(site): [each.kind, each.name] for site, each in descriptions.tables.items()},
        "rows": _print_of(descriptions.tables, descriptions.concepts),
        "bytes": table.nbytes,
    }
    if path.suffix == ".json":
        content = {**head, "features": table.to_pylist()}
        return write_document(path, FORMAT, SCHEMA_VERSION, content)
    text = json.dumps(document(FORMAT, SCHEMA_VERSION, head))
    table = table.replace_schema_metadata({_KEY: text.encode()})

    def write(part: Path) -> None:
        pq.write_table(table, part, compression="zstd", write_page_checksum=True)

    return write_file(path, write)


def load_descriptions(path: Path) -> dict[str, Any]:
    """Read the fields of `FeatureDescriptions`, see `FeatureDescriptions.load`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_ending(path, ENDINGS)
    existing_file(path, "Pass one that FeatureDescriptions.save wrote.")
    try:
        if path.suffix == ".json":
            head = read_document(path, FORMAT, SCHEMA_VERSION, _REMEDY)
            table = pa.Table.from_pylist(head.pop("features"), schema=_schema())
        else:
            file = pq.ParquetFile(path, page_checksum_verification=True)
            text = (file.schema_arrow.metadata or {}).get(_KEY, b"{}")
            found = parsed_json(text, str(path), _REMEDY)
            head = content_of(found, FORMAT, SCHEMA_VERSION, str(path), _REMEDY)
            _check_size(file, head)
            table = file.read()
            table = table.cast(_schema().with_metadata(table.schema.metadata))
        return _fields(head, table)
    except (*_UNREADABLE, pa.ArrowException) as error:
        raise FileFormatError(
            f"{path} is damaged, or holds no descriptions ({type(error).__name__}: "
            f"{str(error)[:120]}). {_REMEDY}"
        ) from error


def _check_size(file: Any, head: dict[str, Any]) -> None:
    """Raise ValueError for a file that would unpack to more than was written."""
    about = file.metadata
    groups = [about.row_group(i).total_byte_size for i in range(about.num_row_groups)]
    if about.num_rows != sum(head["sites"].values()) or sum(groups) > _SLACK + 2 * head["bytes"]:
        raise ValueError("it holds other rows than were written")


def _print_of(tables: Mapping[Site, SiteTables], concepts: Mapping[Any, str]) -> str:
    """Return a checksum of all rows."""
    found = hashlib.sha256()
    for site, table in tables.items():
        for name in (*TABLES, *_NUMBERS):
            values = np.ascontiguousarray(getattr(table, name))
            found.update(f"{site} {name} {values.dtype} {values.shape}\n".encode())
            found.update(values.tobytes())
    found.update(json.dumps(sorted([*key, text] for key, text in concepts.items())).encode())
    return found.hexdigest()


def _schema() -> pa.Schema:
    import pyarrow as pa

    kinds = {"i4": pa.int32(), "f4": pa.float32()}
    nested = {
        name: pa.list_(
            pa.struct(
                [
                    (field, kinds[dtype[field].str[1:]])
                    for field in dtype.names or ()
                    if field != "feature"
                ]
            )
        )
        for name, dtype in TABLES.items()
    }
    return pa.schema(
        {
            "site": pa.string(),
            "feature": pa.int32(),
            "validated": pa.bool_(),
            "words": pa.list_(pa.string()),
            "description": pa.list_(pa.int32()),
            "concept": pa.string(),
            **nested,
            "embedding_total": pa.float32(),
            "upstream_total": pa.float32(),
            "sampled": pa.bool_(),
        }
    )


def _rows(descriptions: DescriptionData, site: Site) -> pa.Table:
    """One row a feature. What follows from the rest is written for those who read it elsewhere."""
    import pyarrow as pa

    table, n = descriptions.tables[site], descriptions.tables[site].n_features
    ids = descriptions.tokens_of(site)
    columns = {
        "site": pa.array([str(site)] * n),
        "feature": pa.array(np.arange(n, dtype=np.int32)),
        "validated": pa.array([bool(each) for each in ids]),
        "words": pa.array(descriptions.words_of(site), pa.list_(pa.string())),
        "description": pa.array(ids, pa.list_(pa.int32())),
        "concept": pa.array(
            [descriptions.concepts.get((str(site), i)) for i in range(n)], pa.string()
        ),
    }
    for name in TABLES:
        columns[name] = _nested(getattr(table, name), n)
    columns |= {name: pa.array(getattr(table, name)) for name in _NUMBERS}
    return pa.table(columns, schema=_schema())


def _nested(rows: np.ndarray, n: int) -> pa.ListArray:
    """Rows of a table that is sorted by feature, as one list for each feature."""
    import pyarrow as pa

    ends = np.searchsorted(rows["feature"], np.arange(n + 1)).astype(np.int32)
    names = [name for name in rows.dtype.names or () if name != "feature"]
    values = [pa.array(np.ascontiguousarray(rows[name])) for name in names]
    return pa.ListArray.from_arrays(pa.array(ends), pa.StructArray.from_arrays(values, names))


def _flat(column: pa.ChunkedArray, dtype: np.dtype) -> np.ndarray:
    """Undo `_nested`."""
    lists = column.combine_chunks()
    counts = np.asarray(lists.value_lengths())
    table = np.empty(int(counts.sum()), dtype)
    table["feature"] = np.repeat(np.arange(len(counts)), counts)
    for name, values in zip(lists.type.value_type, lists.flatten().flatten(), strict=True):
        table[name.name] = np.asarray(values)
    return table


def _fields(head: dict[str, Any], table: pa.Table) -> dict[str, Any]:
    tables, start, concepts = {}, 0, {}
    widths, n_tokens = [*head["sites"].values()], head["settings"]["n_tokens"]
    for number, (name, n) in enumerate(head["sites"].items()):
        part = table.slice(start, n)
        if part["site"].to_pylist() != [name] * n or part["feature"].to_pylist() != [*range(n)]:
            raise ValueError(f"the rows of {name} are not there")
        kind, source = head["kinds"][name]
        tables[Site.parse(name)] = SiteTables(
            kind=kind,
            name=source,
            **{each: _flat(part[each], dtype) for each, dtype in TABLES.items()},
            **{each: part[each].to_numpy() for each in _NUMBERS},
        )
        check_tables(tables[Site.parse(name)], number, widths, n_tokens)
        said = enumerate(part["concept"].to_pylist())
        concepts |= {(name, i): text for i, text in said if text is not None}
        start += n
    if start != len(table):
        raise ValueError("there are rows too many")
    if head["rows"] != _print_of(tables, concepts):
        raise ValueError("its rows are not those that were written")
    strings = {int(i): text for i, text in head["strings"].items()}
    shown = tuple(map(Site.parse, head["shown"]))
    named = [rows["token"] for each in tables.values() for rows in (each.tokens, each.outputs)]
    named += [each.inherited["token"] for each in tables.values()]
    if not set(np.concatenate(named).tolist()) <= set(strings) or not set(shown) <= set(tables):
        raise ValueError("a token or a site is not named")
    return {
        "tables": tables,
        "settings": head["settings"],
        "strings": strings,
        "shown": shown,
        "concepts": concepts,
    }
