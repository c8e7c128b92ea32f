"""The scene types: which objects appear in each, how often, and how to paint them."""

import math
from collections.abc import Callable

import numpy as np

from pml_macl.datasets.synthetic.scene_canvas import Array, SceneCanvas

GROUNDS = ("soil", "pavement")  # surfaces without a label
SMALLEST_SHARE = {  # share of the picture that an object must cover to give the image its label
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
ROOFS = (  # some look like water (blue), grass (green) or roads (grey)
    (0.66, 0.34, 0.26),
    (0.76, 0.72, 0.68),
    (0.44, 0.41, 0.40),
    (0.88, 0.87, 0.85),
    (0.32, 0.44, 0.60),
    (0.40, 0.50, 0.40),
)

# The share of each scene type, and the probability of each object in it, in the order of painting.
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
    """Draw a scene type by its share, then paint each of its objects with the object's probability."""
    levels = np.cumsum([share for share, _ in SCENE_TYPES.values()])
    chosen = int(np.searchsorted(levels, canvas.uniform(0, levels[-1]), side="right"))
    _, objects = list(SCENE_TYPES.values())[chosen]
    paint_soil(canvas)
    for name, probability in objects.items():
        if canvas.chance(probability):
            PAINTERS[name](canvas)


def paint_soil(canvas: SceneCanvas) -> None:
    """Paint bare ground (sand or earth) everywhere."""
    colour = canvas.colour((0.72, 0.62, 0.47), (0.56, 0.45, 0.35), (0.64, 0.54, 0.42))
    canvas.paint(everywhere(canvas), textured(canvas, colour, 0.08, 4), "soil")


def paint_pavement(canvas: SceneCanvas) -> None:
    """Paint concrete everywhere, nearly as grey as roads and roofs."""
    colour = canvas.colour((0.60, 0.60, 0.61), (0.70, 0.69, 0.66))
    canvas.paint(everywhere(canvas), textured(canvas, colour, 0.03, 5), "pavement")


def paint_lawn(canvas: SceneCanvas) -> None:
    """Paint grass everywhere or on one side of the image."""
    shape = everywhere(canvas)
    if canvas.chance(0.35):
        shape, _ = canvas.turned(canvas.uniform(-0.2, 0.2), canvas.uniform(-0.2, 0.2), canvas.uniform(0, 2 * math.pi))
    colour = canvas.colour((0.36, 0.56, 0.24), (0.46, 0.60, 0.28), (0.30, 0.46, 0.24))
    canvas.paint(shape, textured(canvas, colour, 0.07, 6), "grass")


def paint_patches(canvas: SceneCanvas) -> None:
    """Paint bare spots that are round like tanks and pale like roofs."""
    for _ in range(canvas.count(1, 3)):
        canvas.paint(blob(canvas, 0.4, 0.04, 0.12), canvas.colour((0.75, 0.68, 0.52), (0.60, 0.50, 0.38)), "soil")


def paint_fields(canvas: SceneCanvas) -> None:
    """Paint one to three strips of ploughed or planted rows."""
    edge = -0.75 if canvas.chance(0.6) else canvas.uniform(-0.2, 0.1)
    for _ in range(canvas.count(1, 3)):
        width = canvas.uniform(0.35, 0.8)
        shape = np.maximum(edge - canvas.v, canvas.v - edge - width)
        canvas.paint(shape, planted(canvas, canvas.u if canvas.chance(0.5) else canvas.v), "field")
        edge += width + 0.02


def paint_pivot(canvas: SceneCanvas) -> None:
    """Paint a round field, planted in circles."""
    shape = canvas.disc(canvas.uniform(-0.25, 0.25), canvas.uniform(-0.25, 0.25), canvas.uniform(0.2, 0.38))
    canvas.paint(shape, planted(canvas, shape), "field")


def paint_pond(canvas: SceneCanvas) -> None:
    """Paint a small round pond."""
    canvas.paint(blob(canvas, 0.3, 0.12, 0.25), rippled(canvas), "water")


def paint_river(canvas: SceneCanvas) -> None:
    """Paint a curved band of water with bare banks."""
    bend = canvas.uniform(0.03, 0.1) * np.sin(2 * math.pi * (canvas.uniform(0.4, 1) * canvas.u + canvas.uniform(0, 1)))
    shape = np.abs(canvas.v - bend - canvas.uniform(-0.2, 0.2)) - canvas.uniform(0.09, 0.2)
    canvas.paint(shape - 0.03, canvas.colour((0.68, 0.61, 0.47)), "soil")
    canvas.paint(shape, rippled(canvas), "water")


def paint_coast(canvas: SceneCanvas) -> None:
    """Paint water on one side of the shore, sometimes with surf as white as a ship."""
    line = canvas.shore + canvas.uniform(0, 0.04) * np.sin(2 * math.pi * (canvas.u + canvas.uniform(0, 1)))
    canvas.paint(line - canvas.v, rippled(canvas), "water")
    if canvas.chance(0.3):
        canvas.paint(np.abs(canvas.v - line - 0.02) - 0.015, canvas.colour(WHITE))


def paint_road(canvas: SceneCanvas) -> None:
    """Paint a street, often with a second one that crosses it."""
    paint_street(canvas, canvas.v - canvas.uniform(-0.25, 0.25), canvas.u)
    if canvas.chance(0.4):
        paint_bridge(canvas)


def paint_bridge(canvas: SceneCanvas) -> None:
    """Paint a street across the scene, over the river if there is one."""
    paint_street(canvas, canvas.u - canvas.uniform(-0.3, 0.3), canvas.v)


def paint_street(canvas: SceneCanvas, across: Array, along: Array) -> None:
    """Paint a grey band, often with a dashed line as white as a car."""
    width = canvas.uniform(0.16, 0.22)
    canvas.paint(np.abs(across) - width / 2, canvas.colour((0.36, 0.36, 0.38), (0.46, 0.46, 0.46)), "road")
    if canvas.chance(0.6):
        gaps = 0.1 * np.sin(2 * math.pi * (4 * along + canvas.uniform(0, 1)))
        canvas.paint(np.maximum(np.abs(across) - 0.012, gaps), canvas.colour(WHITE))


def paint_runway(canvas: SceneCanvas) -> None:
    """Paint a wide band of concrete, sometimes with a centre line."""
    across = np.abs(canvas.v - canvas.shore)
    colour = canvas.colour((0.54, 0.54, 0.56), (0.64, 0.63, 0.60))
    canvas.paint(across - canvas.uniform(0.2, 0.35), colour, "pavement")
    if canvas.chance(0.5):
        canvas.paint(across - 0.012, canvas.colour((0.85, 0.80, 0.45)))


def paint_houses(canvas: SceneCanvas) -> None:
    """Paint small ridged roofs."""
    scatter(canvas, canvas.count(2, 7), paint_house)


def paint_house(canvas: SceneCanvas, u: float, v: float) -> bool:
    """Paint one small roof with a darker side."""
    shape = canvas.box(u, v, canvas.uniform(0.17, 0.24), canvas.uniform(0.13, 0.18))
    colour = canvas.colour(*ROOFS)
    painted = paint_roof(canvas, shape, colour)
    if painted:
        canvas.paint(np.maximum(shape, canvas.v - v), 0.8 * colour)
    return painted


def paint_blocks(canvas: SceneCanvas) -> None:
    """Paint large flat roofs."""
    scatter(canvas, canvas.count(2, 5), paint_block)


def paint_block(canvas: SceneCanvas, u: float, v: float) -> bool:
    """Paint one large roof with a small dark box on it."""
    colour = canvas.colour(*ROOFS)
    painted = paint_roof(canvas, canvas.box(u, v, canvas.uniform(0.2, 0.42), canvas.uniform(0.18, 0.32)), colour)
    if painted:
        canvas.paint(canvas.box(u - 0.05, v, 0.06, 0.06), 0.7 * colour)
    return painted


def paint_roof(canvas: SceneCanvas, shape: Array, colour: Array) -> bool:
    """Paint a roof and the dark edge of its shadow if the roof fits here."""
    fits = canvas.fits(shape, colour, over=(*GROUNDS, "grass", "field"))
    if fits:
        canvas.paint(shape - 0.03, 0.6 * canvas.pixels)
        canvas.paint(shape, colour, "buildings")
    return fits


def paint_court(canvas: SceneCanvas) -> None:
    """Paint one sports court."""
    scatter(canvas, 1, paint_court_at)


def paint_court_at(canvas: SceneCanvas, u: float, v: float) -> bool:
    """Paint a coloured rectangle with white lines if it fits here."""
    colour = canvas.colour((0.25, 0.52, 0.35), (0.62, 0.28, 0.22), (0.25, 0.40, 0.62))
    u, v = 0.8 * u, 0.8 * v  # near the centre, so that the lines stay visible
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
    """Paint one to four storage tanks of one size and colour."""
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
    """Paint cars on the roads."""
    scatter(canvas, canvas.count(1, 4), lambda canvas, u, v: paint_car(canvas, u, v, "road"))


def paint_parked_cars(canvas: SceneCanvas) -> None:
    """Paint cars on a parking lot."""
    scatter(canvas, canvas.count(2, 5), lambda canvas, u, v: paint_car(canvas, u, v, "pavement"))


def paint_car(canvas: SceneCanvas, u: float, v: float, surface: str) -> bool:
    """Paint a small bright or dark rectangle if it fits here."""
    colour = canvas.colour(WHITE, (0.80, 0.15, 0.12), (0.15, 0.25, 0.60), (0.90, 0.75, 0.20), (0.10, 0.10, 0.12))
    shape = canvas.box(u, v, 0.13, 0.07, right_angle(canvas))
    fits = canvas.fits(shape, colour, over=(surface,))
    if fits:
        canvas.paint(shape, colour, "cars")
    return fits


def paint_trees(canvas: SceneCanvas) -> None:
    """Paint single trees."""
    scatter(canvas, canvas.count(2, 7), paint_tree)


def paint_forest(canvas: SceneCanvas) -> None:
    """Paint many trees whose crowns touch."""
    scatter(canvas, canvas.count(12, 30), paint_tree)


def paint_tree(canvas: SceneCanvas, u: float, v: float) -> bool:
    """Paint a round crown, brighter on its lit side, if it fits here."""
    colour = canvas.colour((0.14, 0.32, 0.14), (0.22, 0.38, 0.16), (0.30, 0.36, 0.14))
    radius = canvas.uniform(0.06, 0.11)
    shape = canvas.disc(u, v, radius)
    fits = canvas.fits(shape, 0.7 * colour, over=(*GROUNDS, "grass", "field", "trees"))
    if fits:
        canvas.paint(shape, 0.7 * colour, "trees")
        canvas.paint(canvas.disc(u - 0.02, v - 0.02, radius - 0.03), 1.3 * colour)
    return fits


def paint_dock(canvas: SceneCanvas) -> None:
    """Paint piers: narrow bars from the shore into the water."""
    colour = canvas.colour((0.72, 0.68, 0.62), (0.50, 0.42, 0.34), (0.80, 0.80, 0.78))
    first, step, length = canvas.uniform(-0.35, 0.0), canvas.uniform(0.25, 0.4), canvas.uniform(0.28, 0.5)
    for number in range(canvas.count(1, 3)):
        canvas.paint(canvas.box(first + number * step, canvas.shore + length / 2, 0.07, length), colour, "dock")
    if canvas.chance(0.4):
        canvas.paint(canvas.box(first, canvas.shore + length, 0.3, 0.07), colour, "dock")


def paint_ships(canvas: SceneCanvas) -> None:
    """Paint anchored ships, most of them parallel to the piers."""
    scatter(canvas, canvas.count(1, 5), paint_ship)


def paint_ship(canvas: SceneCanvas, u: float, v: float) -> bool:
    """Paint a hull with pointed ends and a deck if it fits here."""
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
    """Paint one or two airplanes near the runway."""
    scatter(canvas, canvas.count(1, 2), paint_airplane)


def paint_airplane(canvas: SceneCanvas, u: float, v: float) -> bool:
    """Paint a white or grey airplane with swept wings if it fits here."""
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
    """Paint an object ``number`` times, each time at the first of ten random places where it fits."""
    for _ in range(number):
        any(paint_at(canvas, canvas.uniform(-0.48, 0.48), canvas.uniform(-0.48, 0.48)) for _ in range(10))


def right_angle(canvas: SceneCanvas) -> float:
    """Draw a turn: 0 (along ``u``) or a right angle (along ``v``)."""
    return math.pi / 2 if canvas.chance(0.5) else 0.0


def planted(canvas: SceneCanvas, across: Array) -> Array:
    """Return the texture of crop rows, in colours of grass, soil or trees."""
    colour = canvas.colour((0.42, 0.56, 0.26), (0.74, 0.66, 0.36), (0.52, 0.40, 0.28), (0.28, 0.42, 0.20))
    rows = np.sin(2 * math.pi * (canvas.uniform(6, 9) * across + canvas.uniform(0, 1)))
    return colour * (1 + canvas.uniform(0.14, 0.25) * rows)[..., None]


def rippled(canvas: SceneCanvas) -> Array:
    """Return the texture of water: blue, green or nearly black."""
    colour = canvas.colour((0.16, 0.34, 0.50), (0.18, 0.38, 0.42), (0.12, 0.20, 0.30), (0.26, 0.42, 0.48))
    return textured(canvas, colour, 0.08, 3)


def textured(canvas: SceneCanvas, colour: Array, strength: float, frequency: float) -> Array:
    """Return the texture of a colour with smooth patches."""
    return colour * (1 + strength * canvas.ripples(frequency))[..., None]


def blob(canvas: SceneCanvas, reach: float, low: float, high: float) -> Array:
    """Return a roundish shape near the centre."""
    shape = canvas.disc(canvas.uniform(-reach, reach), canvas.uniform(-reach, reach), canvas.uniform(low, high))
    return shape + 0.05 * canvas.ripples(2)


def everywhere(canvas: SceneCanvas) -> Array:
    """Return the whole picture as a shape."""
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
