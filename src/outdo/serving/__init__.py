"""A bundle over HTTP: an own batcher, the Open Inference Protocol, a page. One process, no torch."""
