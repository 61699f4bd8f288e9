"""Grounds: procedural textures of the plane z = 0, one number a kind, compiled with the ray caster.

A ground's row: kind, clouds of the sky above it (0 to 1), seed, first colour (3), second colour (3), two free numbers.
"""

import math

from persona.clay.world.compiled import compiled

FLAT, NOISE, SAND_AND_SEA, COBBLES, PLANKS, FABRIC, WATER, GRASS, RUG, ROAD, LEAF_LITTER, SNOW, PAVEMENT, TILES = range(
    14
)
KIND, CLOUDS, SEED, FIRST, SECOND, EXTRA, GROUND_WIDTH = 0, 1, 2, 3, 6, 9, 14


@compiled
def hash3(x, y, z, seed):
    """A fixed number in [0, 1) for a lattice point."""
    n = (int(x) * 73856093) ^ (int(y) * 19349663) ^ (int(z) * 83492791) ^ (int(seed) * 39916801)
    n = (n ^ (n >> 13)) & 0x7FFFFFFF
    n = (n * 1103515245 + 12345) & 0x7FFFFFFF
    n = (n ^ (n >> 11)) & 0x7FFFFFFF
    n = (n * 69069 + 1) & 0x7FFFFFFF
    return ((n >> 8) & 0xFFFF) / 65536.0


@compiled
def value_noise3(x, y, z, seed):
    """Smooth noise in [0, 1], one cell a unit."""
    ix, iy, iz = math.floor(x), math.floor(y), math.floor(z)
    fx, fy, fz = x - ix, y - iy, z - iz
    fx, fy, fz = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy), fz * fz * (3 - 2 * fz)
    total = 0.0
    for i in range(2):
        for j in range(2):
            for k in range(2):
                weight = (fx if i else 1 - fx) * (fy if j else 1 - fy) * (fz if k else 1 - fz)
                total += weight * hash3(ix + i, iy + j, iz + k, seed)
    return total


@compiled
def noise2(x, y, seed):
    """Smooth noise in [0, 1], one cell a unit."""
    ix, iy = math.floor(x), math.floor(y)
    fx, fy = x - ix, y - iy
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    a = hash3(ix, iy, 0, seed) + fx * (hash3(ix + 1, iy, 0, seed) - hash3(ix, iy, 0, seed))
    b = hash3(ix, iy + 1, 0, seed) + fx * (hash3(ix + 1, iy + 1, 0, seed) - hash3(ix, iy + 1, 0, seed))
    return a + fy * (b - a)


@compiled
def fbm(x, y, seed):
    """Three octaves of noise in [0, 1]."""
    return (
        0.55 * noise2(x, y, seed) + 0.3 * noise2(2.1 * x, 2.1 * y, seed + 1) + 0.15 * noise2(4.3 * x, 4.3 * y, seed + 2)
    )


@compiled
def _cells(x, y, seed):
    """Distance to the border between the two nearest of a jittered grid's points, and a number of the nearer one."""
    ix, iy = math.floor(x), math.floor(y)
    first, second, who = 9.0, 9.0, 0.0
    for i in range(-1, 2):
        for j in range(-1, 2):
            cx, cy = ix + i, iy + j
            px = cx + 0.5 + 0.5 * (hash3(cx, cy, 1, seed) - 0.5)
            py = cy + 0.5 + 0.5 * (hash3(cx, cy, 2, seed) - 0.5)
            d = math.sqrt((x - px) ** 2 + (y - py) ** 2)
            if d < first:
                second, first = first, d
                who = hash3(cx, cy, 3, seed)
            elif d < second:
                second = d
    return second - first, who


@compiled
def ground_colour(g, x, y, far, out):
    """Unlit colour of the ground at (x, y); detail fades with the distance `far` from the eye."""
    kind, seed = int(g[KIND]), int(g[SEED])
    near = 1.0 / (1.0 + max(0.0, far - 4.0) * 0.12)
    share = 0.0  # of the second colour
    shade = 1.0
    extra = False
    if kind == NOISE:
        share = fbm(x * 1.6, y * 1.6, seed)
    elif kind == SAND_AND_SEA:
        shore = g[EXTRA] + 0.25 * math.sin(0.9 * x + seed) + 0.12 * math.sin(2.3 * x)
        if y > shore:
            extra = True
            out[0], out[1], out[2] = 0.16, 0.50, 0.72
            shade = 0.9 + 0.25 * noise2(x * 0.8, y * 3.0, seed) * near
            if y < shore + 0.22:
                out[0], out[1], out[2] = 0.93, 0.96, 0.97
        else:
            share = fbm(x * 2.2, y * 2.2, seed) * near
            shade = 0.95 + 0.07 * math.sin(6.0 * (y + 0.3 * math.sin(x)))
    elif kind == COBBLES:
        border, who = _cells(x * 2.3, y * 2.3, seed)
        share = who * 0.9
        shade = 1.0 - (0.55 * near if border < 0.13 else 0.0)
    elif kind == PLANKS:
        row = math.floor(y * 2.4)
        u = x * 0.55 + 0.37 * row
        plank = math.floor(u)
        share = hash3(row, plank, 0, seed)
        shade = 0.94 + 0.1 * noise2(x * 1.5, y * 14.0, seed) * near
        gap = y * 2.4 - row
        if gap < 0.07 or (u - plank) < 0.02:
            shade *= 1.0 - 0.5 * near
    elif kind == FABRIC:
        fold = math.sin(1.7 * x + 1.2 * math.sin(0.9 * y + seed) + 2.2 * fbm(x * 0.6, y * 0.6, seed))
        shade = 0.88 + 0.17 * fold
        share = 0.5 + 0.5 * fold
    elif kind == WATER:
        wave = noise2(x * 0.9 + 0.4 * y, y * 2.4, seed) + 0.5 * noise2(x * 2.1, y * 5.1, seed + 1) * near
        share = min(1.0, max(0.0, (wave - 0.55) * 1.8))
    elif kind == GRASS:
        share = 0.6 * fbm(x * 1.1, y * 1.1, seed) + 0.4 * noise2(x * 9.0, y * 3.5, seed) * near
    elif kind == RUG:
        d = (x / g[EXTRA]) ** 2 + ((y - 0.1) / g[EXTRA + 1]) ** 2
        if d < 1.0:
            extra = True
            out[0], out[1], out[2] = g[EXTRA + 2], g[EXTRA + 3], g[EXTRA + 4]
            shade = 0.92 + 0.12 * noise2(x * 9.0, y * 9.0, seed) * near
            if 0.72 < d < 0.84:
                shade *= 0.8
        else:
            share = fbm(x * 1.8, y * 1.8, seed)
    elif kind == ROAD:
        edge = g[EXTRA] + 0.12 * (noise2(x * 1.5, y * 1.5, seed) - 0.5)
        off = abs(x + 0.25 * math.sin(0.6 * y + seed))
        if off > edge:
            extra = True
            out[0], out[1], out[2] = 0.30, 0.52, 0.18
            shade = 0.85 + 0.3 * fbm(x * 2.5, y * 2.5, seed)
        else:
            share = fbm(x * 2.6, y * 1.6, seed)
            shade = 1.0 - 0.18 * math.exp(-((off - 0.55 * edge) ** 2) * 30.0)
    elif kind == LEAF_LITTER:
        border, who = _cells(x * 3.6, y * 3.6, seed)
        if who > 0.6 and border > 0.2:
            extra = True
            out[0], out[1], out[2] = 0.80 + 0.14 * who, 0.22 + 0.5 * (who - 0.45), 0.07
        else:
            share = fbm(x * 2.0, y * 2.0, seed)
    elif kind == SNOW:
        share = fbm(x * 0.9, y * 0.9, seed) * 0.8
    elif kind == PAVEMENT:
        share = noise2(x * 6.0, y * 6.0, seed) * 0.5 * near
        if abs(x - g[EXTRA]) < 0.09 and (y * 0.5 - math.floor(y * 0.5)) < 0.6:
            extra = True
            out[0], out[1], out[2] = 0.9, 0.88, 0.8
    elif kind == TILES:
        share = (math.floor(x * 1.3) + math.floor(y * 1.3)) % 2
    if not extra:
        for m in range(3):
            out[m] = g[FIRST + m] + share * (g[SECOND + m] - g[FIRST + m])
    for m in range(3):
        out[m] *= shade
