"""Privacy: whether an attacker can tell which examples a model was trained on. 50 % is guessing, 100 % is certainty.

Membership inference with as many training examples (members) as test examples (strangers), in two attacks:

- by loss (Yeom et al. 2018): what the model is less surprised at, it has seen. The figure of the axis is the area under
  its ROC curve: how often a member has the smaller loss of the two;
- by likelihood ratio (LiRA, Carlini et al. 2022, with one variance for all): SHADOWS softmax regressions on frozen
  features, each trained on a random half of members and strangers, say how sure of an example one is that has seen it
  or has not. Exact shadows of a linear probe, approximate ones of a fine-tuned network: a bound from below.

An attack that is seldom right but then sure is what hurts, hence the share of members found at 1 % of false alarms.
Where training and test come from different sources, the difference between these is read as memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from outdo.contracts import Answers, Contestant, Measurement, Statistic, TestSet
from outdo.evaluation.axes._helpers import measured

SHADOWS = 16
FALSE_ALARMS = 0.01
SURE = 1e-9


class Privacy:
    title = "privacy leak"
    summary = "how often a membership attack (by loss) tells a training example from a test example; 50 % is guessing"
    unit = "fraction"
    better = "lower"
    tolerance = 0.0

    def measure(self, contestants: Sequence[Contestant], test: TestSet) -> dict[str, Measurement]:
        known = {c.name: c for c in contestants if c.trained_on is not None and len(c.trained_on)}
        if not known or not len(test):
            return {}
        n = min(len(test), *(len(c.trained_on) for c in known.values() if c.trained_on))
        strangers = np.sort(np.random.default_rng(0).permutation(len(test))[:n])
        shadows = Shadows(test, known, strangers) if test.audit is not None else None
        return {name: self._one(c, test, strangers, shadows) for name, c in known.items()}

    def _one(self, contestant: Contestant, test: TestSet, strangers: np.ndarray, shadows: Shadows | None
             ) -> Measurement:
        seen = contestant.trained_on
        assert seen is not None
        n = len(strangers)
        inside = certainty(seen.predictions.probabilities[:n], seen.codes[:n])
        outside = certainty(contestant.predictions.probabilities[strangers], test.codes[strangers])
        detail: dict[str, Any] = {"loss": attack(inside, outside)}
        if shadows is not None:
            detail["likelihood_ratio"] = attack(*shadows.scores(inside, outside))
        return measured(ahead(inside, outside), n, detail=detail)


def certainty(probabilities: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """(N,) log odds of the truth: falls as the loss grows, and is about normal (Carlini et al. 2022)."""
    truth = np.clip(probabilities[np.arange(len(codes)), codes].astype(np.float64), SURE, 1 - SURE)
    return np.log(truth) - np.log1p(-truth)


def ahead(inside: np.ndarray, outside: np.ndarray) -> Statistic:
    """Area under the ROC curve. A member and a stranger that stand at one place are drawn together, so that a resample
    varies both; all pairs count."""
    wins = (inside[:, None] > outside[None]) + 0.5 * (inside[:, None] == outside[None])
    return lambda weights: ((weights @ wins) * weights).sum(1) / weights.sum(1) ** 2


def attack(inside: np.ndarray, outside: np.ndarray) -> dict[str, float]:
    """{"auc", "found"}: the area, and the share of members found at 1 % of false alarms."""
    bar = np.quantile(outside, 1 - FALSE_ALARMS, method="higher")
    return {"auc": float(ahead(inside, outside)(np.ones((1, len(inside))))[0]), "found": float((inside > bar).mean())}


class Shadows:
    """What models of which it is known what they saw say of the same examples; shared by all contestants."""

    def __init__(self, test: TestSet, known: dict[str, Contestant], strangers: np.ndarray) -> None:
        assert test.audit is not None
        seen: Answers = next(c.trained_on for c in known.values() if c.trained_on)
        n = len(strangers)
        features = np.concatenate([test.audit.members[:n], test.audit.strangers[strangers]]).astype(np.float32)
        codes = np.concatenate([seen.codes[:n], test.codes[strangers]])
        self.inside, self.sure = shadow_heads(features, codes)

    def scores(self, inside: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log-likelihood ratios "has seen it" to "has not" of members and of strangers."""
        target = np.concatenate([inside, outside])
        seen = np.ma.masked_array(self.sure, ~self.inside)
        unseen = np.ma.masked_array(self.sure, self.inside)
        within = np.concatenate([(seen - seen.mean(0)).compressed(), (unseen - unseen.mean(0)).compressed()]).std()
        target = (target - target.mean()) / max(float(target.std()), SURE)  # temperatures differ, the order does not
        target = target * self.sure.std() + self.sure.mean()
        high, low = np.asarray(seen.mean(0)), np.asarray(unseen.mean(0))
        ratio = ((target - low) ** 2 - (target - high) ** 2) / (2 * max(float(within), SURE) ** 2)
        return ratio[: len(inside)], ratio[len(inside) :]


def shadow_heads(features: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """((F, N) bool who was trained on what, (F, N) log odds of the truth): every example is in half of the heads."""
    import torch

    from outdo.training import probe

    n, rng = len(codes), np.random.default_rng(0)
    halves = np.argsort(rng.random((SHADOWS // 2, n)), axis=1) < n // 2
    inside = np.concatenate([halves, ~halves])
    strength = probe.fit_linear({"last": features}, codes, [(("last",), "columns")], ~inside[:1], refit=False).strength
    x, _ = probe.standardise(features, [features.shape[1]], "columns")
    axes = probe.Dense(probe.principal_axes(x)[0])
    start = torch.zeros(SHADOWS, axes.shape[1] + 1, int(codes.max()) + 1)
    heads = probe.solve(axes, torch.from_numpy(codes), torch.from_numpy(inside.astype(np.float32)), strength, start)
    logits = torch.stack([axes @ head[:-1] + head[-1] for head in heads])
    sure = [certainty(each.softmax(1).numpy(), codes) for each in logits]
    return inside, np.stack(sure)


PLUGIN = Privacy()
