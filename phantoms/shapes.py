"""Shapes as implicit functions: negative inside, and roughly the distance from the surface in mm.

Points and radii are (z, y, x), growing to superior, posterior, left. Coordinates are arrays that broadcast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Point = tuple[float, float, float]
Bounds = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
EVERYWHERE = (-np.inf, np.inf)


class Shape(Protocol):
    def bounds(self) -> Bounds:
        """Lowest and highest z, y and x of the shape."""
        ...

    def field(self, z: Array, y: Array, x: Array) -> Array:
        """Negative inside, positive outside."""
        ...


@dataclass(frozen=True)
class Ellipsoid:
    """turn: rotation in the axial plane, in radians."""

    centre: Point
    radii: Point
    turn: float = 0.0

    def bounds(self) -> Bounds:
        reach = (self.radii[0], max(self.radii[1:]), max(self.radii[1:]))
        z, y, x = ((c - r, c + r) for c, r in zip(self.centre, reach, strict=True))
        return z, y, x

    def field(self, z: Array, y: Array, x: Array) -> Array:
        dz, dy, dx = (v - np.float32(c) for v, c in zip((z, y, x), self.centre, strict=True))
        if self.turn:
            cos, sin = np.float32(np.cos(self.turn)), np.float32(np.sin(self.turn))
            dy, dx = cos * dy - sin * dx, sin * dy + cos * dx
        rz, ry, rx = (np.float32(r) for r in self.radii)
        norm: Array = np.sqrt((dz / rz) ** 2 + (dy / ry) ** 2 + (dx / rx) ** 2)
        return (norm - 1) * np.float32(min(self.radii))


@dataclass(frozen=True)
class Tube:
    """A rounded cone from `start` to `end`, with a radius at each end."""

    start: Point
    end: Point
    radii: tuple[float, float]

    def bounds(self) -> Bounds:
        reach = max(self.radii)
        z, y, x = ((min(a, b) - reach, max(a, b) + reach) for a, b in zip(self.start, self.end, strict=True))
        return z, y, x

    def field(self, z: Array, y: Array, x: Array) -> Array:
        axis = np.subtract(self.end, self.start).astype(np.float32)
        dz, dy, dx = (v - np.float32(c) for v, c in zip((z, y, x), self.start, strict=True))
        along = (dz * axis[0] + dy * axis[1] + dx * axis[2]) / max(np.float32(1e-6), axis @ axis)
        along = np.clip(along, 0, 1)
        distance = np.sqrt((dz - along * axis[0]) ** 2 + (dy - along * axis[1]) ** 2 + (dx - along * axis[2]) ** 2)
        narrowing = np.float32(self.radii[1] - self.radii[0])
        result: Array = distance - np.float32(self.radii[0]) - along * narrowing
        return result


@dataclass(frozen=True)
class Column:
    """An elliptic cylinder along z at `centre` (y, x), or, with a `period`, a row of cylinders of a `length`."""

    centre: tuple[float, float]
    radii: tuple[float, float]
    period: float = 0.0
    length: float = 0.0

    def bounds(self) -> Bounds:
        y, x = ((c - r, c + r) for c, r in zip(self.centre, self.radii, strict=True))
        return EVERYWHERE, y, x

    def field(self, z: Array, y: Array, x: Array) -> Array:
        dy = (y - np.float32(self.centre[0])) / np.float32(self.radii[0])
        dx = (x - np.float32(self.centre[1])) / np.float32(self.radii[1])
        result: Array = (np.sqrt(dy**2 + dx**2) - 1) * np.float32(min(self.radii))
        if self.period:
            period = np.float32(self.period)
            result = np.maximum(result, np.abs(z - period * np.round(z / period)) - np.float32(self.length / 2))
        return result


@dataclass(frozen=True)
class Outline:
    """A cylinder along z with a cross-section between ellipse and rectangle, for the body and its layers."""

    half: tuple[float, float]
    squareness: float = 0.35

    def bounds(self) -> Bounds:
        return EVERYWHERE, (-self.half[0], self.half[0]), (-self.half[1], self.half[1])

    def field(self, z: Array, y: Array, x: Array) -> Array:
        yy, xx = (y / np.float32(self.half[0])) ** 2, (x / np.float32(self.half[1])) ** 2
        # Beyond the corners the product would outweigh the sum and close the level sets again.
        norm = yy + xx - np.float32(self.squareness) * np.minimum(yy, 1) * np.minimum(xx, 1)
        result: Array = (np.sqrt(norm) - 1) * np.float32(self.half[0])
        return result + 0 * z


@dataclass(frozen=True)
class Ribs:
    """Pairs of ribs along an outline, which descend towards the front; the lowest are short."""

    along: Outline
    lowest: float
    pitch: float = 26.0
    drop: float = 62.0
    radii: tuple[float, float] = (5.5, 3.2)

    def bounds(self) -> Bounds:
        (_, _), (front, back), (right, left) = self.along.bounds()
        grow = self.radii[1]
        low = self.lowest - self.drop * np.pi
        return (low, np.inf), (front - grow, back + grow), (right - grow, left + grow)

    def field(self, z: Array, y: Array, x: Array) -> Array:
        angle = np.arctan2(np.abs(x), y)
        rank = (z - np.float32(self.lowest) + np.float32(self.drop) * angle) / np.float32(self.pitch)
        number = np.round(rank)
        across = (rank - number) * np.float32(self.pitch / self.radii[0])
        outward = self.along.field(z, y, x) / np.float32(self.radii[1])
        rib = (np.sqrt(across**2 + outward**2) - 1) * np.float32(self.radii[1])
        longest = np.where(number < 0, -1, np.clip(1.0 + 0.5 * number, 1.0, 2.4)).astype(np.float32)
        beyond = np.maximum(angle - longest, np.float32(0.3) - angle) * 60
        # The field must be continuous half a pitch from a rib, where `number` jumps.
        result: Array = np.maximum(rib, np.minimum(beyond, self.radii[1]))
        return result


@dataclass(frozen=True)
class Solid:
    """The union of `parts`, smoothed over `blend` mm, inside `keep` and outside `cut`."""

    parts: tuple[Shape, ...]
    keep: tuple[Shape, ...] = ()
    cut: tuple[Shape, ...] = ()
    blend: float = 12.0

    def bounds(self) -> Bounds:
        boxes = [part.bounds() for part in self.parts]
        z, y, x = ((min(b[axis][0] for b in boxes), max(b[axis][1] for b in boxes)) for axis in range(3))
        return z, y, x

    def field(self, z: Array, y: Array, x: Array) -> Array:
        result = self.parts[0].field(z, y, x)
        for part in self.parts[1:]:
            result = _smooth_minimum(result, part.field(z, y, x), np.float32(self.blend))
        for shape in self.keep:
            result = np.maximum(result, shape.field(z, y, x))
        for shape in self.cut:
            result = np.maximum(result, -shape.field(z, y, x))
        return result


def _smooth_minimum(a: Array, b: Array, blend: np.float32) -> Array:
    """Of two fields, by a polynomial where they differ by less than `blend`."""
    near = np.maximum(blend - np.abs(a - b), 0) / blend
    result: Array = np.minimum(a, b) - near**2 * blend / 4
    return result


class Waves:
    """A smooth random field with mean 0 and standard deviation 1: plane waves of random direction and phase.

    It depends on the position only, so that every slab of every grid samples the same field.
    """

    def __init__(self, rng: np.random.Generator, wavelength: float, count: int = 32) -> None:
        direction = rng.standard_normal((count, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        length = wavelength * rng.uniform(0.6, 1.6, (count, 1))
        self.numbers = 2 * np.pi * direction / length
        self.phases = rng.uniform(0, 2 * np.pi, count)

    def at(self, z: Sequence[float] | NDArray[Any], y: NDArray[Any], x: NDArray[Any]) -> Array:
        """Values on the grid of three 1-D coordinate arrays in mm, [Z, Y, X]."""
        z, y, x = np.ravel(z), np.ravel(y), np.ravel(x)
        kz, ky, kx = self.numbers.T
        plane = np.outer(z, kz)[:, None] + np.outer(y, ky)[None] + self.phases
        line = np.outer(kx, x)
        left = np.concatenate([np.cos(plane), -np.sin(plane)], axis=2).astype(np.float32)
        right = np.concatenate([np.cos(line), np.sin(line)]).astype(np.float32)
        values: Array = left.reshape(-1, left.shape[2]) @ right * np.float32(np.sqrt(2 / len(self.phases)))
        return values.reshape(len(z), len(y), len(x))
