"""Which heads matter: references, trivial baselines and methods side by side."""
