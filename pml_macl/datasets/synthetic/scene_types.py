"""What synthetic scenes are made of: which things stand together, how often, and how each is painted."""

import math
from collections.abc import Callable

import numpy as np

from pml_macl.datasets.synthetic.scene_canvas import Array, SceneCanvas

GROUNDS = ("soil", "pavement")  # seen, but no label
SMALLEST_SHARE = {  # of the picture, to count as seen
    "airplane": 0.025,
    "buildings": 0.015,
    "cars": 0.005,
    "court": 0.03,
    "dock": 0.012,
    "field": 0.04,
    "grass": 0.03,
    "road": 0.03,
    "ship": 0.008,
    "tank": 0.022,
    "trees": 0.01,
    "water": 0.03,
}
SURFACES = (*GROUNDS, *SMALLEST_SHARE)

WHITE = (0.92, 0.92, 0.91)
ROOFS = (  # as blue as water, as green as grass, as grey as roads
    (0.66, 0.34, 0.26),
    (0.76, 0.72, 0.68),
    (0.44, 0.41, 0.40),
    (0.88, 0.87, 0.85),
    (0.32, 0.44, 0.60),
    (0.40, 0.50, 0.40),
)

# The share of each scene type, and the probability of each thing in it, in the order of painting.
SCENE_TYPES: dict[str, tuple[float, dict[str, float]]] = {
    "residential": (
        0.27,
        {"lawn": 0.85, "pond": 0.04, "road": 0.95, "court": 0.06, "houses": 1, "cars": 0.6, "trees": 0.8},
    ),
    "park": (
        0.18,
        {"lawn": 0.9, "pond": 0.4, "road": 0.25, "court": 0.1, "patches": 0.3, "forest": 0.5, "trees": 0.95},
    ),
    "farmland": (
        0.17,
        {"lawn": 0.3, "fields": 0.85, "pivot": 0.3, "road": 0.4, "houses": 0.1, "cars": 0.1, "trees": 0.45},
    ),
    "downtown": (
        0.14,
        {"pavement": 0.9, "road": 0.9, "blocks": 1, "cars": 0.85, "parked cars": 0.4, "trees": 0.35},
    ),
    "river": (
        0.10,
        {"lawn": 0.65, "fields": 0.15, "river": 1, "bridge": 0.35, "ships": 0.08, "cars": 0.3, "trees": 0.9},
    ),
    "harbour": (
        0.05,
        {"pavement": 0.6, "coast": 1, "dock": 0.95, "ships": 0.75, "blocks": 0.3, "parked cars": 0.4},
    ),
    "beach": (0.05, {"coast": 1, "ships": 0.15, "patches": 0.3, "houses": 0.2, "trees": 0.45}),
    "industrial": (
        0.025,
        {"pavement": 0.4, "road": 0.4, "tanks": 0.95, "blocks": 0.6, "parked cars": 0.3, "trees": 0.2},
    ),
    "airport": (0.015, {"lawn": 0.8, "runway": 1, "airplanes": 1, "blocks": 0.4, "parked cars": 0.3}),
}


def paint_scene(canvas: SceneCanvas) -> None:
    """Choose a scene type by its share and paint the things that chance gives it."""
    levels = np.cumsum([share for share, _ in SCENE_TYPES.values()])
    chosen = int(np.searchsorted(levels, canvas.uniform(0, levels[-1]), side="right"))
    _, things = list(SCENE_TYPES.values())[chosen]
    paint_soil(canvas)
    for thing, probability in things.items():
        if canvas.chance(probability):
            PAINTERS[thing](canvas)


def paint_soil(canvas: SceneCanvas) -> None:
    """Bare ground everywhere: sand or earth."""
    colour = canvas.colour((0.72, 0.62, 0.47), (0.56, 0.45, 0.35), (0.64, 0.54, 0.42))
    canvas.paint(everywhere(canvas), textured(canvas, colour, 0.08, 4), "soil")


def paint_pavement(canvas: SceneCanvas) -> None:
    """Concrete everywhere: nearly the grey of roads and roofs."""
    colour = canvas.colour((0.60, 0.60, 0.61), (0.70, 0.69, 0.66))
    canvas.paint(everywhere(canvas), textured(canvas, colour, 0.03, 5), "pavement")


def paint_lawn(canvas: SceneCanvas) -> None:
    """Grass on all of the ground or on one side of it."""
    shape = everywhere(canvas)
    if canvas.chance(0.35):
        shape, _ = canvas.turned(canvas.uniform(-0.2, 0.2), canvas.uniform(-0.2, 0.2), canvas.uniform(0, 2 * math.pi))
    colour = canvas.colour((0.36, 0.56, 0.24), (0.46, 0.60, 0.28), (0.30, 0.46, 0.24))
    canvas.paint(shape, textured(canvas, colour, 0.07, 6), "grass")


def paint_patches(canvas: SceneCanvas) -> None:
    """Bare spots: round like tanks, pale like roofs."""
    for _ in range(canvas.count(1, 3)):
        canvas.paint(blob(canvas, 0.4, 0.04, 0.12), canvas.colour((0.75, 0.68, 0.52), (0.60, 0.50, 0.38)), "soil")


def paint_fields(canvas: SceneCanvas) -> None:
    """One to three strips of ploughed or planted rows."""
    edge = -0.75 if canvas.chance(0.6) else canvas.uniform(-0.2, 0.1)
    for _ in range(canvas.count(1, 3)):
        width = canvas.uniform(0.35, 0.8)
        shape = np.maximum(edge - canvas.v, canvas.v - edge - width)
        canvas.paint(shape, planted(canvas, canvas.u if canvas.chance(0.5) else canvas.v), "field")
        edge += width + 0.02


def paint_pivot(canvas: SceneCanvas) -> None:
    """A round field, planted in circles."""
    shape = canvas.disc(canvas.uniform(-0.25, 0.25), canvas.uniform(-0.25, 0.25), canvas.uniform(0.2, 0.38))
    canvas.paint(shape, planted(canvas, shape), "field")


def paint_pond(canvas: SceneCanvas) -> None:
    """A small round water."""
    canvas.paint(blob(canvas, 0.3, 0.12, 0.25), rippled(canvas), "water")


def paint_river(canvas: SceneCanvas) -> None:
    """A bent band of water with bare banks."""
    bend = canvas.uniform(0.03, 0.1) * np.sin(2 * math.pi * (canvas.uniform(0.4, 1) * canvas.u + canvas.uniform(0, 1)))
    shape = np.abs(canvas.v - bend - canvas.uniform(-0.2, 0.2)) - canvas.uniform(0.09, 0.2)
    canvas.paint(shape - 0.03, canvas.colour((0.68, 0.61, 0.47)), "soil")
    canvas.paint(shape, rippled(canvas), "water")


def paint_coast(canvas: SceneCanvas) -> None:
    """Water on one side of the shore, sometimes with surf as white as a ship."""
    line = canvas.shore + canvas.uniform(0, 0.04) * np.sin(2 * math.pi * (canvas.u + canvas.uniform(0, 1)))
    canvas.paint(line - canvas.v, rippled(canvas), "water")
    if canvas.chance(0.3):
        canvas.paint(np.abs(canvas.v - line - 0.02) - 0.015, canvas.colour(WHITE))


def paint_road(canvas: SceneCanvas) -> None:
    """A street, often with a crossing one."""
    paint_street(canvas, canvas.v - canvas.uniform(-0.25, 0.25), canvas.u)
    if canvas.chance(0.4):
        paint_bridge(canvas)


def paint_bridge(canvas: SceneCanvas) -> None:
    """A street across the scene, and across its river."""
    paint_street(canvas, canvas.u - canvas.uniform(-0.3, 0.3), canvas.v)


def paint_street(canvas: SceneCanvas, across: Array, along: Array) -> None:
    """A grey band with a dashed line as white as a car."""
    width = canvas.uniform(0.16, 0.22)
    canvas.paint(np.abs(across) - width / 2, canvas.colour((0.36, 0.36, 0.38), (0.46, 0.46, 0.46)), "road")
    if canvas.chance(0.6):
        gaps = 0.1 * np.sin(2 * math.pi * (4 * along + canvas.uniform(0, 1)))
        canvas.paint(np.maximum(np.abs(across) - 0.012, gaps), canvas.colour(WHITE))


def paint_runway(canvas: SceneCanvas) -> None:
    """A wide band of concrete."""
    across = np.abs(canvas.v - canvas.shore)
    colour = canvas.colour((0.54, 0.54, 0.56), (0.64, 0.63, 0.60))
    canvas.paint(across - canvas.uniform(0.2, 0.35), colour, "pavement")
    if canvas.chance(0.5):
        canvas.paint(across - 0.012, canvas.colour((0.85, 0.80, 0.45)))


def paint_houses(canvas: SceneCanvas) -> None:
    """Small ridged roofs."""
    scatter(canvas, canvas.count(2, 7), paint_house)


def paint_house(canvas: SceneCanvas, u: float, v: float) -> bool:
    """One small roof, its far side darker."""
    shape = canvas.box(u, v, canvas.uniform(0.17, 0.24), canvas.uniform(0.13, 0.18))
    colour = canvas.colour(*ROOFS)
    painted = paint_roof(canvas, shape, colour)
    if painted:
        canvas.paint(np.maximum(shape, canvas.v - v), 0.8 * colour)
    return painted


def paint_blocks(canvas: SceneCanvas) -> None:
    """Large flat roofs."""
    scatter(canvas, canvas.count(2, 5), paint_block)


def paint_block(canvas: SceneCanvas, u: float, v: float) -> bool:
    """One large roof with something on it."""
    colour = canvas.colour(*ROOFS)
    painted = paint_roof(canvas, canvas.box(u, v, canvas.uniform(0.2, 0.42), canvas.uniform(0.18, 0.32)), colour)
    if painted:
        canvas.paint(canvas.box(u - 0.05, v, 0.06, 0.06), 0.7 * colour)
    return painted


def paint_roof(canvas: SceneCanvas, shape: Array, colour: Array) -> bool:
    """A roof and the dark edge of its shadow."""
    fits = canvas.fits(shape, colour, over=(*GROUNDS, "grass", "field"))
    if fits:
        canvas.paint(shape - 0.03, 0.6 * canvas.pixels)
        canvas.paint(shape, colour, "buildings")
    return fits


def paint_court(canvas: SceneCanvas) -> None:
    """One sports court."""
    scatter(canvas, 1, paint_court_at)


def paint_court_at(canvas: SceneCanvas, u: float, v: float) -> bool:
    """A coloured rectangle with white lines."""
    colour = canvas.colour((0.25, 0.52, 0.35), (0.62, 0.28, 0.22), (0.25, 0.40, 0.62))
    u, v = 0.8 * u, 0.8 * v  # the lines must be seen
    turn = right_angle(canvas)
    shape = canvas.box(u, v, 0.36, 0.22, turn)
    fits = canvas.fits(shape, colour, over=("grass", "soil"))
    if fits:
        along, across = canvas.turned(u, v, turn)
        canvas.paint(shape, colour, "court")
        canvas.paint(np.abs(shape + 0.035) - 0.012, canvas.colour(WHITE))
        canvas.paint(np.maximum(np.abs(along) - 0.012, np.abs(across) - 0.075), canvas.colour(WHITE))
    return fits


def paint_tanks(canvas: SceneCanvas) -> None:
    """Some storage tanks of one colour."""
    radius = canvas.uniform(0.09, 0.15)
    colour = canvas.colour((0.88, 0.88, 0.86), (0.70, 0.70, 0.70), (0.58, 0.32, 0.24))

    def paint_tank(canvas: SceneCanvas, u: float, v: float) -> bool:
        shape = canvas.disc(u, v, radius)
        fits = canvas.fits(shape, colour, over=(*GROUNDS, "grass"))
        if fits:
            canvas.paint(shape, 0.6 * colour, "tank")
            canvas.paint(shape + 0.03, colour)
            canvas.paint(canvas.disc(u, v, 0.025), 0.7 * colour)
        return fits

    scatter(canvas, canvas.count(1, 4), paint_tank)


def paint_cars(canvas: SceneCanvas) -> None:
    """Cars on the roads."""
    scatter(canvas, canvas.count(1, 4), lambda canvas, u, v: paint_car(canvas, u, v, "road"))


def paint_parked_cars(canvas: SceneCanvas) -> None:
    """Cars on a parking lot."""
    scatter(canvas, canvas.count(2, 5), lambda canvas, u, v: paint_car(canvas, u, v, "pavement"))


def paint_car(canvas: SceneCanvas, u: float, v: float, surface: str) -> bool:
    """A small bright or dark rectangle."""
    colour = canvas.colour(WHITE, (0.80, 0.15, 0.12), (0.15, 0.25, 0.60), (0.90, 0.75, 0.20), (0.10, 0.10, 0.12))
    shape = canvas.box(u, v, 0.13, 0.07, right_angle(canvas))
    fits = canvas.fits(shape, colour, over=(surface,))
    if fits:
        canvas.paint(shape, colour, "cars")
    return fits


def paint_trees(canvas: SceneCanvas) -> None:
    """Single trees."""
    scatter(canvas, canvas.count(2, 7), paint_tree)


def paint_forest(canvas: SceneCanvas) -> None:
    """Many crowns that touch."""
    scatter(canvas, canvas.count(12, 30), paint_tree)


def paint_tree(canvas: SceneCanvas, u: float, v: float) -> bool:
    """A round crown, brighter on its lit side."""
    colour = canvas.colour((0.14, 0.32, 0.14), (0.22, 0.38, 0.16), (0.30, 0.36, 0.14))
    radius = canvas.uniform(0.06, 0.11)
    shape = canvas.disc(u, v, radius)
    fits = canvas.fits(shape, 0.7 * colour, over=(*GROUNDS, "grass", "field", "trees"))
    if fits:
        canvas.paint(shape, 0.7 * colour, "trees")
        canvas.paint(canvas.disc(u - 0.02, v - 0.02, radius - 0.03), 1.3 * colour)
    return fits


def paint_dock(canvas: SceneCanvas) -> None:
    """Piers: narrow bars from the shore into the water."""
    colour = canvas.colour((0.72, 0.68, 0.62), (0.50, 0.42, 0.34), (0.80, 0.80, 0.78))
    first, step, length = canvas.uniform(-0.35, 0.0), canvas.uniform(0.25, 0.4), canvas.uniform(0.28, 0.5)
    for number in range(canvas.count(1, 3)):
        canvas.paint(canvas.box(first + number * step, canvas.shore + length / 2, 0.07, length), colour, "dock")
    if canvas.chance(0.4):
        canvas.paint(canvas.box(first, canvas.shore + length, 0.3, 0.07), colour, "dock")


def paint_ships(canvas: SceneCanvas) -> None:
    """Ships at anchor, most of them parallel to the piers."""
    scatter(canvas, canvas.count(1, 5), paint_ship)


def paint_ship(canvas: SceneCanvas, u: float, v: float) -> bool:
    """A hull pointed at both ends, with a deck."""
    colour = canvas.colour(WHITE, (0.75, 0.76, 0.78), (0.60, 0.25, 0.22))
    length, width = canvas.uniform(0.2, 0.32), canvas.uniform(0.07, 0.1)
    turn = math.pi / 2 if canvas.chance(0.7) else canvas.uniform(0, math.pi)
    along, across = canvas.turned(u, v, turn)
    hull = np.abs(across) - width / 2 * (1 - (2 * along / length) ** 2)
    fits = canvas.fits(hull, colour, over=("water",))
    if fits:
        canvas.paint(hull, colour, "ship")
        canvas.paint(canvas.box(u, v, 0.3 * length, 0.03, turn), 0.55 * colour)
    return fits


def paint_airplanes(canvas: SceneCanvas) -> None:
    """One or two airplanes near the runway."""
    scatter(canvas, canvas.count(1, 2), paint_airplane)


def paint_airplane(canvas: SceneCanvas, u: float, v: float) -> bool:
    """Swept wings, a fuselage and a tail, white or grey."""
    colour = canvas.colour(WHITE, (0.82, 0.84, 0.87))
    size = canvas.uniform(0.85, 1.25)
    along, across = canvas.turned(0.7 * u, canvas.shore + 0.4 * v, canvas.uniform(0, 2 * math.pi))
    along, span = along / size, np.abs(across) / size
    fuselage = np.maximum(np.abs(along) - 0.2, span - 0.03)
    wings = np.maximum(np.abs(along + 0.5 * span - 0.03) - 0.04, span - 0.2)
    tail = np.maximum(np.abs(along + 0.5 * span + 0.17) - 0.025, span - 0.08)
    shape = size * np.minimum(np.minimum(fuselage, wings), tail)
    fits = canvas.fits(shape, colour, over=(*GROUNDS, "grass"))
    if fits:
        canvas.paint(shape, colour, "airplane")
    return fits


def scatter(canvas: SceneCanvas, number: int, paint_at: Callable[[SceneCanvas, float, float], bool]) -> None:
    """Paint a thing ``number`` times, each at the first of ten random places where it fits."""
    for _ in range(number):
        any(paint_at(canvas, canvas.uniform(-0.48, 0.48), canvas.uniform(-0.48, 0.48)) for _ in range(10))


def right_angle(canvas: SceneCanvas) -> float:
    """Along ``u`` or along ``v``."""
    return math.pi / 2 if canvas.chance(0.5) else 0.0


def planted(canvas: SceneCanvas, across: Array) -> Array:
    """Rows of a crop: green, yellow or brown, as grass, soil and trees are."""
    colour = canvas.colour((0.42, 0.56, 0.26), (0.74, 0.66, 0.36), (0.52, 0.40, 0.28), (0.28, 0.42, 0.20))
    rows = np.sin(2 * math.pi * (canvas.uniform(6, 9) * across + canvas.uniform(0, 1)))
    return colour * (1 + canvas.uniform(0.14, 0.25) * rows)[..., None]


def rippled(canvas: SceneCanvas) -> Array:
    """Water: blue, green or nearly black."""
    colour = canvas.colour((0.16, 0.34, 0.50), (0.18, 0.38, 0.42), (0.12, 0.20, 0.30), (0.26, 0.42, 0.48))
    return textured(canvas, colour, 0.08, 3)


def textured(canvas: SceneCanvas, colour: Array, strength: float, frequency: float) -> Array:
    """A colour with smooth patches."""
    return colour * (1 + strength * canvas.ripples(frequency))[..., None]


def blob(canvas: SceneCanvas, reach: float, low: float, high: float) -> Array:
    """A roundish shape near the centre."""
    shape = canvas.disc(canvas.uniform(-reach, reach), canvas.uniform(-reach, reach), canvas.uniform(low, high))
    return shape + 0.05 * canvas.ripples(2)


def everywhere(canvas: SceneCanvas) -> Array:
    """The whole picture as a shape."""
    return np.full_like(canvas.u, -1.0)


PAINTERS: dict[str, Callable[[SceneCanvas], None]] = {
    "lawn": paint_lawn,
    "pavement": paint_pavement,
    "patches": paint_patches,
    "fields": paint_fields,
    "pivot": paint_pivot,
    "pond": paint_pond,
    "river": paint_river,
    "coast": paint_coast,
    "road": paint_road,
    "bridge": paint_bridge,
    "runway": paint_runway,
    "houses": paint_houses,
    "blocks": paint_blocks,
    "court": paint_court,
    "tanks": paint_tanks,
    "cars": paint_cars,
    "parked cars": paint_parked_cars,
    "trees": paint_trees,
    "forest": paint_forest,
    "dock": paint_dock,
    "ships": paint_ships,
    "airplanes": paint_airplanes,
}
