"""Circuit: which features drive which, as two tables with their settings and their evidence."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_toolkit.arguments import described, number
from circuit_toolkit.circuit import exports, file
from circuit_toolkit.circuit.dict_schema import check_dict
from circuit_toolkit.circuit.evidence import OF_WHOLE, evidence_lines, verdict_of
from circuit_toolkit.circuit.groups import (
    checked_groups,
    group_of_each,
    grouped,
    kept_groups,
    supernode_edges,
    ungrouped,
)
from circuit_toolkit.circuit.neuronpedia.reading import circuit_of
from circuit_toolkit.circuit.neuronpedia.writing import graph_of, text_of
from circuit_toolkit.circuit.pruning import kept
from circuit_toolkit.circuit.tables import (
    EDGE,
    TARGET,
    TOKEN,
    check_tables,
    depths,
    ids_of,
    short,
)
from circuit_toolkit.display import draw
from circuit_toolkit.errors import InputError
from circuit_toolkit.files.documents import plain, resolved, write_file, write_json, write_text
from circuit_toolkit.files.reading import read_json
from circuit_toolkit.sites import Site
from circuit_toolkit.texts import printable

if TYPE_CHECKING:
    import networkx
    import pandas as pd


@dataclass(frozen=True, eq=False)  # eq=False: arrays compare element by element
class Circuit:
    """Which features drive which, and the target, with the evidence for it.

    Parameters
    ----------
    nodes : ndarray, shape (n,), dtype NODE
        In order of computation; the last ones, and no others, are targets, labelled with the
        metric, class or answer. `kind` is one of `KINDS`; `site` a hook name (of tokens and targets
        their kind); `position` a place that the task names, `last`, `mean`, the number of a token,
        or empty; `index` the feature, head or token of the vocabulary. `activation` is the mean
        over the rows or the value on the prompt; `score` >= 0 is the importance that pruning ranks
        by.
    edges : ndarray, shape (e,), dtype EDGE
        `source` and `target` are rows of `nodes`, and the source's site is computed before the
        target's. `weight` is signed, `score` >= 0 is what pruning ranks by. `status` is `untested`,
        `confirmed` or `refuted`; where it was tested, `low` and `high` are the interval of the
        weight, else infinite.
    settings : dict
        What made the circuit: method, strength, model, sites, task, what its nodes are (`level`:
        features, heads or components), of all prompts or of one (`scope`: dataset, prompt), ...
    evidence : dict
        What supports it: `fit` (held-out R² or AUROC) and `ablation`. Empty: unvalidated.
    groups : dict of str to list of str
        Supernodes, nodes that are read as one: name -> ids. A node is in at most one, a target in
        none.

    Settings and evidence are stored as plain JSON: numpy scalars become numbers, NaN becomes None.

    Raises
    ------
    InputError
        If the tables have another shape or dtype, hold NaN, an unknown site, a duplicate, an edge
        to nowhere or against the order of computation, if a dict cannot be written as JSON or says
        what nothing measures (an R² of 42), or if a supernode holds an unknown node, a target, or
        a node of another one.
    """

    nodes: np.ndarray  # (n,) NODE
    edges: np.ndarray  # (e,) EDGE
    settings: dict[str, Any] = field(default_factory=dict)
    evidence: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the tables; make the dicts plain."""
        check_tables(self.nodes, self.edges)
        for name in ("settings", "evidence"):
            value = getattr(self, name)
            if not isinstance(value, dict):
                raise InputError(f"{name} must be a dict, got {described(value)}.")
            object.__setattr__(self, name, plain(value, name))
            check_dict(name, getattr(self, name))
        groups = checked_groups(self.groups, self.ids(), self.nodes["kind"].tolist())
        object.__setattr__(self, "groups", groups)

    def depths(self) -> np.ndarray:
        """Rank of each node's site in the order of computation (n,), from 0; the target's is last.

        Returns
        -------
        ndarray of int, shape (n,)
        """
        return depths(self.nodes["site"])

    def ids(self) -> list[str]:
        """Return names that people can type.

        Returns
        -------
        list of str, n of them
            `blocks.3.hook_resid_post/17@s2`, `a4.h1@end`, `m2@end`, `target:Mary-John`.
        """
        return ids_of(self.nodes)

    def features(self) -> dict[Site, np.ndarray]:
        """Features (or heads, MLPs) at each site, in order of computation, at any position.

        Returns
        -------
        dict of Site to ndarray of int, each sorted
        """
        found: dict[Site, np.ndarray] = {}
        for (site, _), units in self.placed_features().items():
            found[site] = np.union1d(found.get(site, []), units).astype(np.int64)
        return found

    def placed_features(self) -> dict[tuple[Site, str], np.ndarray]:
        """Features (or heads, MLPs) at each site and position, in order of computation.

        Returns
        -------
        dict of (Site, str) to ndarray of int, each sorted
        """
        inner = self.nodes[np.isin(self.nodes["kind"], ("feature", "head", "mlp", "embedding"))]
        found: dict[tuple[Site, str], list[int]] = {}
        for site, position, index in inner[["site", "position", "index"]].tolist():
            found.setdefault((Site.parse(site), position), []).append(index)
        return {place: np.sort(units).astype(np.int64) for place, units in found.items()}

    def node_table(self) -> pd.DataFrame:
        """Nodes for reading: id, kind, short site, position, index, label, ..., supernode.

        Returns
        -------
        DataFrame with n rows
        """
        import pandas as pd

        names = ("kind", "site", "position", "index", "label", "activation", "score")
        columns = {"id": self.ids(), **{name: self.nodes[name] for name in names}}
        columns["site"] = [short(site) for site in self.nodes["site"].tolist()]
        columns["group"] = group_of_each(self.groups, columns["id"])
        return pd.DataFrame(columns)

    def edge_table(self) -> pd.DataFrame:
        """Edges for reading, strongest first; the index is the row in `edges`.

        Returns
        -------
        DataFrame with e rows
            Ids and labels of both ends, weight, score, status, and the interval of the weight.
        """
        import pandas as pd

        ids, labels = np.array(self.ids(), dtype=object), self.nodes["label"]
        source, target = self.edges["source"], self.edges["target"]
        table = pd.DataFrame(
            {
                "source": ids[source],
                "source_label": labels[source],
                "target": ids[target],
                "target_label": labels[target],
                **{name: self.edges[name] for name in (EDGE.names or ())[2:]},
            }
        )
        return table.sort_values("score", ascending=False, kind="stable")

    def group(self, name: str, nodes: Iterable[str]) -> Circuit:
        """Make a supernode of some nodes, which are then read as one.

        Parameters
        ----------
        name : str
            What to call it.
        nodes : list of str
            Ids of its nodes, as `ids` gives them: of any kind but targets, and in no other
            supernode.

        Returns
        -------
        Circuit
            With this one beside the supernodes that it has; tables and evidence are the same.

        Raises
        ------
        InputError
            If the name is taken, or a node is unknown, a target, or in another supernode.
        """
        return replace(self, groups=grouped(self.groups, name, nodes))

    def ungroup(self, name: str) -> Circuit:
        """Take a supernode apart; its nodes stay.

        Parameters
        ----------
        name : str
            Of a supernode in `groups`.

        Returns
        -------
        Circuit

        Raises
        ------
        InputError
            If there is none of that name.
        """
        return replace(self, groups=ungrouped(self.groups, name))

    def supernode_edges(self) -> pd.DataFrame:
        """Return edges between supernodes, and between these and nodes in none, largest first.

        Returns
        -------
        DataFrame
            `source` and `target`: names of supernodes, ids of nodes in none; `weight`: the sum over
            all edges from the one to the other. Edges inside a supernode are left out.
        """
        return supernode_edges(self.groups, self.ids(), self.edges)

    def subgraph(self, keep: np.ndarray) -> Circuit:
        """Keep some nodes and the edges between them.

        Evidence belongs to the circuit that was tested: it is dropped when a node goes, but for the
        scores of an attribution graph, which are of the graph before all pruning. Nodes that
        go leave their supernode.

        Parameters
        ----------
        keep : ndarray of bool, shape (n,)
            True for nodes that stay; targets must.

        Returns
        -------
        Circuit

        Raises
        ------
        InputError
            If the mask has another shape or dtype, or drops a target.
        """
        keep = np.asarray(keep)
        if keep.shape != self.nodes.shape or keep.dtype != bool:
            raise InputError(
                f"keep must be a bool mask of shape {self.nodes.shape}, "
                f"got {keep.dtype} of shape {keep.shape}."
            )
        if not keep[self._is_target].all():
            raise InputError("keep drops the target, the last node. Set keep[-1] = True.")
        edges = self.edges
        return self._cut(keep, keep[edges["source"]] & keep[edges["target"]])

    def prune(
        self,
        max_features: int | None = None,
        max_edges: int | None = None,
        min_score: float | None = None,
        share: float | None = None,
        *,
        max_per_site: int | None = None,
    ) -> Circuit:
        """Keep the best features, then the best edges, then what still reaches the target.

        Evidence belongs to the circuit that was tested: it is dropped when anything goes, but for
        the scores of an attribution graph, which are of the graph before all pruning. Nodes that
        go leave their supernode.

        Parameters
        ----------
        max_features : int, optional
            Keep at most so many features, the highest node scores. The target is not counted.
        max_edges : int, optional
            Keep at most so many edges between them, the highest edge scores.
        min_score : float, optional
            Drop edges below this score.
        share : float, optional
            Keep the fewest features whose scores add up to this share of all, in [0, 1].
        max_per_site : int, optional
            Keep at most so many features of each site.

        Returns
        -------
        Circuit
            Targets always stay; every other node has a path to one.

        Raises
        ------
        InputError
            If a limit is negative, or the share is not in [0, 1].
        """
        keep = kept(self.nodes, self.edges, max_features, max_edges, min_score, share, max_per_site)
        return self._cut(*keep)

    @property
    def verdict(self) -> str:
        """What the evidence says, by fixed rules.

        `sufficient`: faithfulness of at least .8, above every random set. `necessary`:
        completeness of at most .2, below every random set: what `find_circuit` and `find_heads`
        grow circuits to, here on other prompts. Either, both or neither; with a remark where all
        features, errors ablated, keep less than .5 of the behaviour; or `untested`.

        Returns
        -------
        str
        """
        return verdict_of(self.evidence)

    def with_evidence(self, evidence: dict[str, Any]) -> Circuit:
        """Return the same circuit with this evidence instead of its own.

        Parameters
        ----------
        evidence : dict
            JSON-able; `circuit.evidence | {...}` adds to what is there.

        Returns
        -------
        Circuit
        """
        return replace(self, evidence=evidence)

    def save(self, path: str | Path) -> Path:
        """Write the circuit as JSON, whole or not at all.

        Parameters
        ----------
        path : str or Path
            A file of that name is replaced.

        Returns
        -------
        Path
        """
        return write_json(path, file.document_of(self))

    @classmethod
    def load(cls, path: str | Path) -> Circuit:
        """Read a circuit that `save` wrote.

        Parameters
        ----------
        path : str or Path
            The file.

        Returns
        -------
        Circuit

        Raises
        ------
        FileFormatError
            If the file is damaged, foreign, of another version or changed after it was saved; or
            holds evidence without the checksum that binds it to its tables.
        """
        return file.parsed(cls, read_json(resolved(path), file.REMEDY), f"{path}")

    def to_networkx(self, *, plain: bool = False) -> networkx.DiGraph:
        """Convert to networkx: nodes by id, columns as attributes, and their supernode as `group`.

        Settings and evidence are attributes of the graph.

        Parameters
        ----------
        plain : bool
            Whether all attributes are texts and finite numbers, as `networkx.write_graphml`,
            `write_gexf` and `write_gml` want: settings and evidence are JSON texts, an interval
            that is not known is left out.

        Returns
        -------
        networkx.DiGraph
        """
        return exports.to_networkx(self, plain)

    def to_csv(self, folder: str | Path) -> Path:
        """Write the tables as `nodes.csv` and `edges.csv`, both or neither.

        Nodes have their id and supernode (`group`) beside their columns; edges name their ends by
        id; an interval that is not known is empty.

        Parameters
        ----------
        folder : str or Path
            A new or empty one, or one with nothing but such tables, which are replaced.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        InputError
            If the folder holds anything else, which is not touched.
        """
        return exports.write_csv(self, folder)

    def to_parquet(self, folder: str | Path) -> Path:
        """Write the tables of `to_csv` as `nodes.parquet` and `edges.parquet`, both or neither.

        Parameters
        ----------
        folder : str or Path
            A new or empty one, or one with nothing but such tables, which are replaced.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        InputError
            If the folder holds anything else, which is not touched.
        """
        return exports.write_parquet(self, folder)

    def to_graphml(self, path: str | Path) -> Path:
        r"""Write what `to_networkx` gives as GraphML, for Gephi, Cytoscape, yEd, networkx.

        Settings and evidence are JSON texts; an interval that is not known is left out; characters
        that XML cannot hold are written as `\x00`.

        Parameters
        ----------
        path : str or Path
            A file of that name is replaced.

        Returns
        -------
        Path
        """
        return exports.write_graphml(self, path)

    def to_neuronpedia(
        self,
        path: str | Path | None = None,
        *,
        slug: str | None = None,
        scan: str | None = None,
        source_set: str | None = None,
        description: str = "",
        pinned: Iterable[str] | None = None,
    ) -> dict[str, Any] | Path:
        """Convert to the JSON that Neuronpedia and circuit-tracer's page read.

        For circuits of one prompt, with features, errors, tokens and targets at the numbers of
        tokens. Supernodes become Neuronpedia's, labels its `clerp`. `influence` is there the share
        of a node and all larger ones. What the format has no place for stands in keys of our own,
        so that `from_neuronpedia` gives the same circuit back.

        Parameters
        ----------
        path : str or Path, optional
            Where to write it, whole or not at all; a file of that name is replaced.
        slug : str, optional
            Name of the graph there: letters, digits, `-` and `_`. By default from the prompt.
        scan : str, optional
            Model on Neuronpedia, such as `gemma-2-2b`. By default from the settings.
        source_set : str, optional
            The features' source set on Neuronpedia, such as `gemmascope-transcoder-16k`, so that a
            node shows the feature's page. By default that of the transcoders, where it is known.
        description : str
            A note for readers.
        pinned : list of str, optional
            Ids of nodes to show beside the graph; by default `settings["pinned"]`, else those in
            supernodes with the targets.

        Returns
        -------
        dict or Path
            The graph, or with `path` the file.

        Raises
        ------
        InputError
            If it is no circuit of one prompt or has heads, a name is no name, or the graph takes
            less than 1 kB or more than 100 MB.

        Notes
        -----
        Valid against Neuronpedia's `graph-schema.json` 1.0.0 and circuit-tracer 0.5.0's models.
        """
        graph = graph_of(self, slug, scan, source_set, description, pinned)
        text = text_of(graph)
        return graph if path is None else write_text(path, text)

    @classmethod
    def from_neuronpedia(cls, source: str | Path | dict[str, Any]) -> Circuit:
        """Read a graph in Neuronpedia's format, such as `to_neuronpedia` or circuit-tracer writes.

        Of other programs' graphs, features stand where transcoders read (`mlp_in`), scores come
        from the cumulative influence, else from the links, and what the metadata say stays in
        `settings["neuronpedia"]`.

        Parameters
        ----------
        source : str, Path or dict
            The file, or what is in it.

        Returns
        -------
        Circuit

        Raises
        ------
        InputError
            If there is no such file.
        FileFormatError
            If it breaks the format, or has nodes of other types, two nodes of one id, links to
            nowhere or against the order of computation, no logit, or more than 100 MB.

        Warns
        -----
        UserWarning
            If supernodes hold what ours cannot: targets, or nodes of two supernodes.
        """
        return circuit_of(cls, source)

    def to_html(self, path: str | Path | None = None) -> str | Path:
        """Draw the circuit as one HTML page that needs no network.

        Parameters
        ----------
        path : str or Path, optional
            Where to write it.

        Returns
        -------
        str or Path
            The page, or with `path` the file.
        """
        page = draw(self, "html")
        return page if path is None else write_text(path, page)

    def to_svg(self, path: str | Path | None = None) -> str | Path:
        """Draw the circuit as a still picture, as `to_html` first shows it.

        Parameters
        ----------
        path : str or Path, optional
            Where to write it.

        Returns
        -------
        str or Path
            The SVG, or with `path` the file.
        """
        picture = draw(self, "svg")
        return picture if path is None else write_text(path, picture)

    def to_png(self, path: str | Path, scale: float = 2) -> Path:
        """Draw the circuit as a still picture in pixels: what `to_svg` draws.

        Parameters
        ----------
        path : str or Path
            Where to write it.
        scale : float, default 2
            Pixels per CSS pixel, in (0, 8]; 2 is what print and dense screens want.

        Returns
        -------
        Path

        Raises
        ------
        InputError
            If the scale is out of range, or this machine has none of the fonts to write with.
        """
        pixels = draw(self, "png", number(scale, "scale", 0, 8, open_low=True))
        return write_file(path, lambda part: part.write_bytes(pixels))

    def show(self) -> Any:
        """Draw the circuit as a live graph in a notebook.

        Returns
        -------
        GraphWidget
            Its `selected` is the id of the node that was clicked.
        """
        return draw(self, "live")

    def summary(self) -> list[str]:
        """Describe in a few lines what the circuit is and what supports it.

        Returns
        -------
        list of str
            Its size, then a line for each piece of evidence, or `unvalidated: no evidence yet`.
        """
        inner, targets = self.nodes[~self._is_target], self.nodes[self._is_target]
        words = int((inner["kind"] == TOKEN).sum())
        inner = inner[inner["kind"] != TOKEN]
        errors = int((inner["kind"] == "error").sum())
        n, e, sites = len(inner) - errors, len(self.edges), len(set(inner["site"].tolist()))
        noun = str(self.settings.get("level") or "features").removesuffix("s")
        size = f"{n} {noun}{'s' * (n != 1)}"
        size += f" and {errors} error{'s' * (errors != 1)}" * bool(errors)
        size += f" at {sites} site{'s' * (sites != 1)}"
        size += f", {words} word{'s' * (words != 1)}" * bool(words)
        of_prompt = self.settings.get("scope") == "prompt"
        ends = ", ".join(
            (label or TARGET) + (f" = {value:+.1f}" if of_prompt and value else "")
            for label, value in targets[["label", "activation"]].tolist()
        )
        groups = len(self.groups)
        size += f", {e} edge{'s' * (e != 1)}"
        size += f", {groups} supernode{'s' * (groups != 1)}" * bool(groups)
        what = f"{size}, target{'s' * (len(targets) > 1)}: {ends}"
        return [what, *evidence_lines(self.evidence)]

    def __repr__(self) -> str:
        """Return the summary in one line."""
        return printable(f"<Circuit: {'; '.join(self.summary())}>")

    def _repr_html_(self) -> str:
        what, *lines = map(html.escape, self.summary())
        return f"<div><b>Circuit</b>: {what}<br>{'<br>'.join(lines)}</div>"

    @property
    def _is_target(self) -> np.ndarray:
        return self.nodes["kind"] == TARGET

    def _cut(self, keep: np.ndarray, keep_edge: np.ndarray) -> Circuit:
        if keep.all() and keep_edge.all():
            return self
        row = np.cumsum(keep) - 1  # (n,) old row -> new row
        edges = self.edges[keep_edge]  # a copy
        edges["source"], edges["target"] = row[edges["source"]], row[edges["target"]]
        nodes = self.nodes[keep]
        groups = kept_groups(self.groups, ids_of(nodes))
        of_whole = {key: self.evidence[key] for key in OF_WHOLE if key in self.evidence}
        return replace(self, nodes=nodes, edges=edges, evidence=of_whole, groups=groups)
