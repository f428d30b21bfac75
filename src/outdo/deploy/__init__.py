"""From a run to a bundle (`export`), and from a bundle to answers (`bundle`, `predictor`): the second without torch."""
