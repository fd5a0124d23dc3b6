"""Known circuits in the form of InterpBench: read, converted and run."""
