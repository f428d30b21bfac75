"""The 24 noiseless BBOB functions, written from their definitions: a box [-5, 5]^D, optimum value 0.

Source: Hansen, Finck, Ros and Auger, "Real-parameter black-box optimization benchmarking 2009: noiseless functions
definitions", INRIA report RR-6829. The offset f_opt is 0 here, so a value is the regret. Rotations, shifts and peaks
are drawn from numpy's generator instead of COCO's own:
values are "BBOB-like" and not comparable with COCO's archive.

    problem = Problem(15, dimension=5, instance=3);  problem(x)  # x of shape (5,)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray
NAMES = {
    1: "sphere", 2: "ellipsoid", 3: "Rastrigin", 4: "Büche-Rastrigin", 5: "linear slope", 6: "attractive sector",
    7: "step ellipsoid", 8: "Rosenbrock", 9: "Rosenbrock rotated", 10: "ellipsoid rotated", 11: "discus",
    12: "bent cigar", 13: "sharp ridge", 14: "different powers", 15: "Rastrigin rotated", 16: "Weierstrass",
    17: "Schaffers F7", 18: "Schaffers F7 ill-conditioned", 19: "Griewank-Rosenbrock", 20: "Schwefel",
    21: "Gallagher 101 peaks", 22: "Gallagher 21 peaks", 23: "Katsuura", 24: "Lunacek bi-Rastrigin",
}  # fmt: skip


class Problem:
    """One function in one dimension; the instance number draws its rotations and its optimum."""

    def __init__(self, function: int, dimension: int, instance: int) -> None:
        self.function, self.dimension = function, dimension
        rng = np.random.default_rng([function, dimension, instance])
        self.x_opt = rng.uniform(-4, 4, dimension)
        self.R, self.Q = _rotation(rng, dimension), _rotation(rng, dimension)
        self.sign = np.where(rng.random(dimension) < 0.5, -1.0, 1.0)
        self.ramp = np.arange(dimension) / max(dimension - 1, 1)  # (i - 1) / (D - 1)
        if function in (21, 22):
            self._draw_peaks(rng)
        self.evaluate: Callable[[Array], float] = getattr(self, f"f{function}")
        if function == 4:
            self.x_opt[::2] = np.abs(self.x_opt[::2])
        elif function == 5:
            self.x_opt = 5 * self.sign
        elif function == 8:
            self.x_opt *= 0.75
        elif function in (9, 19):
            self.x_opt = self.R.T @ np.full(dimension, 0.5) / self._c
        elif function == 20:
            self.x_opt = 4.2096874633 / 2 * self.sign
        elif function == 24:
            self.x_opt = 1.25 * self.sign

    def __call__(self, x: Array) -> float:
        return float(self.evaluate(np.asarray(x, dtype=float)))

    @property
    def _c(self) -> float:
        return max(1.0, np.sqrt(self.dimension) / 8)

    def _scale(self, alpha: float) -> Array:
        """The diagonal of Lambda^alpha."""
        return alpha ** (0.5 * self.ramp)

    def _asymmetric(self, x: Array, beta: float) -> Array:
        return np.where(x > 0, np.abs(x) ** (1 + beta * self.ramp * np.sqrt(np.abs(x))), x)

    def _draw_peaks(self, rng: np.random.Generator) -> None:
        n, first, box = (101, 1000.0, 5.0) if self.function == 21 else (21, 1000.0**2, 4.9)
        self.peaks = rng.uniform(-box, box, (n, self.dimension))
        self.peaks[0] = rng.uniform(-0.8 * box, 0.8 * box, self.dimension)
        self.x_opt = self.peaks[0]
        self.heights = np.concatenate([[10.0], 1.1 + 8 * np.arange(n - 1) / (n - 2)])
        alphas = np.concatenate([[first], rng.permutation(1000.0 ** (2 * np.arange(n - 1) / (n - 2)))])
        self.shapes = np.array([rng.permutation(self._scale(a)) / a**0.25 for a in alphas])

    # -- separable ----------------------------------------------------------------------------------------------

    def f1(self, x: Array) -> float:
        return np.sum((x - self.x_opt) ** 2)

    def f2(self, x: Array) -> float:
        return np.sum(10 ** (6 * self.ramp) * _oscillate(x - self.x_opt) ** 2)

    def f3(self, x: Array) -> float:
        return _rastrigin(self._scale(10) * self._asymmetric(_oscillate(x - self.x_opt), 0.2))

    def f4(self, x: Array) -> float:
        z = _oscillate(x - self.x_opt)
        odd = np.arange(self.dimension) % 2 == 0  # odd when counted from one
        return _rastrigin(z * self._scale(10) * np.where((z > 0) & odd, 10.0, 1.0)) + 100 * _penalty(x)

    def f5(self, x: Array) -> float:
        s = np.sign(self.x_opt) * 10**self.ramp
        return np.sum(5 * np.abs(s) - s * np.where(self.x_opt * x < 25, x, self.x_opt))

    # -- low or moderate conditioning ---------------------------------------------------------------------------

    def f6(self, x: Array) -> float:
        z = self.Q @ (self._scale(10) * (self.R @ (x - self.x_opt)))
        return float(_oscillate(np.array([np.sum((np.where(z * self.x_opt > 0, 100.0, 1.0) * z) ** 2)]))[0]) ** 0.9

    def f7(self, x: Array) -> float:
        zhat = self._scale(10) * (self.R @ (x - self.x_opt))
        z = self.Q @ np.where(np.abs(zhat) > 0.5, np.floor(0.5 + zhat), np.floor(0.5 + 10 * zhat) / 10)
        return 0.1 * max(abs(zhat[0]) / 1e4, float(np.sum(100**self.ramp * z**2))) + _penalty(x)

    def f8(self, x: Array) -> float:
        return np.sum(_rosenbrock(self._c * (x - self.x_opt) + 1))

    def f9(self, x: Array) -> float:
        return np.sum(_rosenbrock(self._c * (self.R @ x) + 0.5))

    # -- high conditioning, unimodal ----------------------------------------------------------------------------

    def f10(self, x: Array) -> float:
        return np.sum(10 ** (6 * self.ramp) * _oscillate(self.R @ (x - self.x_opt)) ** 2)

    def f11(self, x: Array) -> float:
        z = _oscillate(self.R @ (x - self.x_opt)) ** 2
        return 1e6 * z[0] + np.sum(z[1:])

    def f12(self, x: Array) -> float:
        z = (self.R @ self._asymmetric(self.R @ (x - self.x_opt), 0.5)) ** 2
        return z[0] + 1e6 * np.sum(z[1:])

    def f13(self, x: Array) -> float:
        z = self.Q @ (self._scale(10) * (self.R @ (x - self.x_opt)))
        return z[0] ** 2 + 100 * np.sqrt(np.sum(z[1:] ** 2))

    def f14(self, x: Array) -> float:
        return np.sqrt(np.sum(np.abs(self.R @ (x - self.x_opt)) ** (2 + 4 * self.ramp)))

    # -- multi-modal with a global structure --------------------------------------------------------------------

    def f15(self, x: Array) -> float:
        z = self._asymmetric(_oscillate(self.R @ (x - self.x_opt)), 0.2)
        return _rastrigin(self.R @ (self._scale(10) * (self.Q @ z)))

    def f16(self, x: Array) -> float:
        z = self.R @ (self._scale(0.01) * (self.Q @ _oscillate(self.R @ (x - self.x_opt))))
        k = np.arange(12)
        waves = np.sum(0.5**k * np.cos(2 * np.pi * 3.0**k * (z[:, None] + 0.5)), axis=1)
        floor = np.sum(0.5**k * np.cos(np.pi * 3.0**k))
        return 10 * (np.mean(waves) - floor) ** 3 + 10 / self.dimension * _penalty(x)

    def f17(self, x: Array, conditioning: float = 10.0) -> float:
        z = self._scale(conditioning) * (self.Q @ self._asymmetric(self.R @ (x - self.x_opt), 0.5))
        s = np.sqrt(z[:-1] ** 2 + z[1:] ** 2)
        return np.mean(np.sqrt(s) * (1 + np.sin(50 * s**0.2) ** 2)) ** 2 + 10 * _penalty(x)

    def f18(self, x: Array) -> float:
        return self.f17(x, conditioning=1000.0)

    def f19(self, x: Array) -> float:
        s = _rosenbrock(self._c * (self.R @ x) + 0.5)
        return 10 * np.mean(s / 4000 - np.cos(s)) + 10

    # -- multi-modal with a weak global structure ---------------------------------------------------------------

    def f20(self, x: Array) -> float:
        xhat, far = 2 * self.sign * x, 2 * np.abs(self.x_opt)
        zhat = xhat.copy()
        zhat[1:] += 0.25 * (xhat[:-1] - far[:-1])
        z = 100 * (self._scale(10) * (zhat - far) + far)
        return 4.189828872724339 - np.mean(z * np.sin(np.sqrt(np.abs(z)))) / 100 + 100 * _penalty(z / 100)

    def f21(self, x: Array) -> float:
        turned = (x - self.peaks) @ self.R.T
        humps = self.heights * np.exp(-np.sum(self.shapes * turned**2, axis=1) / (2 * self.dimension))
        return float(_oscillate(np.array([10 - humps.max()]))[0]) ** 2 + _penalty(x)

    f22 = f21

    def f23(self, x: Array) -> float:
        z = self.Q @ (self._scale(100) * (self.R @ (x - self.x_opt)))
        powers = 2.0 ** np.arange(1, 33)
        rough = np.sum(np.abs(powers * z[:, None] - np.round(powers * z[:, None])) / powers, axis=1)
        product = np.prod((1 + np.arange(1, self.dimension + 1) * rough) ** (10 / self.dimension**1.2))
        return 10 / self.dimension**2 * (product - 1) + _penalty(x)

    def f24(self, x: Array) -> float:
        mu0, s = 2.5, 1 - 1 / (2 * np.sqrt(self.dimension + 20) - 8.2)
        mu1 = -np.sqrt((mu0**2 - 1) / s)
        xhat = 2 * self.sign * x
        z = self.Q @ (self._scale(100) * (self.R @ (xhat - mu0)))
        basins = min(np.sum((xhat - mu0) ** 2), self.dimension + s * np.sum((xhat - mu1) ** 2))
        return basins + 10 * (self.dimension - np.sum(np.cos(2 * np.pi * z))) + 1e4 * _penalty(x)


def _rotation(rng: np.random.Generator, dimension: int) -> Array:
    """A rotation uniform over the orthogonal group (Gram-Schmidt of a Gaussian matrix)."""
    q, r = np.linalg.qr(rng.standard_normal((dimension, dimension)))
    return q * np.sign(np.diag(r))


def _oscillate(x: Array) -> Array:
    """T_osz: the smooth, local irregularity of the report's section 0.2."""
    magnitude = np.log(np.abs(x), out=np.zeros_like(x), where=x != 0)
    c1, c2 = np.where(x > 0, 10, 5.5), np.where(x > 0, 7.9, 3.1)
    return np.sign(x) * np.exp(magnitude + 0.049 * (np.sin(c1 * magnitude) + np.sin(c2 * magnitude)))


def _penalty(x: Array) -> float:
    """f_pen: the squared distance by which the box [-5, 5]^D is left."""
    return float(np.sum(np.maximum(0, np.abs(x) - 5) ** 2))


def _rastrigin(z: Array) -> float:
    return float(10 * (len(z) - np.sum(np.cos(2 * np.pi * z))) + np.sum(z**2))


def _rosenbrock(z: Array) -> Array:
    return 100 * (z[:-1] ** 2 - z[1:]) ** 2 + (z[:-1] - 1) ** 2
