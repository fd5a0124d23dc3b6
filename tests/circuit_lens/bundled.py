"""What is analysed of the bundled model, and how."""

from circuit_toolkit.circuit_lens import CircuitLens

FEATURE = "blocks.2.ln2.hook_normalized/6"
LENS = CircuitLens(n_examples=60, theta_feature=2.0)
