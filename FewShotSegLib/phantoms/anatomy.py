"""The synthetic patient: what the trunk is built of, painted from the outside in.

Places are body coordinates in millimetres (RAS: x grows to the patient's right, y to the front, z
upwards), so that the same seed is the same patient on every grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from .shapes import Box, Canvas, arc, ellipsoid, local, rotation, smooth_union, tube

GLAND_RIGHT, GLAND_LEFT, POUCH = 1, 2, 3
LIVER, SPLEEN, STOMACH, COLON, SMALL_BOWEL = 4, 5, 6, 7, 8
HEART, AORTA, INFERIOR_VENA_CAVA, VERTEBRAE, SPINAL_CORD = 9, 10, 11, 12, 13
AUTOCHTHON, ILIOPSOAS = 14, 15
"""Label values: what is to be found, and what surrounds it."""


def draw_patient(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Paint everything from the outside in; label values as above, (i, j, k) uint8.

    What is annotated is painted last, so that nothing but its own edge cuts it.
    """
    anatomy = _Anatomy(canvas, rng)
    anatomy.draw_couch()
    anatomy.draw_wall()
    anatomy.draw_chest()
    anatomy.draw_bones()
    anatomy.draw_large_organs()
    anatomy.draw_gut()
    return anatomy.draw_organs()


class _Anatomy:
    """One patient: what the seed chose for the whole body, and the parts that share it."""

    def __init__(self, canvas: Canvas, rng: np.random.Generator) -> None:
        self.canvas = canvas
        self.rng = rng
        self.fat_hu = rng.uniform(-112, -98)
        self.muscle_hu = rng.uniform(48, 58)
        self.blood_hu = rng.choice([rng.uniform(38, 48), rng.uniform(110, 170)])
        self.liver_hu = rng.uniform(48, 62)
        self.spleen_hu = rng.uniform(44, 54)
        self.gland_hu = rng.uniform(28, 40)
        self.pouch_hu = rng.uniform(4, 16)
        self.fat_mm = rng.uniform(8, 20)
        self.fine = canvas.waves(rng, 24, (9, 16), 1.0)
        self.coarse = canvas.waves(rng, 16, (18, 40), 1.0)
        strands = canvas.waves(rng, 20, (22, 45), 1.0), canvas.waves(rng, 20, (22, 45), 1.0)
        # Where two smooth fields are both zero runs a curve: vessels without a tree to grow.
        self.vessel = 6.0 * np.hypot(*strands)
        x, y, _ = canvas.points
        self.muscle = self._wall_distance(x, y)

    def _wall_distance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Distance to the outside of the trunk's muscles, a rounded rectangle across."""
        _, _, z = self.canvas.points
        waist = 1 - 0.05 * np.exp(-(((z + 45) / 45) ** 2))
        a, b, power = 105 * waist, 80 * waist, 2.35
        u, v = np.abs(x) / a, np.abs(y) / b
        scaled = np.maximum(u**power + v**power, 1e-6) ** (1 / power)
        slope = np.hypot(u ** (power - 1) / a, v ** (power - 1) / b) * scaled ** (1 - power)
        return (scaled - 1) / np.maximum(slope, 1e-4)

    def draw_couch(self) -> None:
        """The table: two thin shells with foam between."""
        canvas, rng = self.canvas, self.rng
        top = -96 - self.fat_mm * 0.7 - rng.uniform(0, 6)
        depth = top + 0.0007 * canvas.across**2 - canvas.height
        side = np.abs(canvas.across) - 170
        canvas.paint(np.maximum(np.abs(depth - 14) - 14, side), -915)
        canvas.paint(np.maximum(np.abs(np.abs(depth - 14) - 14) - 1.5, side), -60)

    def draw_wall(self) -> None:
        """Skin, fat, the muscles of the trunk and back, and the fat within."""
        canvas, rng = self.canvas, self.rng
        x, y, z = canvas.points
        angle = np.arctan2(x, -y)
        belly = 1 - np.cos(angle)
        thickness = self.fat_mm * (
            0.75 + 0.18 * belly + 0.25 * np.abs(np.sin(angle)) - 0.003 * (z + 20)
        )
        groove = 7 * np.exp(-((x / 11) ** 2)) * (y < 0)
        navel = 9 * np.exp(-((x / 9) ** 2) - ((z + 82) / 9) ** 2) * (y > 0)
        skin = self.muscle - thickness + groove + navel + 1.2 * self.coarse
        canvas.paint(skin, 5)
        canvas.paint(skin + 2.2, self.fat_hu + 4 * self.coarse)
        septum = np.abs(skin + 0.55 * thickness + 1.5 * self.coarse) - 0.35
        canvas.paint(np.maximum(septum, skin + 5), self.fat_hu + 45)
        marbled = self.muscle_hu + 4 * self.fine - 10 * np.clip(self.coarse - 0.8, 0, 2)
        canvas.paint(self.muscle + 0.8 * self.coarse, marbled)
        # The flat muscles of the flank lie in layers, with a film of fat between them.
        flank = np.maximum(50 - np.abs(x), z - 5)
        film = np.abs(self.muscle + 6.5 + 0.6 * self.fine) - 0.7
        canvas.paint(np.maximum(film, flank), self.fat_hu + 15)
        self.cavity = self.muscle + rng.uniform(11, 15) + 0.8 * self.fine
        midline = np.abs(x) - 1.0
        canvas.paint(np.maximum(midline, np.maximum(25 - y, z - 20)), self.fat_hu + 50)
        canvas.paint(self.cavity, self.fat_hu + 5 * self.coarse)
        self._draw_muscles_of_the_back()
        stray = np.maximum(self.vessel - 1.5, self.cavity + 3)
        canvas.paint(stray, 20)

    def _draw_muscles_of_the_back(self) -> None:
        """Two columns beside the spine, and the two loin muscles in front of it."""
        canvas = self.canvas
        x, y, z = canvas.points
        marbled = self.muscle_hu + 4 * self.fine - 16 * np.clip(self.coarse - 0.5, 0, 2)
        for side in (1, -1):
            canvas.paint(tube(x - side * 29, y + 58, 27, 18.5), self.fat_hu + 12)
            canvas.paint(
                tube(x - side * 29, y + 58.5, 25.5, 16.5) + 0.7 * self.fine,
                marbled,
                label=AUTOCHTHON,
            )
            width = np.clip(15 - 0.10 * (z + 20), 4, 22)
            across = np.hypot((x - side * (27 + 0.06 * (10 - z))) / 0.85, y + 31)
            loin = np.maximum(across - width, z - 25)
            canvas.paint(loin, self.muscle_hu + 3 * self.fine, label=ILIOPSOAS)

    def draw_chest(self) -> None:
        """Two lungs over the domes of the diaphragm, the heart between them."""
        canvas, rng = self.canvas, self.rng
        x, y, z = canvas.points
        top = rng.uniform(48, 60)
        dome = {}
        for side in (1, -1):
            lift = 6 if side > 0 else 0
            dome[side] = top + lift - ((x - side * 48) ** 2 + 0.9 * (y - 5) ** 2) * 0.0105
        self.dome = dome[-1] + (dome[1] - dome[-1]) * np.clip(0.5 + x / 30, 0, 1)
        above = self.dome - z
        chest = np.maximum(self.cavity, above)
        canvas.paint(np.maximum(self.cavity, above - 2.5), self.muscle_hu)
        canvas.paint(chest, self.fat_hu + 8 * self.coarse)
        middle = 17 + 9 * np.clip((y + 10) / 60, -0.4, 1) + 2 * self.coarse
        lung = np.maximum(chest + 1.5, middle - np.abs(x))
        dependent = -845 + 55 * np.clip((-y - 10) / 60, -0.5, 1) + 18 * self.coarse
        canvas.paint(lung, dependent)
        # Vessels thin out towards the pleura, as they do in a lung.
        calibre = np.clip(-lung / 22, 0, 1) * 2.0
        canvas.paint(np.maximum(self.vessel - 0.4 - calibre, lung + 4), 10)
        heart = np.array([-18, 22, 92]) + rng.normal(0, 3, 3)
        turn = rotation(np.radians([0, 35, 25]))
        box = canvas.box(heart, 62)
        distance = ellipsoid(local(canvas.points, box, heart, turn), [56, 40, 43])
        canvas.paint(distance - 3, self.fat_hu, box)
        canvas.paint(distance, self.blood_hu * 0.9 + 5, box, HEART)
        canvas.paint(distance + 9, self.blood_hu, box, HEART)

    def draw_bones(self) -> None:
        """The column with its canal and processes, ribs, breastbone, and the great vessels."""
        canvas, rng = self.canvas, self.rng
        x, y, z = canvas.points
        pitch = rng.uniform(31, 35)
        curve = 5 * np.sin((z + 30) / 55)
        back = y - curve
        phase = (z + rng.uniform(0, pitch)) / pitch
        level = (phase - np.floor(phase) - 0.5) * pitch
        waisted = 1.8 * (1 - (2 * level / pitch) ** 2)
        body = tube(x, back + 34, 22.5, 17) + waisted
        canvas.paint(body, 75)
        vertebra = np.maximum(body, np.abs(level) - pitch / 2 + 3.6)
        canvas.paint(vertebra, 420, label=VERTEBRAE)
        canvas.paint(vertebra + 2.2, 190 + 22 * self.fine, label=VERTEBRAE)
        arch_level = np.abs(level + 4) - 9.5
        arch = np.abs(tube(x, back + 57, 13, 11)) - 3
        spinous = np.maximum(np.abs(x) - 2.8 - 0.12 * (-back - 72), np.abs(back + 76) - 10)
        transverse = np.maximum(np.abs(np.abs(x) - 22) - 15, np.abs(back + 56) - 3.8)
        parts = np.minimum(
            np.maximum(arch, arch_level),
            np.minimum(
                np.maximum(spinous, np.abs(level + 10) - 9),
                np.maximum(transverse, np.abs(level + 2) - 5.5),
            ),
        )
        canvas.paint(parts, 380, label=VERTEBRAE)
        canvas.paint(parts + 2.4, 240, label=VERTEBRAE)
        canal = tube(x, back + 56.5, 9.5, 8)
        canvas.paint(canal, self.fat_hu + 70)
        canvas.paint(canal + 2.6, 38, label=SPINAL_CORD)
        self._draw_ribs(rng)
        plate = np.array([0, 75, 118])
        box = canvas.box(plate, 62)
        sternum = ellipsoid(local(canvas.points, box, plate), [17, 6.5, 60])
        canvas.paint(sternum, 330, box)
        canvas.paint(sternum + 2.2, 140, box)
        vessels = ((AORTA, -9, -8, 10.5, 10.5), (INFERIOR_VENA_CAVA, 13, -4, 12.5, 9))
        for label, centre_x, centre_y, a, b in vessels:
            vessel = tube(x - centre_x + 0.02 * z, back - centre_y, a, b)
            canvas.paint(vessel, self.blood_hu, label=label)

    def _draw_ribs(self, rng: np.random.Generator) -> None:
        """Ribs run in the wall, from the column down and forwards; the lowest end in the flank."""
        canvas = self.canvas
        x, y, z = canvas.points
        pitch = rng.uniform(25, 29)
        angle = np.abs(np.arctan2(x, -y))
        drop = 78 * (1 - np.cos(np.minimum(angle, 2.2))) / 1.6 - 12 * np.maximum(angle - 2.2, 0)
        phase = (z + drop + rng.uniform(0, pitch)) / pitch
        start = np.round(phase) * pitch
        along = (phase - np.round(phase)) * pitch
        depth = 5.5 + 17 * np.exp(-((x / 34) ** 2)) * (y < 0)
        section = np.hypot((self.muscle + depth) / 3.6, along / 6.2)
        rib = (section - 1) * 4.0
        reach = np.clip(1.35 + 0.0125 * (start + 45), 0.0, 2.75)
        here = np.maximum(26 - np.abs(x), (angle - reach) * 60)
        here = np.maximum(here, -50 - start)
        rib = np.maximum(rib, here)
        bony = np.clip((2.3 - angle) * 8, 0, 1)
        canvas.paint(rib, 105 + 395 * bony)
        canvas.paint(rib + 2.3, 90 + 110 * bony)

    def draw_large_organs(self) -> None:
        """What fills the upper belly: unannotated, and close to the glands in attenuation."""
        canvas, rng = self.canvas, self.rng
        below = np.maximum(self.cavity + 2, canvas.points[2] - self.dome + 1.5)
        centre = np.array([52, 10, 14]) + rng.normal(0, 3, 3)
        turn = rotation(np.radians([8, -18, 6]) + rng.normal(0, 0.06, 3))
        box = canvas.box(centre, 95)
        right = ellipsoid(local(canvas.points, box, centre, turn), [62, 66, 58])
        left = ellipsoid(local(canvas.points, box, centre + [-48, 24, 16], turn), [48, 30, 22])
        liver = smooth_union(right, left, 14) + 1.5 * self.coarse[box]
        liver = np.maximum(liver, below[box])
        canvas.paint(liver, self.liver_hu + 2 * self.fine[box], box, LIVER)
        veins = np.maximum(self.vessel[box] - 2.4, liver + 7)
        canvas.paint(veins, self.blood_hu * 0.75 + self.liver_hu * 0.25 - 6, box, LIVER)
        centre = np.array([-72, -20, 18]) + rng.normal(0, 3, 3)
        turn = rotation(np.radians([15, 20, -35]) + rng.normal(0, 0.1, 3))
        box = canvas.box(centre, 50)
        spleen = ellipsoid(local(canvas.points, box, centre, turn), [20, 36, 40])
        spleen = np.maximum(spleen + 1.5 * self.coarse[box], below[box])
        canvas.paint(spleen, self.spleen_hu + 2 * self.fine[box], box, SPLEEN)
        centre = np.array([-42, 28, 16]) + rng.normal(0, 4, 3)
        turn = rotation(np.radians([0, 25, 15]) + rng.normal(0, 0.15, 3))
        box = canvas.box(centre, 45)
        stomach = ellipsoid(local(canvas.points, box, centre, turn), [34, 25, 32])
        stomach = np.maximum(stomach + 1.5 * self.coarse[box], below[box])
        content, level = self.rng.uniform(18, 34), self.rng.uniform(0, 14)
        self._fill_with_gas(stomach, box, content, level, STOMACH)

    def _fill_with_gas(
        self,
        distance: np.ndarray,
        box: tuple[slice, slice, slice],
        content: float,
        level: float,
        label: int,
        wall: float = 2.6,
    ) -> None:
        """A hollow organ with content and, above ``level`` mm over its middle, gas."""
        canvas = self.canvas
        canvas.paint(distance, self.muscle_hu - 10, box, label)
        canvas.paint(distance + wall, content + 9 * self.coarse[box], box, label)
        if not (distance < -wall).any():
            return
        height = canvas.height[box]
        gas_from = height[distance < -wall].mean() + level
        gas = np.maximum(distance + wall + 0.6, gas_from - height)
        canvas.paint(gas, -930, box, label)

    def draw_gut(self) -> None:
        """Bent tubes in the belly's fat, some with gas: a crowd of soft distractors."""
        canvas, rng = self.canvas, self.rng
        for side in (1, -1):
            centre = np.array([side * 70, 4, -82 - 12 * side]) + rng.normal(0, 3, 3)
            box = canvas.box(centre, 70)
            x, y, z = local(canvas.points, box, centre)
            z = np.sign(z) * np.maximum(np.abs(z) - 48, 0)
            pleats = 1.6 * np.cos(centre[2] + canvas.points[2][box] / 3.4)
            colon = np.sqrt(x * x + y * y + z * z) - 13.5 + pleats + 1.2 * self.coarse[box]
            colon = np.maximum(colon, self.cavity[box] + 1)
            self._fill_with_gas(colon, box, rng.uniform(15, 45), rng.uniform(-4, 12), COLON)
        for centre in self._gut_places():
            turn = rotation(rng.uniform(0, 2 * np.pi, 3))
            bend, radius = rng.uniform(14, 24), rng.uniform(8.5, 12.5)
            box = canvas.box(centre, bend + radius)
            points = local(canvas.points, box, centre, turn)
            loop = arc(points, bend, rng.uniform(1.0, 2.4), radius)
            loop = np.maximum(loop + 1.1 * self.coarse[box], self.cavity[box] + 2)
            gas = rng.uniform(-2, 5) if rng.random() < 0.3 else np.inf
            self._fill_with_gas(loop, box, rng.uniform(18, 44), gas, SMALL_BOWEL, wall=2.0)

    def _gut_places(self) -> Iterator[np.ndarray]:
        """Where the bends of the gut lie, in body coordinates (mm)."""
        for x in (-44, -8, 28):
            for y in (14, 42):
                for z in (-52, -82, -112):
                    yield np.array([x, y, z]) + self.rng.normal(0, 6, 3)

    def draw_organs(self) -> np.ndarray:
        """The organs to be found, each after the neighbours that it can be taken for."""
        canvas, rng = self.canvas, self.rng
        organs: list[tuple[int, np.ndarray, float, float, Callable[..., np.ndarray]]] = []
        gland = rng.uniform(0.88, 1.12)
        for value, side in ((GLAND_RIGHT, 1.0), (GLAND_LEFT, -1.0)):
            centre = np.array([side * 53, -24, -30]) + rng.normal(0, 3.5, 3)
            organs.append((value, centre, side, gland * rng.uniform(0.92, 1.08), self._gland))
        centre = np.array([20, 40, -24]) + rng.normal(0, 4, 3)
        organs.append((POUCH, centre, 1, rng.uniform(0.8, 1.2), self._pouch))
        drawn = []
        for value, centre, side, volume, shape in organs:
            hu = (self.pouch_hu if value == POUCH else self.gland_hu) + rng.normal(0, 1.0)
            box = canvas.box(centre, 50)
            turn = rotation(np.radians([8, side * 9, side * 18]) + rng.normal(0, 0.12, 3))
            distance = shape(box, centre, turn, side, volume ** (1 / 3))
            drawn.append((value, box, distance, hu))
            self._draw_neighbours(centre, turn, side, hu, pouch=value == POUCH)
        for value, box, distance, hu in drawn:
            canvas.paint(distance, hu + 1.5 * self.fine[box], box, value)
        return canvas.labels

    def _gland(
        self, box: Box, centre: np.ndarray, turn: np.ndarray, side: float, scale: float
    ) -> np.ndarray:
        """A bean with its notch towards the midline."""
        radii = scale * np.array([20, 16.5, 33]) * np.exp(self.rng.normal(0, 0.05, 3))
        bean = ellipsoid(local(self.canvas.points, box, centre, turn), radii)
        notch_at = centre + turn @ (radii * [-side * 1.02, 0.25, 0.0])
        notch_radii = scale * np.array([11, 6.5, 12])
        notch = ellipsoid(local(self.canvas.points, box, notch_at, turn), notch_radii)
        bean = -smooth_union(-(bean + 1.2 * self.coarse[box]), notch, 5)
        return bean

    def _pouch(
        self, box: Box, centre: np.ndarray, turn: np.ndarray, side: float, scale: float
    ) -> np.ndarray:
        """A pear that hangs forwards and down."""
        points = self.canvas.points
        belly = ellipsoid(local(points, box, centre + turn @ [0, 3, -6]), scale * np.full(3, 16))
        neck_radii = scale * np.array([9.5, 10, 22])
        neck = ellipsoid(local(points, box, centre + turn @ [0, -4, 12], turn), neck_radii)
        return smooth_union(belly, neck, 8) + 0.9 * self.coarse[box]

    def _draw_neighbours(
        self, centre: np.ndarray, turn: np.ndarray, side: float, hu: float, *, pouch: bool
    ) -> None:
        """Two blobs within 10 to 25 HU of an organ: one against its surface, one farther off."""
        canvas, rng = self.canvas, self.rng
        ways = (
            ([side * 0.35, 0.3, -0.9], [side * 0.5, 0.85, 0.2])
            if not pouch
            else ([-0.8, -0.25, -0.5], [0.8, -0.3, -0.5])
        )
        reach = np.array([15, 15, 21]) if pouch else np.array([20, 16.5, 33])
        for wanted, gap in zip(ways, (-4.0, 7.0), strict=True):
            way = np.asarray(wanted) + rng.normal(0, 0.12, 3)
            way /= np.linalg.norm(way)
            radii = rng.uniform(10, 15, 3)
            at = centre + turn @ (way * (1 / np.linalg.norm(way / reach) + radii.mean() + gap))
            box = canvas.box(at, 20)
            own = rotation(rng.uniform(0, 2 * np.pi, 3))
            blob = ellipsoid(local(canvas.points, box, at, own), radii)
            blob = np.maximum(blob + 1.2 * self.coarse[box], self.cavity[box] + 1)
            shift = rng.uniform(10, 20) * (1 if pouch else rng.choice([-1, 1]))
            canvas.paint(blob, hu + shift + 1.5 * self.fine[box], box)
