"""Splits: a partition, stratified, grouped, the same for the same seed; and a test that is opened by one door."""

import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from outdo.contracts import Dataset
from outdo.data.inputs import texts
from outdo.data.splits import SealedTest, Splits, make_splits
from outdo.errors import DataError


@st.composite
def datasets(draw, grouped=False, declared=False):
    """(codes, declared, groups): 2 to 5 classes of 2 to 30 examples each, in any order."""
    counts = draw(st.lists(st.integers(2, 30), min_size=2, max_size=5))
    codes = np.repeat(np.arange(len(counts)), counts)
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    rng.shuffle(codes)
    split = rng.choice(["", "train", "test", "validation"], len(codes)) if declared else np.full(len(codes), "")
    groups = rng.integers(0, max(2, len(codes) // 3), len(codes)).astype(str) if grouped else None
    return codes, split, groups


def whole(splits, n):
    return sorted(np.concatenate([splits.train, splits.validation, splits.test]).tolist()) == list(range(n))


def counts(codes, where):
    return np.bincount(codes[where], minlength=codes.max() + 1)


@given(datasets(), st.integers(0, 5), st.sampled_from([0.05, 0.2, 0.4]))
def test_each_class_is_held_out_to_the_nearest_whole_example(data, seed, share):
    codes, split, _ = data
    splits, _ = make_splits(codes, split, seed=seed, validation=share, test=share)
    assert whole(splits, len(codes))
    left = counts(codes, np.arange(len(codes)))
    for held in (splits.test, splits.validation):
        got = counts(codes, held)
        wanted = np.where(left >= 3, np.maximum(share * left, 1), 0)
        assert (np.abs(got - wanted) <= 0.5 + 1e-9).all(), (got, wanted)
        left = left - got
    assert (left >= 1).all(), "every class can be learned"


@given(datasets(grouped=True), st.integers(0, 5))
def test_no_group_is_on_two_sides(data, seed):
    codes, split, groups = data
    splits, findings = make_splits(codes, split, groups, seed=seed)
    assert whole(splits, len(codes))
    sides = [set(groups[where]) for where in (splits.train, splits.validation, splits.test)]
    assert sum(map(len, sides)) == len(set.union(*sides))
    assert (counts(codes, splits.train) >= 1).all()
    assert not any(f.check == "group on both sides" for f in findings)


@given(datasets(grouped=True), datasets(), st.integers(0, 5), st.randoms(use_true_random=False))
def test_the_order_of_the_examples_does_not_matter(grouped, plain, seed, random):
    for codes, split, groups in (grouped, plain):
        ids = [f"photo {i}" for i in range(len(codes))]
        order = list(range(len(codes)))
        random.shuffle(order)
        first, _ = make_splits(codes, split, groups, seed=seed, ids=ids)
        again, _ = make_splits(codes, split, groups, seed=seed, ids=ids)
        other, _ = make_splits(codes[order], split[order], None if groups is None else groups[order], seed=seed,
                               ids=[ids[i] for i in order])
        assert first.names().tolist() == again.names().tolist()
        assert first.names()[order].tolist() == other.names().tolist()


@given(datasets(declared=True), st.integers(0, 5))
def test_what_is_declared_is_kept(data, seed):
    codes, split, _ = data
    assume({"test", "validation"} <= set(split))
    assume(set(codes[np.isin(split, ["", "train"])]) == set(codes))
    splits, _ = make_splits(codes, split, seed=seed)
    assert splits.test.tolist() == np.flatnonzero(split == "test").tolist()
    assert splits.validation.tolist() == np.flatnonzero(split == "validation").tolist()


def test_a_declared_test_stays_whole_and_validation_comes_out_of_train():
    codes = np.repeat([0, 1], 50)
    split = np.where(np.arange(100) % 2, "test", "train")
    splits, _ = make_splits(codes, split, seed=0)
    assert splits.test.tolist() == list(range(1, 100, 2))
    assert (len(splits.validation), len(splits.train)) == (10, 40)


def test_the_share_may_depend_on_how_many_there_are():
    asked = []
    codes = np.repeat([0, 1], 500)
    splits, _ = make_splits(codes, np.full(1000, ""), seed=0, validation=lambda n: asked.append(n) or 100 / n)
    assert asked == [800]
    assert (len(splits.test), len(splits.validation)) == (200, 100)


def test_another_seed_is_another_split_and_the_test_does_not_follow_validation():
    codes = np.repeat([0, 1], 100)
    first, second = (make_splits(codes, np.full(200, ""), seed=seed)[0] for seed in (0, 1))
    assert set(first.test) != set(second.test)
    assert 4 <= len(set(first.test) & set(second.test)) <= 16, "about a fifth of 40 by chance"


def test_large_groups_do_not_spoil_the_shares():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(200), rng.integers(1, 12, 200))
    codes = (groups % 4 + (rng.random(len(groups)) < 0.1)) % 4
    splits, _ = make_splits(codes, np.full(len(codes), ""), groups.astype(str), seed=0)
    share = counts(codes, splits.test) / counts(codes, np.arange(len(codes)))
    assert np.abs(share - 0.2).max() < 0.05, share
    sizes = np.bincount(groups)
    held = np.unique(groups[splits.test])
    assert abs(sizes[held].mean() - sizes.mean()) < 1, "neither the large nor the small groups are preferred"


@settings(max_examples=2)
@given(st.integers(0, 3))
def test_many_examples_take_no_time(seed):
    codes = np.arange(20_000) % 100
    splits, _ = make_splits(codes, np.full(20_000, ""), seed=seed)
    assert (counts(codes, splits.test) == 40).all()


# ── findings and refusals ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_class_of_one_is_named():
    with pytest.raises(DataError, match=r"class 'wasp' has only one example\. Expected at least two.*Add examples"):
        make_splits(np.array([0, 0, 0, 1]), np.full(4, ""), seed=0, classes=["ant", "wasp"])
    with pytest.raises(DataError, match="classes '0', '1' have only one"):
        make_splits(np.array([0, 1]), np.full(2, ""), seed=0)


def test_a_class_that_train_lacks_is_named():
    with pytest.raises(DataError, match="'bee' cannot be learned: no example of it is in train"):
        make_splits(np.array([0, 0, 0, 1, 1]), np.array(["train", "train", "test", "test", "test"]), seed=0,
                    classes=["ant", "bee"])


def test_a_class_of_two_stays_in_training_and_it_is_said():
    splits, findings = make_splits(np.array([0] * 20 + [1] * 2), np.full(22, ""), seed=0, classes=["ant", "bee"])
    assert {20, 21} <= set(splits.train)
    assert [(f.check, f.examples) for f in findings] == [("class missing from validation", ("bee",)),
                                                         ("class missing from test", ("bee",))]


def test_a_class_of_four_is_in_every_split():
    codes = np.array([0] * 20 + [1] * 4)
    splits, findings = make_splits(codes, np.full(24, ""), seed=0)
    assert all((counts(codes, part) > 0).all() for part in (splits.train, splits.validation, splits.test))
    assert findings == []


def test_a_declared_split_that_separates_a_group_is_said():
    split = np.array(["train", "test", "train", "train", "test", "train"])
    groups = np.array(["p", "p", "q", "r", "s", "t"])
    splits, findings = make_splits(np.array([0, 0, 0, 1, 1, 1]), split, groups, seed=0)
    said = next(f for f in findings if f.check == "group on both sides")
    assert (said.count, said.examples) == (1, ("p",))
    assert splits.test.tolist() == [1, 4]


# ── storing and sealing ──────────────────────────────────────────────────────────────────────────────────────────────


@given(datasets(), st.randoms(use_true_random=False))
def test_stored_splits_come_back_for_any_order(data, random):
    codes, split, _ = data
    ids = [f"{i}.jpg" for i in range(len(codes))]
    splits, _ = make_splits(codes, split, seed=0, ids=ids)
    stored = json.loads(json.dumps(splits.as_json(ids)))
    shuffled = ids[:]
    random.shuffle(shuffled)
    again = Splits.from_json(stored, shuffled)
    assert dict(zip(shuffled, again.names(), strict=True)) == dict(zip(ids, splits.names(), strict=True))


def test_other_examples_are_not_the_ones_that_were_split():
    ids = list("abcdef")
    splits, _ = make_splits(np.array([0, 0, 0, 1, 1, 1]), np.full(6, ""), seed=0, ids=ids)
    for others in (ids[:-1], [*ids[:-1], "x"], [*ids, "x"]):
        with pytest.raises(DataError, match="not the ones that were split"):
            Splits.from_json(splits.as_json(ids), others)


def test_the_opening_is_counted_before_anything_is_seen():
    data = Dataset("here", texts(["x", "y"]), ("a", "b"), np.array(["p", "q"]), np.array(["test", "test"]),
                   columns={"age": np.array([3, 4])})
    sealed = SealedTest(data, np.array([0, 1]), ["p", "q"])
    assert len(sealed) == 2
    counted = []
    test = sealed.open(lambda: counted.append(1))
    assert counted == [1]
    assert (test.ids, test.classes) == (("a", "b"), ("p", "q"))
    assert (test.codes.tolist(), test.columns["age"].tolist()) == ([0, 1], [3, 4])

    def full_disk():
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        sealed.open(full_disk)
