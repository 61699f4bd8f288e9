"""The ray caster: closed-form primitives, soft light, contact shadows, 2x2 samples a pixel.

World axes: x to the right, y away from the camera, z up; the ground is z = 0. Every primitive has a frame of its own
(centre and rotation) and a rest frame, that of its subject standing still: patterns are painted in the rest frame, so
a spot stays where it is whatever the pose and from whatever side it is seen.

Compiled by numba and free of the interpreter lock: about ten milliseconds a picture and core.
"""

import math

import numpy as np

from persona.clay.world.compiled import compiled
from persona.clay.world.ground import fbm, ground_colour, hash3, value_noise3
from persona.clay.world.primitives import CONE, ELLIPSOID, FAR, ROUND_CONE, TORUS, intersect, normal

PLAIN, SPOTTED, STRIPED, PATCHED, TWO_TONE, WINDOWS, RAINBOW, SNOWCAP, STARS, LEAVES = range(10)

# Columns of a primitive's row.
CENTRE, ROTATION, SIZE, REST_CENTRE, REST_ROTATION, PRIMITIVE_WIDTH = 0, 3, 12, 16, 19, 28
# Columns of a material's row.
FIRST, SECOND, PATTERN, SCALE, SEED, GLOSS, METAL, ALPHA, MATERIAL_WIDTH = 0, 3, 6, 7, 8, 9, 10, 11, 12


@compiled
def _pattern(kind, scale, seed, x, y, z, nz):
    """How much of a material's second colour shows at a point of the rest frame, 0 to 1; RAINBOW returns a hue."""
    if kind == SPOTTED:
        gx, gy, gz = x * scale, y * scale, z * scale
        ix, iy, iz = math.floor(gx), math.floor(gy), math.floor(gz)
        best = 9.0
        for i in range(-1, 2):
            for j in range(-1, 2):
                for k in range(-1, 2):
                    cx, cy, cz = ix + i, iy + j, iz + k
                    fx = cx + 0.5 + 0.55 * (hash3(cx, cy, cz, seed) - 0.5)
                    fy = cy + 0.5 + 0.55 * (hash3(cx, cy, cz, seed + 1) - 0.5)
                    fz = cz + 0.5 + 0.55 * (hash3(cx, cy, cz, seed + 2) - 0.5)
                    best = min(best, (gx - fx) ** 2 + (gy - fy) ** 2 + (gz - fz) ** 2)
        return 1.0 if best < 0.15 else 0.0
    if kind == STRIPED:
        wave = math.sin(6.2832 * (scale * x + 0.12 * math.sin(4.0 * z + seed)) + seed)
        return 1.0 if wave > 0.15 else 0.0
    if kind == PATCHED:
        return 1.0 if value_noise3(x * scale, y * scale, z * scale, seed) > 0.53 else 0.0
    if kind == TWO_TONE:
        return 1.0 if z < scale else 0.0
    if kind == WINDOWS:
        u, v = x * 3.0 + y * 3.0, z * 2.5
        return 1.0 if (u - math.floor(u)) > 0.45 and (v - math.floor(v)) > 0.45 and abs(nz) < 0.5 else 0.0
    if kind == SNOWCAP:
        return 1.0 if z + 0.5 * value_noise3(x * 1.5, y * 1.5, z, seed) > scale else 0.0
    if kind == STARS:
        u, v, w = x * scale, y * scale, z * scale
        return (
            1.0
            if hash3(math.floor(u), math.floor(v), math.floor(w), seed) > 0.7
            and ((u - math.floor(u) - 0.5) ** 2 + (v - math.floor(v) - 0.5) ** 2 + (w - math.floor(w) - 0.5) ** 2 < 0.2)
            else 0.0
        )
    if kind == LEAVES:
        return value_noise3(x * scale, y * scale, z * scale, seed)
    return 0.0


@compiled
def _soft_shadow(prims, kinds, casts, x, y, lx, ly, lz):
    """Light that reaches a ground point, 0 to 1: each caster is taken for its inner ellipsoid."""
    light = 1.0
    for i in range(len(kinds)):
        if not casts[i]:
            continue
        row = prims[i]
        kind = kinds[i]
        s0, s1, s2 = row[SIZE], row[SIZE + 1], row[SIZE + 2]
        cz = 0.0
        if kind == ROUND_CONE or kind == CONE:
            wide = max(s0, s1) if kind == ROUND_CONE else 0.6 * max(s0, s1)
            cz, s0, s1, s2 = s2 / 2.0, wide, wide, s2 / 2.0 + (0.7 * wide if kind == ROUND_CONE else 0.0)
        elif kind == TORUS:
            s0, s1, s2 = s0 + s1, s0 + s1, s1
        px, py, pz = x - row[0], y - row[1], -row[2]
        r = row[ROTATION : ROTATION + 9]
        ox = (r[0] * px + r[1] * py + r[2] * pz) / s0
        oy = (r[3] * px + r[4] * py + r[5] * pz) / s1
        oz = (r[6] * px + r[7] * py + r[8] * pz - cz) / s2
        dx = (r[0] * lx + r[1] * ly + r[2] * lz) / s0
        dy = (r[3] * lx + r[4] * ly + r[5] * lz) / s1
        dz = (r[6] * lx + r[7] * ly + r[8] * lz) / s2
        dd = dx * dx + dy * dy + dz * dz
        od = ox * dx + oy * dy + oz * dz
        oo = ox * ox + oy * oy + oz * oz
        t = max(-od / dd, 0.0)
        nearest = math.sqrt(max(oo + 2.0 * t * od + t * t * dd, 0.0))
        cast = 1.0 - min(max((nearest - 0.75) / 0.55, 0.0), 1.0)  # penumbra
        contact = 1.0 - min(max((math.sqrt(oo) - 0.85) / 0.9, 0.0), 1.0)
        light = min(light, 1.0 - 0.62 * cast) * (1.0 - 0.25 * contact)
    return light


@compiled
def _cast(prims, kinds, layers, layer, eye, right, up, forward, focal, side, nearest, hit):
    """Depth and index of the nearest primitive of one layer, for every sample of a side x side grid."""
    for i in range(len(kinds)):
        if layers[i] != layer:
            continue
        row = prims[i]
        kind = kinds[i]
        a, b, c, r = row[SIZE], row[SIZE + 1], row[SIZE + 2], row[SIZE + 3]
        rot = row[ROTATION : ROTATION + 9]
        middle = c / 2.0 if kind == ROUND_CONE or kind == CONE else 0.0
        if kind == ROUND_CONE or kind == CONE:
            bound = c / 2.0 + max(a, b)
        elif kind == TORUS:
            bound = a + b
        elif kind == ELLIPSOID:
            bound = max(a, max(b, c))
        else:
            bound = math.sqrt(a * a + b * b + c * c)
        mx, my, mz = row[0] + rot[6] * middle, row[1] + rot[7] * middle, row[2] + rot[8] * middle
        vx, vy, vz = mx - eye[0], my - eye[1], mz - eye[2]
        depth = vx * forward[0] + vy * forward[1] + vz * forward[2]
        if depth < 0.05:
            continue
        reach = focal * bound / max(math.sqrt(max(depth * depth - bound * bound, 0.01)), 0.1) + 1.0 / side
        u = focal * (vx * right[0] + vy * right[1] + vz * right[2]) / depth
        v = focal * (vx * up[0] + vy * up[1] + vz * up[2]) / depth
        left = max(0, int(math.floor((u - reach + 0.5) * side)))
        stop = min(side, int(math.ceil((u + reach + 0.5) * side)) + 1)
        top = max(0, int(math.floor((0.5 - v - reach) * side)))
        bottom = min(side, int(math.ceil((0.5 - v + reach) * side)) + 1)
        px, py, pz = eye[0] - row[0], eye[1] - row[1], eye[2] - row[2]
        ox = rot[0] * px + rot[1] * py + rot[2] * pz
        oy = rot[3] * px + rot[4] * py + rot[5] * pz
        oz = rot[6] * px + rot[7] * py + rot[8] * pz
        for j in range(top, bottom):
            sv = 0.5 - (j + 0.5) / side
            for k in range(left, stop):
                su = (k + 0.5) / side - 0.5
                wx = forward[0] * focal + right[0] * su + up[0] * sv
                wy = forward[1] * focal + right[1] * su + up[1] * sv
                wz = forward[2] * focal + right[2] * su + up[2] * sv
                n = 1.0 / math.sqrt(wx * wx + wy * wy + wz * wz)
                wx, wy, wz = wx * n, wy * n, wz * n
                t = intersect(
                    kind, a, b, c, r, ox, oy, oz,
                    rot[0] * wx + rot[1] * wy + rot[2] * wz,
                    rot[3] * wx + rot[4] * wy + rot[5] * wz,
                    rot[6] * wx + rot[7] * wy + rot[8] * wz,
                )  # fmt: skip
                if 0.0 < t < nearest[j, k] and eye[2] + t * wz > -0.02:
                    nearest[j, k] = t
                    hit[j, k] = i


@compiled
def _shade(row, kind, material, x, y, z, wx, wy, wz, light, sun, ambient, bounce, out):
    """Colour of a primitive's surface at a world point seen along (wx, wy, wz)."""
    rot = row[ROTATION : ROTATION + 9]
    px, py, pz = x - row[0], y - row[1], z - row[2]
    lx = rot[0] * px + rot[1] * py + rot[2] * pz
    ly = rot[3] * px + rot[4] * py + rot[5] * pz
    lz = rot[6] * px + rot[7] * py + rot[8] * pz
    a, b, c, r = row[SIZE], row[SIZE + 1], row[SIZE + 2], row[SIZE + 3]
    mx, my, mz = normal(kind, a, b, c, r, lx, ly, lz)
    nx = rot[0] * mx + rot[3] * my + rot[6] * mz
    ny = rot[1] * mx + rot[4] * my + rot[7] * mz
    nz = rot[2] * mx + rot[5] * my + rot[8] * mz
    pattern = int(material[PATTERN])
    c0, c1, c2 = material[FIRST], material[FIRST + 1], material[FIRST + 2]
    if pattern != PLAIN:
        q = row[REST_ROTATION : REST_ROTATION + 9]
        rx = row[REST_CENTRE] + q[0] * lx + q[1] * ly + q[2] * lz
        ry = row[REST_CENTRE + 1] + q[3] * lx + q[4] * ly + q[5] * lz
        rz = row[REST_CENTRE + 2] + q[6] * lx + q[7] * ly + q[8] * lz
        if pattern == RAINBOW:
            band = (rx + 0.7 * rz + ry) * material[SCALE]
            h = (math.floor((band - math.floor(band)) * 6.0)) / 6.0
            c0 = 0.5 + 0.45 * math.cos(6.2832 * h)
            c1 = 0.5 + 0.45 * math.cos(6.2832 * (h - 0.333))
            c2 = 0.5 + 0.45 * math.cos(6.2832 * (h - 0.667))
        else:
            share = _pattern(pattern, material[SCALE], material[SEED], rx, ry, rz, mz)
            c0 += share * (material[SECOND] - c0)
            c1 += share * (material[SECOND + 1] - c1)
            c2 += share * (material[SECOND + 2] - c2)
    facing = nx * light[0] + ny * light[1] + nz * light[2]
    diffuse = max(0.0, (facing + 0.25) / 1.25)
    sky = 0.5 + 0.5 * nz
    low = min(1.0, 0.55 + 1.2 * max(z, 0.0))  # near the ground less of the sky is seen
    back = nx * wx + ny * wy + nz * wz
    hx, hy, hz = light[0] - wx, light[1] - wy, light[2] - wz
    hn = math.sqrt(hx * hx + hy * hy + hz * hz) + 1e-9
    half = max(0.0, (nx * hx + ny * hy + nz * hz) / hn)
    gloss, metal = material[GLOSS], material[METAL]
    spark = gloss * (1.1 * half**60 + 0.25 * half**12)
    mirror_z = wz - 2.0 * back * nz
    glow = (0.35 + 0.95 * max(0.0, mirror_z) if mirror_z > -0.05 else 0.22) if metal > 0.0 else 0.0
    rim = (1.0 - min(1.0, -back)) ** 3
    for k in range(3):
        base = c0 if k == 0 else (c1 if k == 1 else c2)
        body = base * (sun[k] * diffuse + low * (ambient[k] * sky + bounce[k] * (1.0 - sky)))
        body = body * (1.0 - metal) + metal * base * (glow + 0.5 * diffuse)
        out[k] = body + spark * (sun[k] if metal < 0.5 else (0.4 + 0.6 * base)) + 0.10 * rim * ambient[k]


@compiled
def cast_owners(prims, kinds, layers, owners, eye, right, up, forward, focal, owner):
    """Write who is seen in every sample, as `cast_scene` does, into owner (S, S) int16 of zeros."""
    side = len(owner)
    nearest = np.full((side, side), FAR)
    hit = np.full((side, side), -1, np.int32)
    _cast(prims, kinds, layers, 0, eye, right, up, forward, focal, side, nearest, hit)
    _cast(prims, kinds, layers, 1, eye, right, up, forward, focal, side, nearest, hit)
    for j in range(side):
        for k in range(side):
            if hit[j, k] >= 0:
                owner[j, k] = owners[hit[j, k]]


@compiled
def cast_scene(prims, kinds, layers, casts, owners, materials, material_of, eye, right, up, forward, focal, light, sun,
               ambient, bounce, ground, sky_low, sky_high, haze, side, image, owner, depth):  # fmt: skip
    """Draw a scene: image (S, S, 3) float, owner (S, S) int16 of every sample, depth (S, S) of every sample."""
    nearest = np.full((side, side), FAR)
    hit = np.full((side, side), -1, np.int32)
    _cast(prims, kinds, layers, 0, eye, right, up, forward, focal, side, nearest, hit)
    clear = np.full((side, side), FAR)
    clear_hit = np.full((side, side), -1, np.int32)
    _cast(prims, kinds, layers, 1, eye, right, up, forward, focal, side, clear, clear_hit)
    colour = np.zeros(3)
    shadows = np.full((side // 2 + 1, side // 2 + 1), -1.0)
    for j in range(side):
        sv = 0.5 - (j + 0.5) / side
        for k in range(side):
            su = (k + 0.5) / side - 0.5
            wx = forward[0] * focal + right[0] * su + up[0] * sv
            wy = forward[1] * focal + right[1] * su + up[1] * sv
            wz = forward[2] * focal + right[2] * su + up[2] * sv
            n = 1.0 / math.sqrt(wx * wx + wy * wy + wz * wz)
            wx, wy, wz = wx * n, wy * n, wz * n
            t = nearest[j, k]
            i = hit[j, k]
            owner[j, k] = 0
            if i >= 0:
                _shade(prims[i], kinds[i], materials[material_of[i]], eye[0] + t * wx, eye[1] + t * wy, eye[2] + t * wz,
                       wx, wy, wz, light, sun, ambient, bounce, colour)  # fmt: skip
                owner[j, k] = owners[i]
                if owners[i] == 0:
                    fog = 1.0 - math.exp(-haze * max(0.0, t - 6.0))
                    for m in range(3):
                        colour[m] += fog * (sky_low[m] - colour[m])
            elif wz < -1e-4:
                t = -eye[2] / wz
                x, y = eye[0] + t * wx, eye[1] + t * wy
                ground_colour(ground, x, y, t, colour)
                shade = 1.0
                if t < 14.0 and abs(x) < 3.5 and -3.0 < y < 4.0:
                    shade = shadows[j // 2, k // 2]
                    if shade < 0.0:
                        shade = _soft_shadow(prims, kinds, casts, x, y, light[0], light[1], light[2])
                        shadows[j // 2, k // 2] = shade
                fog = 1.0 - math.exp(-haze * max(0.0, t - 6.0))
                for m in range(3):
                    lit = colour[m] * (sun[m] * light[2] * shade + ambient[m] * (0.55 + 0.45 * shade))
                    colour[m] = lit + fog * (sky_low[m] - lit)
            else:
                h = min(1.0, max(0.0, wz) * 2.2)
                t = FAR
                cloud = ground[1]
                if cloud > 0.0:
                    veil = fbm(wx * 5.0 / (wz + 0.25), 5.0 / (wz + 0.25), ground[2])
                    cloud *= max(0.0, min(1.0, (veil - 0.5) * 5.0))
                for m in range(3):
                    s = sky_low[m] + (sky_high[m] - sky_low[m]) * h
                    colour[m] = s + 0.7 * cloud * (1.0 - s)
            depth[j, k] = t
            o0, o1, o2 = colour[0], colour[1], colour[2]
            g = clear_hit[j, k]
            if g >= 0 and clear[j, k] < t:
                t = clear[j, k]
                material = materials[material_of[g]]
                _shade(prims[g], kinds[g], material, eye[0] + t * wx, eye[1] + t * wy, eye[2] + t * wz,
                       wx, wy, wz, light, sun, ambient, bounce, colour)  # fmt: skip
                alpha = material[ALPHA]
                o0 += alpha * (colour[0] - o0)
                o1 += alpha * (colour[1] - o1)
                o2 += alpha * (colour[2] - o2)
                owner[j, k] = owners[g]
                depth[j, k] = t
            image[j, k, 0], image[j, k, 1], image[j, k, 2] = o0, o1, o2
