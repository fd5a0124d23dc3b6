"""The JSON that Neuronpedia and circuit-tracer's page read: attribution graphs of one prompt."""
