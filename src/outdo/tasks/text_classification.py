"""One label for each text: a customer's question to its intent, a message to its topic."""

from outdo.tasks._classification import Classification


class TextClassification(Classification):
    name = "text_classification"
    summary = "one label for each text, such as the intent of a question"
    kind = "text"


PLUGIN = TextClassification()
