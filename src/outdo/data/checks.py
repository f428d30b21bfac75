"""What is wrong with the data, before anything is trained: found, counted, shown by example, and kept from doing harm.

Nothing leaves silently: whatever is taken out is a finding of severity "removed". The test is never thinned out, but
for files that cannot be read: copies and contradictions leave the side that learns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np

from outdo.contracts import SPLITS, Dataset, Encoded, Finding, Progress, Targets, fingerprint
from outdo.data.copies import Copies, components, find_copies
from outdo.data.encode import encode_images, encode_texts, take
from outdo.data.read import read
from outdo.data.splits import Share, Splits, make_splits
from outdo.errors import DataError

ALIKE = 16  # an image with more near copies than this is one of a kind that all look alike: no proof of copying
CHAIN = 0.05  # share of all examples above which a chain of near copies is not kept on one side
IMBALANCE = 3.0
FEW = 10  # training examples of a class
CHECK_SIZE = 64  # pixels a side that `check` decodes to: enough for hashes, and quick


@dataclass(frozen=True)
class Cleaned:
    """What is left to work with; everything in step."""

    data: Dataset  # its groups join those of the source and copies
    encoded: Encoded
    targets: Targets
    splits: Splits
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Checked:
    """What `outdo check` found."""

    data: Dataset  # as read, before anything was taken out
    findings: tuple[Finding, ...]
    summary: Mapping[str, Any]  # source, kind, n, fingerprint, splits {name: n}, classes {name: {split: n}}

    def as_json(self) -> dict[str, Any]:
        return {**self.summary, "findings": [finding.as_json() for finding in self.findings]}

    def describe(self) -> str:
        return describe(self.summary, self.findings)


def clean(data: Dataset, encoded: Encoded, targets: Callable[[Dataset], Targets], *, seed: int,
          validation: Share = 0.2, test: Share = 0.2) -> Cleaned:
    """Refused inputs, leaked copies and contradictions out; the rest split, with copies on one side.

    `targets` is the task's; raises what it raises, and DataError when nothing can be read or a class cannot be split.
    """
    keep, findings = readable(data, encoded)
    data, encoded = data.take(keep), take(encoded, keep)
    copies = find_copies(encoded)
    keep, groups, found = _without_leaks(data, copies)
    data, encoded = replace(data.take(keep), groups=groups), take(encoded, keep)
    aims = targets(data)
    splits, decided = make_splits(aims.codes, data.split, data.groups, seed=seed, validation=validation, test=test,
                                  ids=data.ids, classes=aims.classes)
    counted = _class_findings(aims, splits)
    return Cleaned(data, encoded, aims, splits, (*data.findings, *findings, *found, *decided, *counted))


def check(source: str | Path, *, input_column: str | None = None, label_column: str | None = None,
          group_column: str | None = None, cache: Path | None = None, progress: Progress | None = None) -> Checked:
    """Read and check a source as `improve` would, without a backbone. Raises DataError when it cannot be read.

    What would stop an `improve` (one class, a class of one, ...) is a finding here, so that the others are seen too.
    """
    data = read(source, input_column=input_column, label_column=label_column, group_column=group_column)
    if data.kind == "image":
        encoded, _ = encode_images(data.inputs, size=CHECK_SIZE, fit="squash", cache=cache, progress=progress)
    else:
        encoded, _ = encode_texts(data.inputs, None, progress=progress)
    try:
        findings = clean(data, encoded, label_targets, seed=0).findings
    except DataError as error:
        findings = (*data.findings, *_quiet_findings(data, encoded), Finding("cannot be trained on", 1, str(error)))
    return Checked(data, findings, _summary(data, encoded))


def bare(label: str) -> str:
    """Without what makes no other class: case, blanks, and whether an accent is a character of its own."""
    return "".join(normalize("NFKC", str(label)).casefold().split())


def label_targets(data: Dataset) -> Targets:
    """One class for each label, in alphabetical order. Raises DataError: no label, one class, or classes that differ
    only by case, blanks or Unicode form."""
    classes, codes = np.unique(data.labels, return_inverse=True)
    count = Counter(map(bare, classes))
    twins = [str(name) for name in classes if count[bare(name)] > 1]
    if "" in classes:
        raise DataError(f"{int((data.labels == '').sum())} examples have no label", fix="label or remove them")
    if twins:
        raise DataError(f"labels that differ only by case, blanks or Unicode form: {', '.join(map(repr, twins[:6]))}",
                        fix="write each class in one way")
    if len(classes) < 2:
        raise DataError("there is nothing to tell apart", expected="at least two classes", found=f"'{classes[0]}'")
    return Targets(tuple(map(str, classes)), codes.astype(np.int64))


def suspect_labels(probabilities: np.ndarray, codes: np.ndarray, ids: Iterable[str], classes: Iterable[str]) -> Finding:
    """Labels that held-out predictions contradict with confidence, most suspect first, as "id: said A, looks like B".

    `probabilities` (N, C) must come from models that did not train on the example. Confident learning (Northcutt et
    al. 2021, as in cleanlab). A count of 0 when there are none; a note when cleanlab is not installed.
    """
    ids, classes = list(ids), list(classes)
    try:
        from cleanlab.filter import find_label_issues
    except ModuleNotFoundError:
        return Finding("suspect labels", 0, "not looked for: pip install cleanlab", severity="note")
    # cleanlab wants every class among the labels
    present = np.unique(codes)
    known = probabilities[:, present] / np.maximum(probabilities[:, present].sum(1, keepdims=True), 1e-12)
    if len(present) < 2:
        return Finding("suspect labels", 0, "not looked for: one class", severity="note")
    worst = find_label_issues(np.searchsorted(present, codes), known, return_indices_ranked_by="self_confidence",
                              n_jobs=1)
    examples = tuple(f"{ids[i]}: said {classes[codes[i]]}, looks like {classes[int(probabilities[i].argmax())]}"
                     for i in worst[:10])
    return Finding("suspect labels", len(worst), "training labels that the other examples contradict: look at them",
                   examples)


# ── what leaves ──────────────────────────────────────────────────────────────────────────────────────────────────────


def readable(data: Dataset, encoded: Encoded) -> tuple[np.ndarray, list[Finding]]:
    """(indices of inputs that can be read, the others as a finding). Raises DataError when there are none."""
    problems = encoded.problems
    if not problems:
        return np.arange(len(data)), []
    reasons = Counter(reason.split(" (")[0] for reason in problems.values()).most_common(3)
    told = ", ".join(f"{count} {reason}" for reason, count in reasons)
    if len(problems) == len(data):
        first = next(iter(problems))
        raise DataError(f"none of the {len(data)} inputs can be read", found=f"{told}; the first: {data.ids[first]}: "
                        f"{problems[first]}", fix="check the files")
    examples = tuple(f"{data.ids[i]}: {problems[i]}" for i in list(problems)[:10])
    keep = np.setdiff1d(np.arange(len(data)), list(problems))
    return keep, [Finding("unreadable", len(problems), f"files that cannot be used were left out: {told}", examples,
                          "removed")]


def _without_leaks(data: Dataset, copies: Copies) -> tuple[np.ndarray, np.ndarray | None, list[Finding]]:
    """(indices to keep, the group of each that is kept, findings)."""
    near, alike = _trusted(copies)
    out = np.zeros(len(data), dtype=bool)
    findings = list(alike)
    for held, learns in (("test", ("", "train", "validation")), ("validation", ("", "train"))):
        side = np.isin(data.split, learns) & ~out
        leaked = _copies_of(data, copies.node, near, data.split == held, side)
        out[list(leaked)] = True
        findings += _leaks(data, copies.node, held, leaked)
    clash = _contradicting(data, copies.node, out)
    leaves = clash & (data.split != "test")
    findings += _clashes(data, copies.node, leaves, clash & ~leaves)
    out |= leaves
    findings += _twins(data, copies.node, near, ~out)
    keep = np.flatnonzero(~out)
    groups, chained = _joined_groups(data, copies.node, near, keep)
    return keep, groups, findings + chained


def _trusted(copies: Copies) -> tuple[np.ndarray, list[Finding]]:
    """Near copies, but for images that have so many that likeness is their nature (a fixed camera, frames, scans)."""
    count = int(copies.node.max(initial=-1)) + 1
    many = np.bincount(copies.pairs.ravel(), minlength=count) > ALIKE
    if not many.any():
        return copies.pairs, []
    crowd = int(np.isin(copies.node, np.flatnonzero(many)).sum())
    message = (f"images that each nearly match more than {ALIKE} others, as frames of one scene do, stay where they "
               "are: if several show the same thing, name what it is with --group-column")
    return copies.pairs[~many[copies.pairs].any(1)], [Finding("all look alike", crowd, message)]


def _copies_of(data: Dataset, node: np.ndarray, near: np.ndarray, held: np.ndarray, side: np.ndarray
               ) -> dict[int, int]:
    """Examples of `side` with the content of a `held` one, or nearly and with its label, and which one that is.

    A near copy with another label is no leak: it could only mislead.
    """
    holder = {int(n): i for i, n in reversed(list(enumerate(node))) if held[i]}
    found = {int(i): holder[node[i]] for i in np.flatnonzero(side & np.isin(node, list(holder)))}
    beside: dict[int, list[int]] = {}
    for a, b in np.concatenate([near, near[:, ::-1]]).tolist():
        if a in holder:
            beside.setdefault(b, []).append(a)
    for i in np.flatnonzero(side & np.isin(node, list(beside))).tolist():
        same_label = [holder[n] for n in beside[int(node[i])] if data.labels[holder[n]] == data.labels[i]]
        if i not in found and same_label:
            found[i] = same_label[0]
    return found


def _contradicting(data: Dataset, node: np.ndarray, out: np.ndarray) -> np.ndarray:
    """(N,) bool: examples still in whose content has more than one label."""
    inside = np.flatnonzero(~out & (node >= 0))
    said = np.unique(np.stack([node[inside].astype(str), data.labels[inside].astype(str)], axis=1), axis=0)
    names, labels = np.unique(said[:, 0], return_counts=True)
    clash = np.zeros(len(data), dtype=bool)
    clash[inside] = np.isin(node[inside], names[labels > 1].astype(np.int64))
    return clash


def _joined_groups(data: Dataset, node: np.ndarray, near: np.ndarray, keep: np.ndarray
                   ) -> tuple[np.ndarray | None, list[Finding]]:
    """One group for examples that are copies or share a group in the source; None when none do."""
    _, own = np.unique(node[keep], return_inverse=True)
    place = np.full(int(node.max(initial=0)) + 1, -1)
    place[node[keep]] = own
    inside = place[near][(place[near] >= 0).all(1)] if len(near) else near
    chain = components(int(own.max(initial=-1)) + 1, inside)
    size = np.bincount(chain[own], minlength=len(chain))
    long = size[chain] > max(20, CHAIN * len(keep))
    long &= np.bincount(own, minlength=len(chain)) < size[chain]  # exact copies always stay together
    findings = []
    if long.any():
        message = ("images in one chain of near copies, too many to keep on one side of a split: the test may look "
                   "better than the model is; say what belongs together with --group-column")
        ids = tuple(data.ids[keep[i]] for i in np.flatnonzero(long[own])[:10])
        findings = [Finding("chain of near copies", int(long[own].sum()), message, ids)]
    joined = np.where(long, np.arange(len(chain)), chain)[own]
    if data.groups is not None:
        _, source = np.unique(data.groups[keep], return_inverse=True)
        links = np.stack([joined, source + joined.max(initial=0) + 1], axis=1)
        joined = components(int(links.max(initial=0)) + 1, links)[joined]
    elif len(np.unique(joined)) == len(joined):
        return None, findings
    return _named_groups(data, keep, joined), findings


def _named_groups(data: Dataset, keep: np.ndarray, joined: np.ndarray) -> np.ndarray:
    """A group is called after its first example's, so that people recognise it."""
    _, first, inverse = np.unique(joined, return_index=True, return_inverse=True)
    called = [str(data.groups[keep[i]]) if data.groups is not None else data.ids[keep[i]] for i in first]
    return np.array(called)[inverse]


# ── findings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _repeats(data: Dataset, name: str, of: Mapping[int, int], message: str, severity: Any) -> list[Finding]:
    """Examples that repeat another one, told with it; none when there are none."""
    examples = tuple(f"{data.ids[i]}: as {data.ids[other]}" for i, other in sorted(of.items())[:10])
    return [Finding(name, len(of), message, examples, severity)] if of else []


def _leaks(data: Dataset, node: np.ndarray, held: str, leaked: Mapping[int, int]) -> list[Finding]:
    if not leaked:
        return []
    same = sum(node[i] == node[of] for i, of in leaked.items())
    examples = [f"{data.ids[i]}: a copy of {data.ids[of]}" for i, of in sorted(leaked.items())[:10]]
    return [Finding(f"copy of a {held} example", len(leaked), f"examples outside {held} that copy one inside it were "
                    f"left out ({same} the same, {len(leaked) - same} nearly)", tuple(examples), "removed")]


def _clashes(data: Dataset, node: np.ndarray, leaves: np.ndarray, stays: np.ndarray) -> list[Finding]:
    """The same content with several labels, shown with all of them."""
    def told(where: np.ndarray) -> tuple[str, ...]:
        contents = [np.flatnonzero((leaves | stays) & (node == n))[:4] for n in dict.fromkeys(node[where].tolist())]
        return tuple(", ".join(f"{data.ids[i]}: {data.labels[i]}" for i in same) for same in contents[:10])

    findings = []
    if leaves.any():
        findings.append(Finding("same content, different labels", int(leaves.sum()), "examples whose content also has "
                                "another label were left out of training", told(leaves), "removed"))
    if stays.any():
        findings.append(Finding("test contradicts itself", int(stays.sum()), "test examples have the same content and "
                                "different labels: no model can have all of them right", told(stays)))
    return findings


def _twins(data: Dataset, node: np.ndarray, near: np.ndarray, inside: np.ndarray) -> list[Finding]:
    """Copies that stay: no harm on one side of a split, where they will be kept."""
    findings = []
    for name in [split for split in ("", *SPLITS) if split in data.split]:
        here = np.flatnonzero(inside & (data.split == name))
        nodes, first = np.unique(node[here], return_index=True)
        holder = dict(zip(nodes.tolist(), here[first].tolist(), strict=True))
        again = {int(i): holder[node[i]] for i in np.delete(here, first)}
        close = {holder[b]: holder[a] for a, b in near[np.isin(near, nodes).all(1)].tolist()}
        note = "warning" if name == "test" else "note"
        side = f" in {name}" if name else ""
        findings += _repeats(data, f"duplicates{side}", again, "examples repeat another's content", note)
        findings += _repeats(data, f"near duplicates{side}", close, "images nearly repeat another", note)
    return findings


def _class_findings(targets: Targets, splits: Splits) -> list[Finding]:
    names, count = targets.classes, np.bincount(targets.codes[splits.train], minlength=len(targets.classes))
    findings = []
    if few := [f"{names[c]}: {count[c]}" for c in np.argsort(count, kind="stable") if count[c] < FEW]:
        findings.append(Finding("few examples", len(few), f"classes have fewer than {FEW} training examples",
                                tuple(few[:10])))
    ratio = count.max() / max(count.min(), 1)
    if ratio > IMBALANCE:
        most, least = names[int(count.argmax())], names[int(count.argmin())]
        findings.append(Finding("imbalance", len(names), f"the largest class ({most}, {count.max()}) has {ratio:.1f} "
                                f"times the training examples of the smallest ({least}, {count.min()})"))
    return findings


def _quiet_findings(data: Dataset, encoded: Encoded) -> list[Finding]:
    """What can be told of data that cannot be split."""
    try:
        keep, findings = readable(data, encoded)
    except DataError:
        return []
    return findings + _without_leaks(data.take(keep), find_copies(take(encoded, keep)))[2]


# ── for people ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _summary(data: Dataset, encoded: Encoded) -> dict[str, Any]:
    counts = Counter(zip(map(str, data.labels), map(str, data.split), strict=True))
    splits = [split for split in ("", *SPLITS) if split in data.split]
    labels = sorted(set(map(str, data.labels)))
    return {
        "source": data.source, "kind": data.kind, "n": len(data),
        "fingerprint": fingerprint(data.ids, encoded.digests, list(data.labels)),
        "splits": {split: int((data.split == split).sum()) for split in splits},
        "classes": {label: {split: counts[label, split] for split in splits} for label in labels},
    }


def describe(summary: Mapping[str, Any], findings: Iterable[Finding], classes: int = 20) -> str:
    """The summary and the findings as text: examples by split and class, then what was found, worst first."""
    splits, listed = summary["splits"], list(summary["classes"].items())
    head = [f"{summary['source']}: {summary['n']} {summary['kind']}s, {len(listed)} classes", ""]
    wide = max([len("class"), *(len(name) for name, _ in listed[:classes])])
    heads = [split or ("not said" if len(splits) > 1 else "examples") for split in splits]
    rows = [f"  {'class':{wide}}" + "".join(f"  {name:>10}" for name in heads)]
    rows += [f"  {name:{wide}}" + "".join(f"  {counts[s]:>10}" for s in splits) for name, counts in listed[:classes]]
    if len(listed) > classes:
        rows.append(f"  and {len(listed) - classes} more classes")
    rows.append(f"  {'all':{wide}}" + "".join(f"  {count:>10}" for count in splits.values()))
    rank = {"removed": 0, "warning": 1, "note": 2}
    found = [line for f in sorted(findings, key=lambda f: rank[f.severity]) for line in _finding_lines(f)]
    return "\n".join([*head, *rows, "", *(found or ["nothing found"])])


def _finding_lines(finding: Finding) -> list[str]:
    more = [f"    ... and {finding.count - 3} more"] if finding.count > 3 and len(finding.examples) >= 3 else []
    return [f"{finding.severity}: {finding.check} ({finding.count})", f"    {finding.message}",
            *(f"    - {example}" for example in finding.examples[:3]), *more]
