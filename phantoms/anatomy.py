"""The anatomy of a phantom's abdomen.

Coordinates are those of an atlas: millimetres (z, y, x) growing to superior, posterior, left, from the middle of
the body at the height of the kidneys, in a body 330 mm wide and 230 mm deep. A `Grid` scales it to a patient.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from phantoms.shapes import Column, Ellipsoid, Outline, Point, Ribs, Shape, Solid, Tube

HALF_DEPTH, HALF_WIDTH = 115.0, 165.0
BONE, MARROW, MUSCLE, FAT, GAS, LUNG = 430.0, 190.0, 58.0, -102.0, -940.0, -840.0
VERTEBRA = 36.0


@dataclass(frozen=True)
class Fill:
    """What a part consists of.

    hu, texture: mean and standard deviation in HU; wall: thickness in mm, 0 for none; gas_above: atlas y of the
    level above which there is gas.
    """

    hu: float
    texture: float = 0.0
    wall: float = 0.0
    wall_hu: float = 0.0
    gas_above: float | None = None
    gas_bubbles: bool = False


@dataclass(frozen=True)
class Part:
    shape: Shape
    fill: Fill


@dataclass(frozen=True)
class Phase:
    """HU of enhanced blood and organs at some time after the injection of contrast medium."""

    aorta: float
    veins: float
    portal: float
    cortex: float
    medulla: float
    liver: float
    spleen: float

    @classmethod
    def at(cls, time: float, rng: np.random.Generator) -> Phase:
        """time: 0 is late arterial, 1 is portal venous to nephrographic."""
        early = np.array([300.0, 95.0, 125.0, 205.0, 105.0, 82.0, 125.0])
        late = np.array([160.0, 145.0, 170.0, 172.0, 158.0, 112.0, 122.0])
        values = (early + time * (late - early)) * rng.uniform(0.94, 1.06, 7)
        return cls(*(float(value) for value in values))


@dataclass(frozen=True)
class Anatomy:
    """parts: in the order in which they are painted; the other fields: organs of the tissue map."""

    phase: Phase
    parts: tuple[Part, ...]
    kidneys: tuple[Shape, ...]
    liver: Shape
    liver_vessels: tuple[Part, ...]


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw a patient: every measure varies a little."""
    phase = Phase.at(rng.uniform(0, 1), rng)
    fat_front, fat_side = rng.uniform(7, 24), rng.uniform(8, 26)
    muscle = Outline((HALF_DEPTH - fat_front, HALF_WIDTH - fat_side))
    wall = rng.uniform(8, 13)
    cavity = Outline((muscle.half[0] - wall, muscle.half[1] - wall - 2))
    inner = Outline((cavity.half[0] - 4, cavity.half[1] - 4))
    back = muscle.half[0] - 6.0
    kidneys, hila = _kidneys(rng)
    gallbladder = Ellipsoid(_near(rng, (-2, -48, -52), 7), (24, 13, 13))
    vena_cava = Column((20 + rng.uniform(-3, 3), -21 + rng.uniform(-3, 3)), (9, rng.uniform(9, 14)))
    spleen = _spleen(rng, inner)
    liver = _liver(rng, inner, cut=(vena_cava, gallbladder))
    parts = [
        *_layers(muscle, cavity),
        *_chest(inner, phase),
        *_back(back),
        *_bowel(rng, inner, phase.portal),
        *_stomach(rng, inner),
        Part(spleen, Fill(phase.spleen, 3.0)),
        *_pancreas(rng),
        *_vessels(rng, phase, hila, vena_cava),
        Part(gallbladder, Fill(rng.uniform(4, 18), 0.0, 1.5, 60.0)),
        *_bones(rng, cavity, wall),
    ]
    return Anatomy(phase, tuple(parts), kidneys, liver, _liver_vessels(rng, phase))


def _near(rng: np.random.Generator, point: Point, spread: float) -> Point:
    z, y, x = (float(value) for value in np.add(point, rng.uniform(-spread, spread, 3)))
    return z, y, x


def _layers(muscle: Outline, cavity: Outline) -> list[Part]:
    skin = Outline((HALF_DEPTH, HALF_WIDTH))
    under = Outline((HALF_DEPTH - 2.5, HALF_WIDTH - 2.5))
    table = Solid((Outline((HALF_DEPTH + 18, HALF_WIDTH * 1.6)),), cut=(Outline((HALF_DEPTH + 15, HALF_WIDTH * 1.6)),))
    lower_half = Ellipsoid((0, 300, 0), (1e5, 260, 400))
    return [
        Part(Solid((table,), keep=(lower_half,)), Fill(60.0)),
        Part(skin, Fill(10.0)),
        Part(under, Fill(FAT, 5.0)),
        Part(muscle, Fill(MUSCLE, 9.0)),
        Part(cavity, Fill(FAT + 4, 9.0)),
    ]


def _chest(inner: Outline, phase: Phase) -> list[Part]:
    """Lungs above the diaphragm, which is lowest at the back, and the heart between them."""
    parts = []
    for side in (-1, 1):
        diaphragm = Ellipsoid((20, -25, side * 72), (118, 104, 90))
        chest = Ellipsoid((400, 10, side * 78), (330, 98, 62))
        parts.append(Part(Solid((chest,), keep=(inner,), cut=(diaphragm,)), Fill(LUNG, 30.0)))
    parts.append(Part(Ellipsoid((185, -35, 22), (48, 46, 58)), Fill(phase.aorta * 0.8, 4.0, 9.0, 110.0)))
    return parts


def _back(back: float) -> list[Part]:
    """Muscles next to and behind the spine."""
    parts = []
    for side in (-1, 1):
        parts += [
            Part(Column((back - 19, side * 36), (20, 33)), Fill(MUSCLE, 14.0)),
            Part(Column((back - 31, side * 70), (8, 19)), Fill(MUSCLE, 10.0)),
            Part(Tube((60, 46, side * 27), (-160, 36, side * 56), (8, 24)), Fill(MUSCLE + 4, 7.0)),
        ]
    return parts


def _bones(rng: np.random.Generator, cavity: Outline, wall: float) -> list[Part]:
    bone = Fill(MARROW, 35.0, 2.2, BONE)
    size = rng.uniform(0.92, 1.08)
    ribcage = Outline((cavity.half[0] + wall / 2, cavity.half[1] + wall / 2))
    parts = [
        Part(Column((50, 0), (17 * size, 22 * size)), bone),
        Part(Column((50, 0), (17.5 * size, 23 * size), VERTEBRA, 8), Fill(88.0, 8.0)),
        Part(Column((73, 0), (15, 16), VERTEBRA, 27), bone),
        Part(Column((90, 0), (13, 3.6), VERTEBRA, 22), Fill(BONE - 60)),
        Part(Column((74, 0), (8, 10)), Fill(28.0)),
        Part(Ribs(ribcage, rng.uniform(40, 65)), bone),
    ]
    for side in (-1, 1):
        parts.append(Part(Column((70, side * 27), (4.5, 16), VERTEBRA, 12), bone))
        parts.append(Part(Ellipsoid((-165, 42, side * 96), (58, 52, 9), side * -0.5), bone))
    return parts


def _kidneys(rng: np.random.Generator) -> tuple[tuple[Shape, ...], list[Point]]:
    """Kidneys, whose sinus opens to the front and the middle, and the points where their vessels enter."""
    kidneys: list[Shape] = []
    hila = []
    for side, height in ((-1, -8.0), (1, 8.0)):
        z, y, x = _near(rng, (height, 38, side * 74), 6)
        turn = side * rng.uniform(0.45, 0.95)
        size = rng.uniform(0.9, 1.12)
        inward = np.array([-np.sin(abs(turn)), -side * np.cos(turn)])
        hilum = (z, y + 19 * inward[0], x + 19 * inward[1])
        sinus = Ellipsoid(hilum, (24 * size, rng.uniform(6, 10), rng.uniform(17, 22)), turn)
        body = Ellipsoid((z, y, x), (54 * size, 30 * size, 26 * size), turn)
        kidneys.append(Solid((body,), cut=(sinus,)))
        hila.append((z, float(y + 13 * inward[0]), float(x + 13 * inward[1])))
    return tuple(kidneys), hila


def _liver(rng: np.random.Generator, inner: Outline, cut: tuple[Shape, ...]) -> Shape:
    right = Ellipsoid(_near(rng, (52, -2, -84), 6), (92, 88, 70))
    left = Ellipsoid(_near(rng, (80, -52, -8), 8), (46, 36, rng.uniform(60, 90)))
    spine = Ellipsoid((20, 52, 0), (160, 58, 38))
    kidney_bed = Ellipsoid((-16, 66, -64), (78, 62, 40))
    return Solid((right, left), keep=(inner,), cut=(spine, kidney_bed, *cut), blend=25)


def _spleen(rng: np.random.Generator, inner: Outline) -> Shape:
    body = Ellipsoid(_near(rng, (62, 34, 112), 6), (rng.uniform(42, 60), 56, 38), -0.35)
    hollow = Ellipsoid((62, 0, 62), (80, 46, 32))
    return Solid((body,), keep=(inner,), cut=(hollow,))


def _stomach(rng: np.random.Generator, inner: Outline) -> list[Part]:
    centre = _near(rng, (72, -42, 62), 8)
    body = Ellipsoid(centre, (46, 36, 42), 0.5)
    antrum = Ellipsoid((centre[0] - 32, -56, 18), (20, 20, 42))
    shape = Solid((body, antrum), keep=(inner,))
    food = Fill(rng.uniform(15, 60), 14.0, 3.5, 75.0, gas_above=centre[1] - rng.uniform(2, 30))
    return [Part(shape, food)]


def _pancreas(rng: np.random.Generator) -> list[Part]:
    points = [(2, -8, -32), (14, -14, 0), (28, -2, 35), (40, 16, 72)]
    path = [_near(rng, (float(z), float(y), float(x)), 6) for z, y, x in points]
    fill = Fill(rng.uniform(85, 110), 20.0)
    widths = [15.0, 10.0, 11.0, 8.0]
    return [
        Part(Tube(start, end, radii), fill)
        for (start, end), radii in zip(pairwise(path), pairwise(widths), strict=True)
    ]


def _vessels(rng: np.random.Generator, phase: Phase, hila: list[Point], vena_cava: Column) -> list[Part]:
    aorta_at = (22 + rng.uniform(-3, 3), 9 + rng.uniform(-3, 3))
    radius = rng.uniform(8.5, 11.5)
    parts = [
        Part(vena_cava, Fill(phase.veins, 2.0)),
        Part(Column(aorta_at, (radius, radius)), Fill(phase.aorta, 2.0)),
        Part(Tube((30, aorta_at[0] - 10, 6), (-140, -18, 2), (4.5, 3)), Fill(phase.aorta)),
        Part(Tube((28, -6, -14), (-140, -14, -14), (6.5, 5)), Fill(phase.portal)),
        Part(Tube((28, -6, -14), (60, -20, -45), (7, 8)), Fill(phase.portal)),
        Part(Tube((30, -4, -8), (48, 26, 84), (5, 4)), Fill(phase.portal)),
    ]
    for (z, y, x), main in zip(hila, ((vena_cava.centre), aorta_at), strict=True):
        root = (z + rng.uniform(0, 12), main[0], main[1])
        parts.append(Part(Ellipsoid((z - 4, y, x), (13, 6, 7)), Fill(rng.uniform(5, 30))))
        parts.append(Part(Tube(root, (z + 2, y - 3, x), (5, 4)), Fill(phase.veins)))
        parts.append(Part(Tube((z + 8, aorta_at[0], aorta_at[1]), (z - 4, y, x), (2.6, 2)), Fill(phase.aorta)))
    return parts


def _liver_vessels(rng: np.random.Generator, phase: Phase) -> tuple[Part, ...]:
    """Portal branches from the hilum and hepatic veins from the top; each forks three times."""
    parts: list[Part] = []

    def grow(start: Point, heading: np.ndarray, length: float, radius: float, hu: float, forks: int) -> None:
        heading = heading + rng.normal(0, 0.35, 3)
        heading /= np.linalg.norm(heading)
        z, y, x = (float(value) for value in np.add(start, heading * length))
        parts.append(Part(Tube(start, (z, y, x), (radius, radius * 0.75)), Fill(hu)))
        if forks:
            for _ in range(2):
                turned = heading + rng.normal(0, 0.6, 3)
                grow((z, y, x), turned, length * 0.75, radius * 0.72, hu, forks - 1)

    for heading in ((0.1, 0.2, -1.0), (0.5, -0.8, -0.5), (0.4, -0.9, 0.5)):
        grow((60, -18, -42), np.array(heading), 38, 6.5, phase.portal, 3)
    for heading in ((-0.5, 0.1, -1.0), (-0.7, -0.7, -0.5), (-0.3, -0.8, 0.5)):
        grow((112, 16, -24), np.array(heading), 40, 6.0, phase.veins, 3)
    return tuple(parts)


def _bowel(rng: np.random.Generator, inner: Outline, veins: float) -> list[Part]:
    """Small bowel and its vessels in front; colon with stool and gas along both flanks and across the front."""
    parts = []
    contrast = rng.uniform() < 0.25
    for _ in range(40):
        root = (rng.uniform(-190, 25), rng.uniform(-55, -8), rng.uniform(-35, 35))
        parts.append(Part(Tube(root, _near(rng, root, 38), (2.4, 1.3)), Fill(veins)))
    for _ in range(90):
        start = (rng.uniform(-200, 30), rng.uniform(-85, -8), rng.uniform(-90, 90))
        end = _near(rng, start, 28)
        width = rng.uniform(7, 12)
        hu = rng.uniform(180, 320) if contrast and rng.uniform() < 0.5 else rng.uniform(8, 45)
        fill = Fill(hu, 12.0, 2.6, rng.uniform(75, 115), start[1] - 4 if rng.uniform() < 0.15 else None)
        parts.append(Part(Solid((Tube(start, end, (width, width)),), keep=(inner,)), fill))
    route = [(-170, 20, -108), (-90, 8, -112), (-35, 0, -104), (-20, -62, -70), (-30, -80, 0)]
    route += [(10, -70, 70), (35, -15, 112), (-40, 22, 114), (-110, 24, 108), (-170, 20, 90)]
    path = [_near(rng, (float(z), float(y), float(x)), 9) for z, y, x in route]
    for start, end in pairwise(path):
        width = rng.uniform(14, 22)
        stool = Fill(rng.uniform(0, 40), 45.0, 2.5, 60.0, gas_bubbles=True)
        parts.append(Part(Solid((Tube(start, end, (width, width)),), keep=(inner,)), stool))
    return parts
