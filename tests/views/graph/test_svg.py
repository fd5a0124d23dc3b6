from xml.etree import ElementTree

from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.sites import Site
from circuit_toolkit.views.graph.svg import graph_svg
from tests.circuit.made_up import made_up_circuit

SVG = "{http://www.w3.org/2000/svg}"


def test_the_picture_holds_every_node_and_edge():
    sites = [Site(kind, layer) for layer in range(3) for kind in ("attn_out", "mlp_out")]
    circuit = made_up_circuit(sites=[*sites, Site("resid_post", 2)])
    root = ElementTree.fromstring(graph_svg(circuit))
    assert len(root.findall(f".//{SVG}path")) == len(circuit.edges)
    tips = [title.text or "" for title in root.iter(f"{SVG}title")]
    assert [tip.splitlines()[1] for tip in tips] == circuit.ids()[:-1]
    assert "faithfulness 0.81" in "".join(root.itertext())


def test_text_of_others_stays_text():
    circuit = made_up_circuit(4, 4)
    nodes = circuit.nodes.copy()
    nodes["label"] = '<script>a</script> & "\x0b'
    root = ElementTree.fromstring(graph_svg(Circuit(nodes, circuit.edges)))
    assert not list(root.iter(f"{SVG}script"))
    assert "unvalidated: no evidence yet" in "".join(root.itertext())
