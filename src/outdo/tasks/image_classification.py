"""One label for each photo."""

from outdo.tasks._classification import Classification


class ImageClassification(Classification):
    name = "image_classification"
    summary = "one label for each photo"
    kind = "image"


PLUGIN = ImageClassification()
