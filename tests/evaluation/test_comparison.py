"""Comparisons against other libraries, against their own definitions, and where there is next to nothing to compare."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contestants import certain, contestant, guesses, opened
from outdo import plugins
from outdo.contracts import Measurement
from outdo.evaluation import comparison
from outdo.evaluation.comparison import Bootstrap, Proportions, Rounds, compare, compare_axis, detectable, holm, mcnemar

ACCURACY, LATENCY, SIZE, NLL = (plugins.load("axes", name) for name in ("accuracy", "latency", "size", "nll"))


def right_or_wrong(correct):
    correct = np.asarray(correct, bool)
    value = float(correct.mean()) if len(correct) else None
    return Measurement(value, len(correct), lambda w: w @ correct / w.sum(1), correct)


def mean(values):
    values = np.asarray(values, float)
    return Measurement(float(values.mean()), len(values), lambda w: w @ values / w.sum(1))


def times(seconds):
    return Measurement(float(np.median(seconds)), len(seconds), samples=np.asarray(seconds, float))


def flipped(n, gained, lost):
    """Two contestants on n examples, of which `gained` and `lost` differ."""
    of, against = np.ones((2, n), bool)
    against[:gained] = False
    of[gained : gained + lost] = False
    return right_or_wrong(of), right_or_wrong(against)


# ── right or wrong ───────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_that_of_statsmodels(gained, lost):
    tables = pytest.importorskip("statsmodels.stats.contingency_tables", reason="statsmodels is not installed")
    expected = tables.mcnemar([[5, gained], [lost, 7]], exact=True).pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(expected, abs=1e-9)


def test_the_design_example():
    """91.5 % to 96.1 % of 153 with nothing lost: p = 0.016."""
    c = compare_axis(ACCURACY, *flipped(153, 7, 0))
    assert (round(c.p, 3), c.n, c.verdict) == (0.016, 153, "better")
    assert c.difference == pytest.approx(7 / 153)
    assert 0 < c.low < c.difference < c.high


@given(st.integers(1, 30), st.integers(0, 12), st.integers(0, 12), st.floats(-0.9, 0.9))
def test_score_uses_the_likeliest_rates_under_the_supposed_difference(rest, gained, lost, delta):
    from scipy.optimize import minimize_scalar

    n = rest + gained + lost
    of, against = flipped(n, gained, lost)
    q_low, q_high = max(0.0, -delta), min(1.0, (1 - delta) / 2)  # of the rate of losses; that of gains is q + delta

    def surprise(q):
        rates = np.clip([q + delta, q, 1 - delta - 2 * q], 1e-300, None)
        return -(np.array([gained, lost, rest]) * np.log(rates)).sum()

    q = minimize_scalar(surprise, bounds=(q_low, q_high), method="bounded", options={"xatol": 1e-12}).x
    spread = n * (2 * q + delta * (1 - delta))
    if spread > 1e-3:
        expected = (gained - lost - n * delta) / np.sqrt(spread)
        assert Proportions(of.correct, against.correct).score(delta) == pytest.approx(expected, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize(("gain", "loss"), [(0.05, 0.05), (0.06, 0.02), (0.2, 0.1)])
def test_tango_interval_covers_exactly_enumerated(gain, loss):
    from scipy.stats import multinomial

    n, covered = 60, 0.0
    for b in range(n + 1):
        for c in range(n + 1 - b):
            chance = multinomial.pmf([b, c, n - b - c], n, [gain, loss, 1 - gain - loss])
            if chance > 1e-5:
                of, against = flipped(n, b, c)
                low, high = Proportions(of.correct, against.correct).interval(0.95)
                covered += chance * (low <= gain - loss <= high)
    assert 0.94 <= covered <= 0.965


@given(st.integers(0, 40), st.integers(0, 8), st.integers(0, 8))
def test_the_other_way_round_is_the_mirror_image(rest, gained, lost):
    of, against = flipped(rest + gained + lost + 1, gained, lost)
    there, back = compare_axis(ACCURACY, of, against, margin=0.1), compare_axis(ACCURACY, against, of, margin=0.1)
    assert there.p == pytest.approx(back.p)
    assert there.p_equivalent == pytest.approx(back.p_equivalent)
    assert (there.low, there.difference, there.high) == pytest.approx((-back.high, -back.difference, -back.low))
    assert {"better": "worse", "worse": "better"}.get(there.verdict, there.verdict) == back.verdict


@pytest.mark.parametrize("n", [1, 2, 10])
@pytest.mark.parametrize(("of", "against", "difference"), [(1, 0, 1.0), (0, 1, -1.0), (1, 1, 0.0), (0, 0, 0.0)])
def test_all_right_or_all_wrong(n, of, against, difference):
    c = compare_axis(ACCURACY, right_or_wrong(np.full(n, of)), right_or_wrong(np.full(n, against)))
    assert c.difference == difference
    assert -1 <= c.low <= c.difference <= c.high <= 1
    assert c.p == (1.0 if difference == 0 else min(1.0, 2 * 0.5**n))
    assert c.verdict == ("no difference shown" if not difference or n < 10 else "better" if of else "worse")


@pytest.mark.parametrize(("n", "rate", "least"),
                         [(153, None, 6 / 153), (153, 8 / 153, 8 / 153), (5, None, None), (0, None, None)])
def test_detectable(n, rate, least):
    assert detectable(n, rate) == least


@settings(max_examples=20)
@given(st.integers(6, 60), st.floats(0, 1))
def test_detectable_is_the_smallest_significant_difference(n, rate):
    differ = max(6, round(rate * n))
    significant = [abs(2 * gained - differ) / n for gained in range(differ + 1)
                   if mcnemar(gained, differ - gained) < 0.05]
    assert detectable(n, rate) == min(significant)


# ── statistics over examples ─────────────────────────────────────────────────────────────────────────────────────────


def test_bootstrap_of_a_mean_is_the_paired_t_test():
    from scipy.stats import ttest_rel

    rng = np.random.default_rng(0)
    a = rng.exponential(size=80)
    b = a + rng.normal(0.1, 0.5, 80)
    expected = ttest_rel(a, b)
    c = compare_axis(NLL, mean(a), mean(b))
    assert c.p == pytest.approx(expected.pvalue, rel=0.1)
    assert (c.low, c.high) == pytest.approx(tuple(expected.confidence_interval()), abs=0.005)


def test_bootstrap_spread_is_that_of_scipy():
    from scipy.stats import bootstrap

    rng = np.random.default_rng(1)
    codes = rng.integers(0, 3, 120)
    sides = [contestant(name, guesses(rng, codes, 3, 1.5)) for name in ("a", "b")]
    test = opened(codes)
    a, b = plugins.load("axes", "macro_f1").measure(sides, test).values()

    def difference(indices):
        weights = np.bincount(indices, minlength=120)[None].astype(float)
        return (a.statistic(weights) - b.statistic(weights))[0]

    theirs = bootstrap((np.arange(120),), difference, n_resamples=2_000, vectorized=False, method="percentile",
                       rng=np.random.default_rng(2)).standard_error
    assert Bootstrap(a, b, seed=0).error == pytest.approx(theirs, rel=0.08)


@settings(max_examples=40)
@given(st.integers(6, 40), st.floats(-1.5, 1.5), st.integers(0, 2**32 - 1))
def test_p_below_five_per_cent_exactly_when_the_interval_leaves_out_zero(n, shift, seed):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=n)
    c = compare_axis(NLL, mean(a), mean(a + rng.normal(shift, 1, n)))
    if n > 6 and abs(c.p - 0.05) > 1e-6:  # at 6 the floor of 2^-5 shows
        assert (c.p < 0.05) == (c.low > 0 or c.high < 0)


def test_seeded():
    rng = np.random.default_rng(3)
    a, b = mean(rng.normal(size=30)), mean(rng.normal(size=30))
    assert compare_axis(NLL, a, b, seed=5) == compare_axis(NLL, a, b, seed=5)
    assert compare_axis(NLL, a, b, seed=5).low != compare_axis(NLL, a, b, seed=6).low
    found = compare({"nll": NLL}, {"nll": {"a": a, "b": b}}, [("a", "b")], seed=5)
    assert found[0].low == compare_axis(NLL, a, b, seed=5).low


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_handful_of_examples_proves_nothing(n):
    c = compare_axis(NLL, mean(np.zeros(n)), mean(np.ones(n)))
    assert (c.difference, c.low, c.high, c.verdict) == (-1.0, None, None, "no difference shown")
    assert c.p == pytest.approx(2 * 0.5**n)


def test_a_difference_that_never_varies_is_as_sure_as_its_examples_are_many():
    c = compare_axis(NLL, mean(np.zeros(12)), mean(np.ones(12)))
    assert (c.low, c.high, c.verdict) == (-1.0, -1.0, "better")
    assert c.p == pytest.approx(0.5**11)


def test_eight_examples_that_agree_are_no_surer_than_eight_coins():
    c = compare_axis(NLL, mean(np.zeros(8)), mean(1 + np.arange(8) / 1e4))
    assert c.p == pytest.approx(0.5**7)


def test_a_share_cannot_differ_by_more_than_everything():
    rng = np.random.default_rng(0)
    axis = plugins.load("axes", "macro_f1")
    c = compare_axis(axis, mean(np.ones(9)), mean(rng.random(9) < 0.1))
    assert 0 < c.low < c.difference < c.high == 1.0


def test_memory_is_bounded_for_many_examples_and_classes():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 77, 10_000)
    side = contestant("a", certain(rng.integers(0, 77, 10_000), 77))
    f1 = plugins.load("axes", "macro_f1").measure([side], opened(codes, 77))["a"].statistic
    tracemalloc.start()
    chunk = next(comparison.resamples(10_000, 0, 2_000))
    f1(chunk)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert chunk.shape[1] == 10_000
    assert (chunk.sum(1) == 10_000).all()
    assert peak < 400e6


def test_resamples_cover_the_count_in_chunks(monkeypatch):
    monkeypatch.setattr(comparison, "CELLS", 70)
    shapes = [w.shape for w in comparison.resamples(10, 0, 25)]
    assert shapes == [(7, 10), (7, 10), (7, 10), (4, 10)]


# ── samples taken in turns, exact figures ────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.tuples(st.floats(0.5, 2), st.floats(0.5, 2)), min_size=4, max_size=30))
def test_rounds_are_wilcoxons(pairs):
    from scipy.stats import wilcoxon

    a, b = np.array(pairs).T
    ratios = np.log(a) - np.log(b)
    sizes = np.sort(np.abs(ratios))
    if sizes[0] > 0 and (np.diff(sizes) > 1e-9).all():  # scipy has no exact test with ties
        found = Rounds(a, b)
        expected = wilcoxon(ratios, method="exact")
        assert min(1.0, 2 * min(found._below(0.0), found._above(0.0))) == pytest.approx(expected.pvalue, abs=1e-9)


@given(st.integers(6, 40), st.floats(-0.3, 0.3), st.integers(0, 1000))
def test_rounds_p_and_interval_agree(rounds, shift, seed):
    rng = np.random.default_rng(seed)
    c = compare_axis(LATENCY, times(rng.lognormal(shift, 0.2, rounds)), times(rng.lognormal(0, 0.2, rounds)))
    assert c.low <= c.difference <= c.high
    if c.low > 0 or c.high < 0:
        assert c.p < 0.05


def test_few_rounds_have_no_interval_and_no_verdict():
    c = compare_axis(LATENCY, times([1.0, 1.1, 1.2]), times([2.0, 2.1, 2.2]))
    assert (c.low, c.high, c.p, c.verdict) == (None, None, 0.25, "no difference shown")


def test_a_sure_difference_within_the_tolerance_is_none():
    slow = 1 + np.arange(40) / 1000
    assert compare_axis(LATENCY, times(slow * 0.97), times(slow)).p < 1e-6
    assert compare_axis(LATENCY, times(slow * 0.97), times(slow)).verdict == "no difference shown"
    assert compare_axis(LATENCY, times(slow * 0.90), times(slow)).verdict == "better"
    assert compare_axis(LATENCY, times(slow * 1.10), times(slow)).verdict == "worse"


def test_medians_and_pairs_that_disagree_show_nothing():
    of, against = np.r_[np.full(11, 1.0), np.full(9, 9.0)], np.r_[np.full(11, 1.1), np.full(9, 1.0)]
    assert compare_axis(LATENCY, times(of), times(against)).p == 1.0


def test_the_interval_of_times_holds_the_difference_that_is_shown():
    against = np.r_[np.full(9, 1.0), np.full(11, 10.0)]
    of = np.r_[np.full(9, 0.9), np.full(2, 1.0), np.full(9, 9.0)]  # medians 1 and 10, but most ratios are 0.9
    c = compare_axis(LATENCY, times(of), times(against))
    assert c.low <= c.difference == -9.0
    assert -2.0 < c.high < 0


@pytest.mark.parametrize(("of", "against", "verdict"),
                         [(90.0, 100.0, "better"), (110.0, 100.0, "worse"), (99.5, 100.0, "no difference shown"),
                          (0.0, 0.0, "no difference shown")])
def test_exact_figures(of, against, verdict):
    c = compare_axis(SIZE, Measurement(of, 1), Measurement(against, 1))
    assert (c.difference, c.low, c.high, c.p, c.verdict) == (of - against, None, None, None, verdict)


# ── verdicts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_identical_contestants():
    rng = np.random.default_rng(0)
    for m, axis in [(right_or_wrong(rng.random(20) < 0.7), ACCURACY), (mean(rng.random(20)), NLL),
                    (times(rng.random(20)), LATENCY)]:
        c = compare_axis(axis, m, m)
        assert (c.difference, c.p, c.verdict) == (0.0, 1.0, "no difference shown")


def test_not_defined():
    nothing = Measurement(None, 0)
    c = compare_axis(ACCURACY, nothing, right_or_wrong([True]))
    assert (c.difference, c.low, c.p, c.n) == (None, None, None, 0)
    assert (c.verdict, c.method) == ("no difference shown", "not defined")


def test_lower_is_better_where_the_axis_says_so():
    rng = np.random.default_rng(0)
    losses = rng.random(50)
    assert compare_axis(NLL, mean(losses - 0.1 * rng.random(50)), mean(losses)).verdict == "better"
    assert compare_axis(NLL, mean(losses), mean(losses - 0.1 * rng.random(50))).verdict == "worse"


def test_equivalence_needs_a_margin_and_enough_examples():
    assert compare_axis(ACCURACY, *flipped(1000, 10, 10)).verdict == "no difference shown"
    assert compare_axis(ACCURACY, *flipped(1000, 10, 10), margin=0.02).verdict == "equivalent"
    assert compare_axis(ACCURACY, *flipped(100, 1, 1), margin=0.01).verdict == "no difference shown"
    assert compare_axis(ACCURACY, *flipped(1000, 60, 10), margin=0.02).verdict == "better"
    assert compare_axis(SIZE, Measurement(104.0, 1), Measurement(100.0, 1), margin=0.05).verdict == "equivalent"


@settings(max_examples=50)
@given(st.integers(30, 200), st.integers(0, 9), st.integers(0, 9), st.floats(0.01, 0.3))
def test_equivalent_exactly_when_the_90_per_cent_interval_lies_within_the_margin(n, gained, lost, margin):
    of, against = flipped(n, gained, lost)
    for evidence in (Proportions(of.correct, against.correct), Bootstrap(of, against, 0)):
        low, high = evidence.interval(0.9)
        p = evidence.p_equivalent(margin)
        if low is not None and abs(p - 0.05) > 1e-6:
            assert (p < 0.05) == (-margin < low and high < margin)


@settings(max_examples=30)
@given(st.lists(st.none() | st.floats(0, 1), max_size=12))
def test_holm_is_that_of_statsmodels(p):
    multi = pytest.importorskip("statsmodels.stats.multitest", reason="statsmodels is not installed")
    known = [x for x in p if x is not None]
    expected = list(multi.multipletests(known, method="holm")[1]) if known else []
    found = holm(p)
    assert [x is None for x in found] == [x is None for x in p]
    assert [x for x in found if x is not None] == pytest.approx(expected)


def test_verdicts_rest_on_the_corrected_p():
    sides = dict(zip(("after", "before"), flipped(153, 7, 0), strict=True))
    unclear = dict(zip(("after", "before"), flipped(153, 3, 3), strict=True))
    alone = compare({"accuracy": ACCURACY}, {"accuracy": sides}, [("after", "before")])
    assert [(c.axis, c.of, c.against, c.verdict) for c in alone] == [("accuracy", "after", "before", "better")]
    axes = dict.fromkeys("abcd", ACCURACY)
    many = compare(axes, {"a": sides, "b": unclear, "c": unclear, "d": unclear}, [("after", "before")])
    assert [c.verdict for c in many] == ["no difference shown"] * 4
    assert many[0].p == pytest.approx(4 * many[0].p_raw)


def test_pairs_that_an_axis_did_not_measure_are_left_out():
    sides = dict(zip(("after", "before"), flipped(20, 1, 0), strict=True))
    found = compare({"accuracy": ACCURACY}, {"accuracy": sides}, [("after", "before"), ("after", "rival")])
    assert [c.against for c in found] == ["before"]


def test_different_tests_are_not_compared():
    with pytest.raises(AssertionError):
        compare_axis(ACCURACY, right_or_wrong([1, 0]), right_or_wrong([1]))
    a = mean([1.0, 2.0])
    with pytest.raises(AssertionError):
        compare_axis(NLL, a, replace(a, n=3))
