"""Every choice of a fine-tune: default, range, help. Command line, recipe files and search read it from here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from outdo.contracts import Choice
from outdo.errors import RecipeError, nearest

AUTO = "auto"

CHOICES: tuple[Choice, ...] = (
    Choice("optimiser", "adamw", "update rule; sgd has Nesterov momentum 0.9", "category",
           options=("sgd", "adam", "adamw"), search=("sgd", "adamw")),
    Choice("learning_rate", AUTO, "peak learning rate of the head and the last block", "float", 1e-6, 1.0, log=True,
           auto=True, search=(1e-5, 1e-1)),
    Choice("schedule", "cosine", "how the learning rate falls after a short warm-up", "category",
           options=("cosine", "linear", "constant"), search=("cosine", "constant")),
    Choice("weight_decay", 0.01, "decoupled weight decay; never on biases and norms", "float", 0.0, 1.0, log=True,
           search=(1e-4, 0.3)),
    Choice("epochs", AUTO, "passes over the training set; 0 stops at the probe", "int", 0, 1000, auto=True),
    Choice("batch_size", 32, "examples per step", "int", 1, 4096, log=True, search=(16, 128)),
    Choice("input_size", AUTO, "image side in pixels that the network sees", "int", 32, 1024, auto=True,
           search=(96, 288), step=32),
    Choice("depth", AUTO, "how many of the backbone's last blocks are trained; 0: only the head", "int", 0, 1000,
           auto=True, search=(0, 3)),
    Choice("layer_decay", 0.75, "learning rate factor from each trained block to the one before it", "float", 0.1, 1.0,
           search=(0.3, 1.0), needs=("depth", 2)),
    Choice("augmentation", 0.5, "strength of flips, crops and colour changes; 0 is none", "float", 0.0, 1.0,
           search=(0.0, 1.0), step=0.5),
    Choice("mixup", 0.0, "alpha of the Beta distribution that mixes pairs of examples; 0 is none", "float", 0.0, 2.0,
           search=(0.0, 0.5)),
    Choice("objective", "standard", "what training makes small: the loss, that under attack (PGD), or both (TRADES)",
           "category", options=("standard", "adversarial", "trades")),
    Choice("attack_eps", 1.0, "how much an attack in training may change a pixel value, of 255", "float", 0.0, 64.0),
    Choice("attack_steps", 2, "steps of an attack in training; each costs as much as a step without one", "int", 1,
           100),
    Choice("label_smoothing", 0.1, "share of the target spread over all classes", "float", 0.0, 0.5,
           search=(0.0, 0.2)),
    Choice("class_weighting", AUTO, "weigh classes by inverse frequency; auto: when the largest is over 3 times the "
           "smallest", "category", options=("none", "balanced"), auto=True, search=("none", "balanced")),
    Choice("early_stopping", 5, "epochs without a better validation loss before training stops; 0 is never", "int", 0,
           1000),
    Choice("averaging", "ema", "average the weights along training", "category", options=("none", "ema"),
           search=("none", "ema")),
    Choice("interpolation", AUTO, "share of the way from the pretrained to the tuned weights (WiSE-FT); auto: chosen "
           "on validation", "float", 0.0, 1.0, auto=True),
    Choice("fit", "crop", "how an image becomes a square: crop the centre (7/8 of the shorter side), or squash all of "
           "it", "category", options=("crop", "squash")),
    Choice("precision", AUTO, "number format of forward and backward; auto: bfloat16 where measured faster and safe",
           "category", options=("float32", "bfloat16"), auto=True),
    Choice("allocator", AUTO, "keep freed memory for reuse instead of returning it (glibc): faster, resident memory "
           "does not shrink", "category", options=("keep", "system"), auto=True),
)
NAMES = tuple(choice.name for choice in CHOICES)


class Recipe(Mapping[str, Any]):
    """Choices by name, checked; what was not said is the default. Immutable.

    `Recipe(epochs=3)["epochs"] == 3`; attributes work too: `recipe.learning_rate`.
    """

    def __init__(self, **said: Any) -> None:
        self.said = {name: check(name, value) for name, value in said.items()}
        self._values = {choice.name: choice.default for choice in CHOICES} | self.said

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __getattr__(self, name: str) -> Any:
        if name in NAMES:
            return self._values[name]
        raise AttributeError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Recipe({', '.join(f'{k}={v!r}' for k, v in self.said.items())})"

    def but(self, **changes: Any) -> Recipe:
        """The same recipe with some choices changed."""
        return Recipe(**{**self.said, **changes})


def choice(name: str) -> Choice:
    """The choice of that name. Raises RecipeError with the nearest valid one."""
    wanted = name.replace("-", "_")
    for candidate in CHOICES:
        if candidate.name == wanted:
            return candidate
    raise RecipeError(f"unknown recipe choice '{name}'", fix=nearest(wanted, NAMES))


def check(name: str, value: Any) -> Any:
    """`value` in the choice's own type (text from the command line is parsed). Raises RecipeError outside the range."""
    c = choice(name)
    if c.auto and value == AUTO:
        return AUTO
    if c.kind == "category":
        if value not in c.options:
            raise RecipeError(f"{c.name} cannot be '{value}'", fix=nearest(str(value), c.options + (AUTO,) * c.auto))
        return value
    try:
        number = float(value)
        whole = int(number)
    except (TypeError, ValueError, OverflowError):
        raise RecipeError(f"{c.name} cannot be '{value}'", expected=span(c)) from None
    if isinstance(value, bool) or (c.kind == "int" and whole != number):
        raise RecipeError(f"{c.name} cannot be '{value}'", expected=span(c))
    if not (c.low is None or number >= c.low) or not (c.high is None or number <= c.high):
        raise RecipeError(f"{c.name} cannot be {value}", expected=span(c))
    return whole if c.kind == "int" else number


def span(c: Choice) -> str:
    """The valid values in words: `a whole number from 0 to 1000, or auto`."""
    if c.kind == "category":
        return " or ".join(c.options + (AUTO,) * c.auto)
    noun = "a whole number" if c.kind == "int" else "a number"
    return f"{noun} from {c.low:g} to {c.high:g}" + (", or auto" if c.auto else "")
