"""Afterwards: the better model of a run, or a bundle, ready to answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outdo import plugins
from outdo.contracts import batches
from outdo.errors import DataError, RunError

if TYPE_CHECKING:
    from outdo.deploy.predictor import BundlePredictor

TOGETHER = 256  # inputs that are read before they are answered


class Predictor:
    """The better model of a run. `kind` says what it takes: paths of images, or texts."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.kind, self.classes = model.task.kind, model.classes

    def predict(self, inputs: Sequence[str | Path]) -> list[dict[str, Any]]:
        """{"input", "label", "probability", "probabilities"} for each. Raises DataError, which names the first that
        cannot be read."""
        answers = list(self.stream([inputs] if isinstance(inputs, str | Path) else list(inputs)))
        wrong = next((answer for answer in answers if "error" in answer), None)
        if wrong is not None:
            raise DataError(f"{wrong['input']} cannot be read: {wrong['error']}")
        return answers

    def stream(self, inputs: Sequence[str | Path]) -> Iterator[dict[str, Any]]:
        """As `predict`, in order and in constant memory; {"input", "error"} for what cannot be read."""
        from outdo.data import inputs as sources

        for part in batches(len(inputs), TOGETHER):
            given = [str(one) for one in inputs[part]]
            made = sources.files(given) if self.kind == "image" else sources.texts(given)
            probabilities, problems = self.model.answers(made)
            answers = self.model.task.answer(probabilities, self.classes)
            yield from ({"input": name, **({"error": problems[i]} if i in problems else answer)}
                        for i, (name, answer) in enumerate(zip(given, answers, strict=True)))


def load(path: str | Path) -> Predictor | BundlePredictor:
    """The best model of a run, finished or interrupted; or a bundle, which needs no torch.

    Raises RunError, BackboneError and BundleError.
    """
    from outdo.deploy.bundle import Bundle, is_bundle

    if is_bundle(path):
        from outdo.deploy.predictor import BundlePredictor

        return BundlePredictor(Bundle.open(path))
    return load_run(path)


def load_run(run: str | Path) -> Predictor:
    from outdo import backbones
    from outdo.training.model import Model

    folder = Path(run)
    if not folder.is_dir():
        raise RunError(f"there is no run in {folder}", expected="the folder that improve wrote")
    return Predictor(Model.load(folder, find_task=lambda name: plugins.load("tasks", name),
                                find_backbone=backbones.load))
