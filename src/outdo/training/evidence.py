"""What training knows that helps to judge and to explain answers: those on validation and on examples that were trained
on, and the training examples most alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from outdo.contracts import Answers, Audit, Predictions, batches
from outdo.training.contestants import BANK, Study, Trained
from outdo.training.model import unit

MOST = 500  # training examples that an audit of privacy is shown, and wrong answers whose neighbours are looked up


def members(train: np.ndarray, seed: int) -> np.ndarray:
    """At most MOST of the training examples, which are given as indices."""
    return np.sort(np.random.default_rng(seed).permutation(train)[:MOST])


def held_out(study: Study, trained: Trained) -> Answers:
    """Its answers on validation, from a fit that had not seen it."""
    return Answers(Predictions(trained.model.probabilities(trained.outputs)), study.truth)


def remembered(study: Study, trained: Trained, chosen: np.ndarray) -> Answers:
    """The finished model's answers on training examples."""
    features = trained.features or study.features
    outputs = trained.model.outputs(features.encoded, chosen, features)
    return Answers(Predictions(trained.model.probabilities(outputs)), study.codes[chosen])


def audit(study: Study, chosen: np.ndarray, test: np.ndarray) -> Audit:
    return Audit(*(study.features.pooled(part, ["last"])["last"] for part in (chosen, test)))


def nearest(study: Study, wanted: np.ndarray, ids: Sequence[str], k: int = 5) -> dict[str, list[dict[str, Any]]]:
    """id -> the k examples known in training (of at most BANK) that are most alike by cosine of frozen features:
    [{"id", "label", "similarity"}], nearest first."""
    bank = np.sort(np.random.default_rng(study.seed).permutation(study.known)[:BANK])
    alike = torch.from_numpy(unit(study.features.pooled(bank, ["last"])["last"]))
    found = {}
    for part in batches(len(wanted), 256):
        queries = torch.from_numpy(unit(study.features.pooled(wanted[part], ["last"])["last"]))
        near, which = (queries @ alike.T).topk(min(k, len(bank)), 1)
        for i, values, places in zip(wanted[part], near.tolist(), which.tolist(), strict=True):
            found[ids[i]] = [{"id": ids[bank[p]], "label": study.classes[study.codes[bank[p]]], "similarity": v}
                             for p, v in zip(places, values, strict=True)]
    return found
