"""The primitives that everything is made of, hit and measured in closed form, each in its own frame.

The four numbers a, b, c, r of a size mean, by kind:

* ellipsoid: its half axes a, b, c;
* round cone: a sphere of radius a at the origin, one of radius b at height c, and what lies between them;
* cone: a disc of radius a at the origin, one of radius b at height c, flat ends;
* box: half sides a, b, c, edges rounded by r;
* torus: a circle of radius a in the xy plane, a tube of radius b.

Ray and ellipsoid, round cone and cone: quadratics, after Inigo Quilez, "Intersectors"; box and torus: sphere tracing of
their signed distance (Hart 1996).
"""

import math

from persona.clay.world.compiled import compiled

ELLIPSOID, ROUND_CONE, BOX, CONE, TORUS = range(5)
FAR = 1e9
"""Where a ray ends that hits nothing."""


@compiled
def intersect(kind, a, b, c, r, ox, oy, oz, dx, dy, dz):
    """Distance along a ray (unit direction, the primitive's own frame) to its first hit, or FAR."""
    if kind == ELLIPSOID:
        px, py, pz = ox / a, oy / b, oz / c
        qx, qy, qz = dx / a, dy / b, dz / c
        qq = qx * qx + qy * qy + qz * qz
        pq = px * qx + py * qy + pz * qz
        h = pq * pq - qq * (px * px + py * py + pz * pz - 1.0)
        return (-pq - math.sqrt(h)) / qq if h > 0.0 else FAR
    if kind == ROUND_CONE:  # radius a at the origin, radius b at height c
        best = FAR
        slope = a - b
        d2 = c * c - slope * slope
        if d2 > 0.0:  # the cone that touches both spheres
            od = ox * dx + oy * dy + oz * dz
            oo = ox * ox + oy * oy + oz * oz
            k2 = d2 - c * c * dz * dz
            k1 = d2 * od - c * oz * c * dz + c * dz * slope * a
            k0 = d2 * oo - c * oz * c * oz + 2.0 * c * oz * slope * a - c * c * a * a
            h = k1 * k1 - k0 * k2
            if h > 0.0 and abs(k2) > 1e-9:
                t = (-math.sqrt(h) - k1) / k2
                y = c * oz - a * slope + t * c * dz
                if 0.0 < y < d2:
                    best = t
        for end in range(2):
            radius = a if end == 0 else b
            ez = oz - end * c
            od = ox * dx + oy * dy + ez * dz
            h = od * od - (ox * ox + oy * oy + ez * ez - radius * radius)
            if h > 0.0:
                best = min(best, -od - math.sqrt(h))
        return best
    if kind == CONE:  # radius a at the origin, radius b at height c, flat ends
        best = FAR
        k = (b - a) / c
        f = a + k * oz
        qa = dx * dx + dy * dy - k * k * dz * dz
        qb = ox * dx + oy * dy - k * dz * f
        qc = ox * ox + oy * oy - f * f
        h = qb * qb - qa * qc
        if h > 0.0 and abs(qa) > 1e-9:
            root = math.sqrt(h)
            for sign in (-1.0, 1.0):
                t = (-qb + sign * root) / qa
                z = oz + t * dz
                if t > 0.0 and 0.0 <= z <= c and a + k * z >= 0.0:
                    best = min(best, t)
        if abs(dz) > 1e-9:
            for end in range(2):
                radius = a if end == 0 else b
                t = (end * c - oz) / dz
                x, y = ox + t * dx, oy + t * dy
                if t > 0.0 and x * x + y * y <= radius * radius:
                    best = min(best, t)
        return best
    if kind == BOX:  # half sides a, b, c, edges rounded by r: step from the sharp box to the round one
        near, far = -FAR, FAR
        for axis in range(3):
            o, d, s = (ox, dx, a) if axis == 0 else ((oy, dy, b) if axis == 1 else (oz, dz, c))
            if abs(d) < 1e-9:
                if abs(o) > s:
                    return FAR
                continue
            t0, t1 = (-s - o) / d, (s - o) / d
            near, far = max(near, min(t0, t1)), min(far, max(t0, t1))
        if near > far or far < 0.0:
            return FAR
        t = max(near, 0.0)
        for _ in range(16):
            d = distance(kind, a, b, c, r, ox + t * dx, oy + t * dy, oz + t * dz)
            if d < 1e-3:
                return t
            t += d
            if t > far:
                return FAR
        return t
    # TORUS: circle of radius a in the xy plane, tube of radius b
    bound = a + b
    od = ox * dx + oy * dy + oz * dz
    h = od * od - (ox * ox + oy * oy + oz * oz - bound * bound)
    if h <= 0.0:
        return FAR
    t, end = max(0.0, -od - math.sqrt(h)), -od + math.sqrt(h)
    for _ in range(40):
        d = distance(kind, a, b, c, r, ox + t * dx, oy + t * dy, oz + t * dz)
        if d < 1e-3:
            return t
        t += d
        if t > end:
            return FAR
    return FAR


@compiled
def distance(kind, a, b, c, r, x, y, z):
    """Signed distance of a point to a box or a torus, in the primitive's own frame."""
    if kind == BOX:
        qx, qy, qz = abs(x) - a + r, abs(y) - b + r, abs(z) - c + r
        outside = math.sqrt(max(qx, 0.0) ** 2 + max(qy, 0.0) ** 2 + max(qz, 0.0) ** 2)
        return outside + min(max(qx, max(qy, qz)), 0.0) - r
    ring = math.sqrt(x * x + y * y) - a
    return math.sqrt(ring * ring + z * z) - b


@compiled
def normal(kind, a, b, c, r, x, y, z):
    """Outward unit normal at a point of the surface, in the primitive's own frame."""
    if kind == ELLIPSOID:
        nx, ny, nz = x / (a * a), y / (b * b), z / (c * c)
    elif kind == ROUND_CONE:
        slope = a - b
        flank = math.sqrt(max(c * c - slope * slope, 1e-9))
        # Foot of the point on the axis, along the flank's normal.
        foot = min(max(z - math.sqrt(x * x + y * y) * slope / flank, 0.0), c)
        nx, ny, nz = x, y, z - foot
    elif kind == CONE:
        k = (b - a) / c
        if z < 1e-4:
            nx, ny, nz = 0.0, 0.0, -1.0
        elif z > c - 1e-4:
            nx, ny, nz = 0.0, 0.0, 1.0
        else:
            rho = math.sqrt(x * x + y * y) + 1e-9
            nx, ny, nz = x / rho, y / rho, -k
    else:
        e = 1e-3
        nx = distance(kind, a, b, c, r, x + e, y, z) - distance(kind, a, b, c, r, x - e, y, z)
        ny = distance(kind, a, b, c, r, x, y + e, z) - distance(kind, a, b, c, r, x, y - e, z)
        nz = distance(kind, a, b, c, r, x, y, z + e) - distance(kind, a, b, c, r, x, y, z - e)
    length = math.sqrt(nx * nx + ny * ny + nz * nz) + 1e-12
    return nx / length, ny / length, nz / length
