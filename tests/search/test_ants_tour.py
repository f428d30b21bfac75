"""The ant system on instances whose shortest tour is known."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outdo.errors import DataError
from outdo.search.ants_tour import (
    ant_tour,
    distances,
    nearest_neighbour_tour,
    read_tsplib,
    tour_length,
    two_opt,
    write_tsplib,
)

TSPLIB = """NAME : three
COMMENT : spaces before the colon, indented rows, no EOF
TYPE : TSP
DIMENSION : 3
EDGE_WEIGHT_TYPE : EUC_2D
NODE_COORD_SECTION
  1 0.0 0.0
  2 3.0 0
  3 0 4e0
"""


def circle(n, seed=0):
    """Shuffled cities on a circle; the shortest tour goes round."""
    angle = np.random.default_rng(seed).permutation(n) * 2 * np.pi / n
    return 1000 * np.stack([np.cos(angle), np.sin(angle)], axis=1), np.argsort(angle)


def random_distances(n, seed):
    return distances(np.random.default_rng(seed).uniform(0, 1000, (n, 2)))


@pytest.mark.parametrize("local_search", [True, False])
def test_ants_walk_round_a_circle(local_search):
    cities, around = circle(25)
    distance = distances(cities)
    tour, length = ant_tour(distance, seed=0, iterations=60, local_search=local_search)
    assert sorted(tour) == list(range(25))
    assert length == tour_length(tour, distance) == tour_length(around, distance)


@pytest.mark.parametrize("seed", range(3))
def test_ants_find_the_shortest_of_all_tours(seed):
    distance = random_distances(7, seed)
    shortest = min(tour_length(np.array([0, *rest]), distance) for rest in permutations(range(1, 7)))
    assert ant_tour(distance, seed=seed)[1] == shortest


def test_pheromone_helps():
    """Ants that learn beat as many ants that do not: with `evaporation` of nothing, every trail stays the same."""
    distance = random_distances(40, 0)
    learning = [ant_tour(distance, seed=s, iterations=60, local_search=False)[1] for s in range(3)]
    forgetting = [ant_tour(distance, seed=s, iterations=60, local_search=False, evaporation=1e-9)[1] for s in range(3)]
    assert max(learning) < min(forgetting)


def test_the_same_seed_gives_the_same_tour():
    distance = random_distances(30, 1)
    tours = [ant_tour(distance, seed=seed, iterations=3, local_search=False)[0].tolist() for seed in (5, 5, 6)]
    assert tours[0] == tours[1] != tours[2]


@settings(max_examples=25)
@given(st.integers(3, 20), st.integers(0, 1000))
def test_two_opt_ends_where_no_reversal_helps(n, seed):
    distance = random_distances(n, seed)
    start = np.random.default_rng(seed).permutation(n)
    tour = two_opt(start, distance)
    assert sorted(tour) == list(range(n))
    assert tour_length(tour, distance) <= tour_length(start, distance)
    for i in range(n):
        for j in range(i + 2, n + 1):
            turned = np.concatenate([tour[:i], tour[i:j][::-1], tour[j:]])
            assert tour_length(turned, distance) >= tour_length(tour, distance) - 1e-6


def test_nearest_neighbour_goes_to_the_nearest():
    distance = distances(np.array([[0, 0], [10, 0], [1, 0], [4, 0]], dtype=float))
    assert nearest_neighbour_tour(distance).tolist() == [0, 2, 3, 1]


def test_cities_at_one_place_do_no_harm():
    tour, length = ant_tour(distances(np.zeros((6, 2))), seed=0, iterations=2)
    assert sorted(tour) == list(range(6))
    assert length == 0


def test_distances_are_rounded_as_tsplib_does(tmp_path):
    (tmp_path / "three.tsp").write_text(TSPLIB)
    assert distances(read_tsplib(tmp_path / "three.tsp")).tolist() == [[0, 3, 4], [3, 0, 5], [4, 5, 0]]
    assert distances(np.array([[0.0, 0.0], [2.5, 0.0]]))[0, 1] == 3  # half goes up, not to the even number


def test_what_is_written_is_read_again(tmp_path):
    cities = np.random.default_rng(0).uniform(-1e3, 1e3, (12, 2))
    write_tsplib(tmp_path / "a.tsp", cities, "a")
    np.testing.assert_array_equal(read_tsplib(tmp_path / "a.tsp"), cities)


@pytest.mark.parametrize(("old", "new", "message"), [
    ("EUC_2D", "GEO", "Expected EDGE_WEIGHT_TYPE EUC_2D. Found GEO"),
    ("NODE_COORD_SECTION", "", "has no cities"),
    ("3 0 4e0", "3 0", "has a bad city"),
    ("3 0 4e0", "3 0 north", "has a bad city"),
    ("  3 0 4e0\n", "", "Expected 3 cities. Found 2"),
])
def test_a_damaged_file_is_the_users_mistake(tmp_path, old, new, message):
    (tmp_path / "bad.tsp").write_text(TSPLIB.replace(old, new))
    with pytest.raises(DataError, match=message):
        read_tsplib(tmp_path / "bad.tsp")
