"""Ants on the travelling salesman's problem: the MAX-MIN Ant System, and the simple rivals it has to beat.

Source: Stützle and Hoos, "MAX-MIN Ant System", Future Generation Computer Systems 16, 2000; the file format and the
rounding of distances: Reinelt, "TSPLIB 95". The same pheromone idea, for recipes, is in `samplers/ant_colony.py`.

    cities = read_tsplib(Path("berlin52.tsp"))
    tour, length = ant_tour(distances(cities), seed=0)

A tour is an int array of shape (n,): a permutation of 0..n-1, closed back to its first city.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outdo.errors import DataError

Tour = NDArray[np.int64]
Distances = NDArray[np.float64]  # (n, n), symmetric, zero diagonal


# -- files ------------------------------------------------------------------------------------------------------


def read_tsplib(path: Path) -> NDArray[np.float64]:
    """Coordinates (n, 2) of a TSPLIB file of type EUC_2D. Raises DataError for any other, or for a damaged file."""
    lines = [line.strip() for line in path.read_text().splitlines()]
    fields = {key.strip(): value.strip() for key, colon, value in (line.partition(":") for line in lines) if colon}
    if fields.get("EDGE_WEIGHT_TYPE") != "EUC_2D":
        found = fields.get("EDGE_WEIGHT_TYPE", "none")
        raise DataError(f"{path} is not a plane instance", expected="EDGE_WEIGHT_TYPE EUC_2D", found=found)
    if "NODE_COORD_SECTION" not in lines:
        raise DataError(f"{path} has no cities", expected="a NODE_COORD_SECTION", found="none")
    start = lines.index("NODE_COORD_SECTION") + 1
    end = lines.index("EOF") if "EOF" in lines else len(lines)
    rows = [line.split() for line in lines[start:end] if line]
    try:
        cities = np.array([[float(x), float(y)] for _, x, y in rows])
    except ValueError as error:
        raise DataError(f"{path} has a bad city", expected="lines of 'number x y'", found=str(error)) from None
    if len(cities) != int(fields.get("DIMENSION", len(cities))) or len(cities) < 3:
        raise DataError(
            f"{path} is incomplete", expected=f"{fields.get('DIMENSION', '3 or more')} cities", found=str(len(cities))
        )
    return cities


def write_tsplib(path: Path, cities: NDArray[np.float64], name: str) -> None:
    """Write coordinates (n, 2) as a TSPLIB file of type EUC_2D."""
    head = [f"NAME: {name}", "TYPE: TSP", f"DIMENSION: {len(cities)}", "EDGE_WEIGHT_TYPE: EUC_2D", "NODE_COORD_SECTION"]
    body = [f"{i} {float(x)!r} {float(y)!r}" for i, (x, y) in enumerate(cities, start=1)]
    path.write_text("\n".join([*head, *body, "EOF", ""]))


def distances(cities: NDArray[np.float64]) -> Distances:
    """TSPLIB's EUC_2D: euclidean, rounded half up to whole numbers. Shape (n, n)."""
    return np.floor(np.linalg.norm(cities[:, None] - cities[None], axis=-1) + 0.5)


def tour_length(tour: Tour, distance: Distances) -> float:
    """The length of the closed tour."""
    return float(distance[tour, np.roll(tour, -1)].sum())


# -- the simple rivals ------------------------------------------------------------------------------------------


def nearest_neighbour_tour(distance: Distances, start: int = 0) -> Tour:
    """From `start`, always on to the nearest city not visited yet."""
    left = np.ones(len(distance), dtype=bool)
    tour = [start]
    for _ in range(len(distance) - 1):
        left[tour[-1]] = False
        tour.append(int(np.argmin(np.where(left, distance[tour[-1]], np.inf))))
    return np.array(tour, dtype=np.int64)


def two_opt(tour: Tour, distance: Distances) -> Tour:
    """Reverse stretches of the tour, the most useful one first, until no reversal shortens it (Croes, 1958)."""
    tour = tour.copy()
    while True:
        along = distance[np.ix_(tour, tour)]
        edge = np.roll(along, -1, axis=1).diagonal()  # edge[i]: from position i to the next
        gain = edge[:, None] + edge[None, :] - along - np.roll(along, -1, axis=(0, 1))
        np.fill_diagonal(gain, 0)
        i, j = sorted(divmod(int(np.argmax(gain)), len(tour)))
        if gain[i, j] <= 1e-9:
            return tour
        tour[i + 1 : j + 1] = tour[i + 1 : j + 1][::-1].copy()


# -- the ants ---------------------------------------------------------------------------------------------------


def ant_tour(
    distance: Distances,
    *,
    seed: int,
    iterations: int = 50,
    ants: int = 10,
    evaporation: float = 0.2,
    beta: float = 2.0,
    neighbours: int = 20,
    local_search: bool = True,
) -> tuple[Tour, float]:
    """The best tour of `iterations` x `ants` ants, and its length.

    Each ant walks with probability proportional to pheromone x (1 / distance)^beta over the `neighbours` nearest
    cities. Only the best ant of an iteration, and from time to time the best of all, lays pheromone, which stays
    between a floor and a ceiling so that no edge is ever ruled out. `local_search` mends each ant's tour by 2-opt;
    use slower `evaporation` (0.02) and more iterations without it, as the paper does.
    """
    rng = np.random.default_rng(seed)
    n = len(distance)
    closest = np.argsort(distance + np.diag(np.full(n, np.inf)), axis=1)[:, : min(neighbours, n - 1)]
    heuristic = 1 / np.maximum(distance, 1e-9) ** beta
    best = nearest_neighbour_tour(distance, int(rng.integers(n)))
    best_length = tour_length(best, distance)
    ceiling, floor = _limits(best_length, n, evaporation)
    pheromone = np.full((n, n), ceiling)
    for iteration in range(iterations):
        tours = _walk(pheromone * heuristic, closest, ants, rng)
        if local_search:
            tours = np.array([two_opt(tour, distance) for tour in tours])
        lengths = distance[tours, np.roll(tours, -1, axis=1)].sum(axis=1)
        winner = tours[np.argmin(lengths)]
        if lengths.min() < best_length:
            best, best_length = winner, float(lengths.min())
            ceiling, floor = _limits(best_length, n, evaporation)
        layer = best if iteration % 5 == 4 else winner
        _lay(pheromone, layer, tour_length(layer, distance), evaporation)
        np.clip(pheromone, floor, ceiling, out=pheromone)
    return best, best_length


def _limits(best_length: float, n: int, evaporation: float) -> tuple[float, float]:
    """Ceiling and floor such that a converged colony still rebuilds its best tour with probability 0.05."""
    ceiling = 1 / (evaporation * max(best_length, 1e-9))
    root = 0.05 ** (1 / n)
    return ceiling, min(ceiling, ceiling * (1 - root) / (max(n / 2 - 1, 1) * root))


def _lay(pheromone: Distances, tour: Tour, length: float, evaporation: float) -> None:
    after = np.roll(tour, -1)
    pheromone *= 1 - evaporation
    pheromone[tour, after] += 1 / max(length, 1e-9)
    pheromone[after, tour] += 1 / max(length, 1e-9)


def _walk(attraction: Distances, closest: NDArray[np.int64], ants: int, rng: np.random.Generator) -> Tour:
    """All ants step together: (ants, n) tours."""
    n = len(attraction)
    row = np.arange(ants)
    left = np.ones((ants, n), dtype=bool)
    tours = np.empty((ants, n), dtype=np.int64)
    tours[:, 0] = rng.integers(n, size=ants)
    for step in range(1, n):
        here = tours[:, step - 1]
        left[row, here] = False
        near = closest[here]
        weight = attraction[here[:, None], near] * left[row[:, None], near]
        reach = weight.cumsum(axis=1)
        chosen = near[row, (reach < rng.random((ants, 1)) * reach[:, -1:]).sum(axis=1).clip(max=near.shape[1] - 1)]
        # Where the whole neighbour list is used up, the most attractive city left.
        rest = np.argmax(np.where(left, attraction[here], -1.0), axis=1)
        tours[:, step] = np.where(reach[:, -1] > 0, chosen, rest)
    return tours
