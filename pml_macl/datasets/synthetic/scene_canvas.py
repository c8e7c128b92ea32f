"""The canvas on which a synthetic scene is painted."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Colour = tuple[float, float, float] | Array


class SceneCanvas:
    """Holds the picture, the surface that is visible at each pixel, and the random numbers for painting.

    Positions and sizes are in units of the image side. Each scene has axes ``u`` and ``v``, which are turned by a
    random angle around the centre of the image, and a line ``v = shore`` that a coast or a runway follows. A shape is
    an array of signed distances, negative inside the shape.

    All random numbers are uniform doubles, because numpy may change the numbers of any other distribution.

    Args:
        rng: source of the random numbers.
        size: height and width in pixels.
        surfaces: names of the surfaces that :meth:`paint` may set.
    """

    def __init__(self, rng: np.random.Generator, size: int, surfaces: Sequence[str]) -> None:
        self.rng = rng
        self.size = size
        self.surface_ids = {name: number for number, name in enumerate(surfaces)}
        self.surface = np.zeros((size, size), dtype=np.uint8)
        self.pixels = np.zeros((size, size, 3))
        turn = self.uniform(0, 2 * math.pi)
        grid = (np.arange(size) + 0.5) / size - 0.5
        self.u: Array = grid * math.cos(turn) + grid[:, None] * math.sin(turn)
        self.v: Array = grid[:, None] * math.cos(turn) - grid * math.sin(turn)
        self.shore = self.uniform(-0.2, 0.15)

    def uniform(self, low: float, high: float) -> float:
        """Draw a number between ``low`` and ``high``."""
        return low + (high - low) * float(self.rng.random())

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return float(self.rng.random()) < probability

    def count(self, low: int, high: int) -> int:
        """Draw an integer from ``low`` to ``high``, both included."""
        return low + int(self.rng.random() * (high + 1 - low))

    def colour(self, *choices: Sequence[float]) -> Array:
        """Draw one of these RGB colours and change its lightness and hue a little."""
        chosen = np.asarray(choices[self.count(0, len(choices) - 1)])
        return chosen + self.uniform(-0.05, 0.05) + 0.02 * (2 * self.rng.random(3) - 1)

    def disc(self, u: float, v: float, radius: float) -> Array:
        """Compute the signed distances from a disc."""
        return np.sqrt((self.u - u) ** 2 + (self.v - v) ** 2) - radius

    def box(self, u: float, v: float, length: float, width: float, turn: float = 0.0) -> Array:
        """Compute the signed distances from a rectangle with its ``length`` along ``u``, turned by ``turn`` radians."""
        along, across = self.turned(u, v, turn)
        return np.maximum(np.abs(along) - length / 2, np.abs(across) - width / 2)

    def turned(self, u: float, v: float, turn: float) -> tuple[Array, Array]:
        """Compute the coordinates along and across an axis through (u, v), turned by ``turn`` radians."""
        cos, sin = math.cos(turn), math.sin(turn)
        return (self.u - u) * cos + (self.v - v) * sin, (self.v - v) * cos - (self.u - u) * sin

    def ripples(self, frequency: float) -> Array:
        """Draw a smooth texture in [-1, 1] with up to ``frequency`` waves per image side."""
        waves = np.zeros_like(self.u)
        for _ in range(3):
            a, b = self.uniform(-frequency, frequency), self.uniform(-frequency, frequency)
            waves += np.sin(2 * math.pi * (a * self.u + b * self.v + self.uniform(0, 1)))
        return waves / 3

    def fits(self, shape: Array, colour: Colour, over: Sequence[str]) -> bool:
        """Return whether a shape lies only on the surfaces ``over`` and its colour differs from what is below."""
        inside = shape < 0
        covered = self.surface[inside]
        allowed = np.zeros(len(self.surface_ids), dtype=bool)
        allowed[[self.surface_ids[name] for name in over]] = True
        if not covered.size or not allowed[covered].all():
            return False
        below = self.pixels[inside].sum(axis=0) / covered.size
        return bool(np.abs(below - colour).max() > 0.1)

    def paint(self, shape: Array, colour: Colour, surface: str | None = None) -> None:
        """Paint a shape with soft edges.

        Args:
            shape: (size, size) signed distances.
            colour: RGB, or (size, size, 3) for a texture.
            surface: the surface that becomes visible inside the shape; None keeps the present one.
        """
        cover = np.clip(0.5 - shape * self.size, 0, 1)[..., None]
        self.pixels += cover * (colour - self.pixels)
        if surface is not None:
            self.surface[shape < 0] = self.surface_ids[surface]

    def seen(self) -> Array:
        """Compute the share of the picture that each surface covers, in the order of the names."""
        return np.bincount(self.surface.ravel(), minlength=len(self.surface_ids)) / self.surface.size

    def photograph(self) -> NDArray[np.uint8]:
        """Return the (3, size, size) picture with random light, haze and noise."""
        light = self.uniform(0.75, 1.15) * (1 + 0.06 * (2 * self.rng.random(3) - 1))
        haze = self.uniform(0, 0.12)
        noise = self.uniform(0.02, 0.07) * (2 * self.rng.random(self.pixels.shape) - 1)
        image = np.clip(self.pixels * light * (1 - haze) + haze + noise, 0, 1)
        return np.round(255 * image).astype(np.uint8).transpose(2, 0, 1)
