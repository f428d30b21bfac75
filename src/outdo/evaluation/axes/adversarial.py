"""Under attack: accuracy when each pixel may be changed by eps against the model. Asked for, not measured by default.

Each contestant is attacked by PGD, Auto-PGD and Square, one after the other on what still stands: an image counts as
right only while no attack has succeeded, so the figure is an upper bound of the true robustness. What falls at one eps
has fallen at all larger ones. The figure is the mean over EPS, from what breaks most networks that nobody hardened to
the 4/255 of the literature: at any single one all of them stand, or none does. The detail has each.

Whether the bound can be trusted is said by flags, as in AutoAttack (Croce and Hein 2020): gradients that are zero,
answers that change between two calls, probabilities in the place of logits, and "masking": Square, which asks for
answers only, fells what gradients did not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from outdo.contracts import Contestant, Differentiable, Measurement, TestSet
from outdo.evaluation.axes._helpers import mean_of, measured, runnable, square

if TYPE_CHECKING:
    import torch

    from outdo.evaluation.axes._attacks import Logits

EPS = (0.25 / 255, 0.5 / 255, 1 / 255, 2 / 255, 4 / 255)  # ascending
EXAMPLES = 100
PGD_STEPS, APGD_STEPS, QUERIES = 10, 20, 200
BATCH = 20
MASKED = 0.02  # of the examples that Square alone broke: more than it should find where gradients lead


class Adversarial:
    title = "under attack"
    summary = "accuracy when every pixel value may be changed against the model, mean over 0.25/255 to 4/255"
    unit = "fraction"
    better = "higher"
    tolerance = 0.0
    costly = True

    def measure(self, contestants: Sequence[Contestant], test: TestSet) -> dict[str, Measurement]:
        if test.inputs.kind != "image" or not len(test):
            return {}
        known = {name: logits for name, model in runnable(contestants).items()
                 if isinstance(model, Differentiable) and (logits := model.differentiable()) is not None}
        chosen = np.sort(np.random.default_rng(0).permutation(len(test))[:EXAMPLES])
        return {name: self._one(logits, test, chosen) for name, logits in known.items()}

    def _one(self, logits: Logits, test: TestSet, chosen: np.ndarray) -> Measurement:
        import torch

        images = [square(test.inputs.read(int(i))) for i in chosen]  # type: ignore[arg-type]
        standing: dict[float, np.ndarray] = {eps: np.zeros(len(chosen), bool) for eps in EPS}
        rows: list[dict[str, Any]] = []
        flags: set[str] = set()
        for side in sorted({len(image) for image in images}):
            at = np.array([i for i, image in enumerate(images) if len(image) == side])
            x = torch.from_numpy(np.stack([images[i] for i in at])).permute(0, 3, 1, 2).float() / 255
            y = torch.from_numpy(test.codes[chosen[at]])
            broken = Siege(logits, x, y)
            flags |= broken.flags()
            for eps in EPS:
                rows.append(broken.attack(eps))
                standing[eps][at] = broken.standing.numpy()
            flags |= {"masking"} if broken.masked() else set()
        detail = {"of": len(test), "flags": sorted(flags), "attacks": added_up(rows, len(chosen)),
                  "robust": [{"eps": eps, "accuracy": float(right.mean())} for eps, right in standing.items()]}
        return measured(mean_of(np.mean([standing[eps] for eps in EPS], axis=0)), len(chosen), detail=detail)


class Siege:
    """One contestant's images of one size, and which of them still stand."""

    def __init__(self, logits: Logits, x: torch.Tensor, y: torch.Tensor) -> None:
        import torch

        self.logits, self.x, self.y, self.alone, self.felled = logits, x, y, 0, 0
        with torch.no_grad():
            self.outputs = torch.cat([logits(part) for part in x.split(BATCH)])
        self.standing = self.outputs.argmax(1) == y

    def attack(self, eps: float) -> dict[str, Any]:
        """How many fall to each attack at `eps`, in turn: {"eps", "stood", "pgd", "apgd", "square"}."""
        from outdo import runtime
        from outdo.evaluation.axes import _attacks

        row: dict[str, Any] = {"eps": eps, "stood": int(self.standing.sum())}
        for turn, (name, method, effort) in enumerate((("pgd", _attacks.pgd, PGD_STEPS),
                                                       ("apgd", _attacks.apgd, APGD_STEPS),
                                                       ("square", _attacks.square, QUERIES))):
            draw = runtime.generator(round(eps * 2550), turn)
            row[name] = self._try(lambda x, y, m=method, e=effort, d=draw: m(self.logits, x, y, eps, e, d))
        self.alone, self.felled = self.alone + row["square"], self.felled + row["pgd"] + row["apgd"]
        return row

    def _try(self, method: Any) -> int:
        import torch

        from outdo.evaluation.axes._attacks import in_batches

        at = torch.nonzero(self.standing)[:, 0]
        spoilt = in_batches(method, self.x[at], self.y[at], BATCH)
        with torch.no_grad():
            answers = [self.logits(part).argmax(1) for part in spoilt.split(BATCH)] if len(at) else []
        fell = torch.cat(answers) != self.y[at] if answers else torch.zeros(0, dtype=torch.bool)
        self.standing[at[fell]] = False
        return int(fell.sum())

    def masked(self) -> bool:
        return self.alone > max(1, MASKED * len(self.x))

    def flags(self) -> set[str]:
        import torch

        from outdo.evaluation.axes._attacks import loss_and_gradient

        some, y = self.x[:BATCH], self.y[:BATCH]
        found = set()
        with torch.no_grad():
            if not torch.allclose(self.logits(some), self.logits(some), atol=1e-5):
                found.add("random answers")
        sums = self.outputs.sum(1)
        if self.outputs.min() >= 0 and torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
            found.add("probabilities, not logits")
        _, gradient, _ = loss_and_gradient(self.logits, some, y)
        if (gradient.flatten(1).abs().amax(1) == 0).float().mean() > 0.05:
            found.add("zero gradients")
        return found


def added_up(rows: Sequence[dict[str, Any]], n: int) -> list[dict[str, Any]]:
    """Over images of all sizes: how many fell to which attack, at each eps."""
    return [{"eps": eps, "n": n, **{k: sum(row[k] for row in rows if row["eps"] == eps)
                                    for k in ("stood", "pgd", "apgd", "square")}} for eps in EPS]


PLUGIN = Adversarial()
