"""Error bars and order, tested as statistics."""

import numpy as np
import pytest

from hessrank.analysis.statistics import (
    BLOCKS,
    Gaps,
    Replicates,
    critical_value,
    difference_errors,
    rank_intervals,
    summarize,
)


def filled(rows: np.ndarray) -> Replicates:
    """Return replicates of one sample with one column of ``rows`` a probe."""
    replicates = Replicates(len(rows), 1)
    for column in rows.T:
        replicates.add([0], column[:, None])
    return replicates


@pytest.mark.parametrize("probes", [1, 8, 32, 33, 64, 100, 1000])
def test_blocks_never_grow_and_lose_no_probe(probes: int) -> None:
    values = np.random.default_rng(probes).normal(size=(3, probes))
    replicates = filled(values)
    assert replicates.values().shape[1] <= BLOCKS
    np.testing.assert_allclose(replicates.per_sample()[:, 0], values.mean(1), rtol=1e-12)
    assert replicates.num_probes.tolist() == [probes]


def test_samples_are_the_replicates_when_there_are_several() -> None:
    replicates = Replicates(1, 3)
    for probe in ([1.0, 10.0, 100.0], [3.0, 30.0, 300.0]):
        replicates.add([0, 1, 2], np.array([probe]))
    assert replicates.values().tolist() == [[2.0, 20.0, 200.0]]


def test_two_probes_of_one_sample_are_not_two_draws_of_the_data() -> None:
    """The same two samples under a thousand probes without noise: the error stays that of two samples."""
    replicates = Replicates(1, 2)
    for _ in range(1000):
        replicates.add([0, 1], np.array([[1.0, 3.0]]))
    assert summarize(replicates.values()).sem[0] == pytest.approx(1.0)
    assert replicates.probe_share()[0] == pytest.approx(0, abs=1e-12)


def test_probe_share_tells_probe_noise_from_sample_noise() -> None:
    rng = np.random.default_rng(0)
    noisy, calm = Replicates(1, 200), Replicates(1, 200)
    samples = rng.normal(size=200)
    for _ in range(4):
        noisy.add(range(200), (samples + rng.normal(scale=20, size=200))[None])
        calm.add(range(200), (samples + rng.normal(scale=0.01, size=200))[None])
    assert noisy.probe_share()[0] > 0.8
    assert calm.probe_share()[0] < 0.01


def test_summary_against_the_textbook() -> None:
    found = summarize(np.array([[1.0, 2.0, 3.0, 6.0]]))
    assert found.mean[0] == 3
    assert found.sem[0] == pytest.approx(np.std([1, 2, 3, 6], ddof=1) / 2)
    assert found.high[0] - found.mean[0] == pytest.approx(3.182446 * found.sem[0], rel=1e-6)


def test_a_single_replicate_has_no_error_bar_unless_it_is_exact() -> None:
    one = np.array([[2.0], [5.0]])
    assert np.isnan(summarize(one).sem).all()
    assert summarize(one, deterministic=True).sem.tolist() == [0, 0]


def test_interval_coverage_is_95_percent() -> None:
    rng = np.random.default_rng(1)
    found = summarize(rng.gamma(50, size=(4000, 12)))
    inside = (found.low <= 50) & (found.high >= 50)
    assert inside.mean() == pytest.approx(0.95, abs=4 * np.sqrt(0.05 * 0.95 / 4000))


def test_skewed_replicates_get_a_lopsided_interval_that_covers_better() -> None:
    """Log-normal replicates: Student's t misses the mean from below more than twice as often as it should."""
    values = np.random.default_rng(8).lognormal(sigma=1.0, size=(4000, 32))
    found, truth, t = summarize(values), np.exp(0.5), critical_value(32)
    covered = ((found.low <= truth) & (truth <= found.high)).mean()
    by_student = (np.abs(found.mean - truth) <= t * found.sem).mean()
    assert by_student < 0.91
    assert covered > by_student + 0.02
    assert np.median((found.high - found.mean) / (found.mean - found.low)) > 1.3
    of_probes = summarize(values, of_samples=False)
    np.testing.assert_allclose(of_probes.high - of_probes.mean, t * of_probes.sem)


def test_symmetric_and_constant_replicates_keep_students_interval() -> None:
    rng = np.random.default_rng(9)
    half = rng.normal(size=(5, 16))
    symmetric = np.concatenate([half, -half], axis=1) + 100
    found = summarize(np.concatenate([symmetric, np.full((1, 32), 7.0)]))
    expected = critical_value(32) * found.sem
    np.testing.assert_allclose(found.high - found.mean, expected, rtol=1e-2, atol=1e-12)
    np.testing.assert_allclose(found.mean - found.low, expected, rtol=1e-2, atol=1e-12)


def test_paired_differences_ignore_what_layers_share() -> None:
    rng = np.random.default_rng(2)
    shared = rng.normal(scale=100, size=20)
    values = np.stack([shared + 1, shared + rng.normal(scale=1e-3, size=20)])
    assert summarize(values).sem[0] > 10
    assert difference_errors(values, values)[0, 1] < 1e-3
    assert not Gaps.between(values, np.array([0, 1])).open(tolerance=0.01).any()


def test_difference_errors_against_the_textbook() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(5, 9))
    expected = [[(a - b).std(ddof=1) / 3 for b in values] for a in values]
    np.testing.assert_allclose(difference_errors(values, values), expected, atol=1e-7)


def test_rank_intervals_hold_the_true_rank() -> None:
    """Over 300 draws with ties, every true rank of a tie lies inside at least 95 % of the time."""
    rng = np.random.default_rng(4)
    truth = np.array([5.0, 5.0, 4.0, 1.0, 1.0, 1.0])
    lowest, highest = np.array([1, 1, 3, 4, 4, 4]), np.array([2, 2, 3, 6, 6, 6])
    held = np.zeros(6)
    for _ in range(300):
        low, high = rank_intervals(truth[:, None] + rng.normal(scale=0.3, size=(6, 10)))
        held += (low <= lowest) & (high >= highest)
    assert (held / 300 >= 0.95 - 4 * np.sqrt(0.05 * 0.95 / 300)).all()


def test_rank_intervals_are_points_when_all_is_clear() -> None:
    values = np.array([[1.0], [100.0], [10.0]]) + np.random.default_rng(5).normal(scale=1e-3, size=(3, 8))
    low, high = rank_intervals(values)
    assert low.tolist() == high.tolist() == [3, 1, 2]


def test_rank_intervals_of_many_rows_agree_with_few() -> None:
    values = np.random.default_rng(6).normal(size=(700, 6)) + np.arange(700)[:, None]
    low, high = rank_intervals(values)
    means, bound = values.mean(1), critical_value(6, 699)
    errors = difference_errors(values[650:651], values)[0]
    assert low[650] == 1 + (means[650] - means < -bound * errors).sum()
    assert high[650] == 700 - (means[650] - means > bound * errors).sum()


def test_neighbors_that_are_certainly_close_are_settled() -> None:
    rng = np.random.default_rng(7)
    values = np.array([[10.0], [10.0]]) + rng.normal(scale=0.02, size=(2, 30))
    order = np.argsort(-values.mean(1))
    gaps = Gaps.between(values, order)
    assert not gaps.open(tolerance=0.1).any()
    assert gaps.open(tolerance=1e-6).any()


def test_a_single_replicate_settles_nothing() -> None:
    assert Gaps.between(np.array([[2.0], [1.0]]), np.array([0, 1])).open(tolerance=0.5).all()


def test_what_less_noise_would_settle() -> None:
    gaps = Gaps(size=np.array([1.0, 1.0]), bound=np.array([2.0, 2.0]), scale=np.array([10.0, 10.0]))
    assert gaps.open(tolerance=0.01).tolist() == [True, True]
    assert gaps.open(tolerance=0.01, noise=np.array([0.4, 0.6])).tolist() == [False, True]


def test_critical_value_is_bonferroni_corrected() -> None:
    assert critical_value(1000) == pytest.approx(1.962, abs=1e-3)
    assert critical_value(1000, 10) == pytest.approx(2.813, abs=2e-3)
