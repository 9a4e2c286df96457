"""How values of each type are drawn, as PostgreSQL's own input texts."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable

Draw = Callable[[random.Random], str]


def integers(bits: int) -> Draw:
    return lambda rng: str(rng.randint(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) >> rng.randrange(bits))


def decimals(precision: int, scale: int) -> Draw:
    def draw(rng: random.Random) -> str:
        digits = rng.randint(1, precision)
        unscaled = rng.randint(0, 10**digits - 1)
        sign = "-" if unscaled and rng.random() < 0.5 else ""
        text = str(unscaled).zfill(scale + 1)
        return sign + (f"{text[:-scale]}.{text[-scale:]}" if scale else text)

    return draw


def doubles(rng: random.Random) -> str:
    return repr(rng.uniform(-1, 1) * 10.0 ** rng.randint(-300, 300))


def floats(rng: random.Random) -> str:
    return repr(rng.uniform(-1, 1) * 10.0 ** rng.randint(-30, 30))


def texts(rng: random.Random) -> str:
    alphabet = "aZ 0'\"\\\n\t,;{}[]ä€𝄞\u200b\u0301N"
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(0, 40)))


def words(rng: random.Random) -> str:
    return "".join(rng.choice("abcxyz0189äß") for _ in range(rng.randint(1, 20)))


def blobs(rng: random.Random) -> str:
    return "\\x" + rng.randbytes(rng.randint(0, 50)).hex()


def dates(rng: random.Random) -> str:
    return f"{rng.randint(1, 9999):04}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"


def times(rng: random.Random) -> str:
    return f"{rng.randrange(24):02}:{rng.randrange(60):02}:{rng.randrange(60):02}.{rng.randrange(10**6):06}"


def timestamps(rng: random.Random) -> str:
    return f"{dates(rng)} {times(rng)}"


def instants(rng: random.Random) -> str:
    return f"{rng.randint(2, 9998):04}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02} {times(rng)}+{rng.randrange(14):02}:30"


def documents(rng: random.Random, depth: int = 0) -> str:
    def value(depth: int) -> object:
        kind = rng.randrange(7 if depth < 3 else 5)
        if kind == 0:
            return None
        if kind == 1:
            return rng.random() < 0.5
        if kind == 2:
            return rng.randint(-(2**63), 2**63)
        if kind == 3:
            return rng.randint(-(10**6), 10**6) / 64
        if kind == 4:
            return texts(rng)
        if kind == 5:
            return [value(depth + 1) for _ in range(rng.randrange(4))]
        return {words(rng): value(depth + 1) for _ in range(rng.randrange(4))}

    return json.dumps(value(depth))


def bits(count: int | None) -> Draw:
    return lambda rng: "".join(rng.choice("01") for _ in range(rng.randint(1, 60) if count is None else count))


def addresses(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return ":".join(f"{rng.randrange(2**16):x}" for _ in range(8))
    return ".".join(str(rng.randrange(256)) for _ in range(4))


def uuids(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128)))


def zoned_times(rng: random.Random) -> str:
    return f"{times(rng)}{rng.choice('+-')}{rng.randrange(16):02}:{rng.randrange(60):02}"


def intervals(rng: random.Random) -> str:
    signed = [rng.randint(-(10**rng.randrange(6)), 10**rng.randrange(6)) for _ in range(4)]
    return "{} years {} mons {} days {}.{:06} seconds".format(*signed, rng.randrange(10**6))


def ranges(draw: Draw) -> Draw:
    """Ranges between two of those, which PostgreSQL puts in order for us: a bound may be open or missing."""

    def drawn(rng: random.Random) -> str:
        bound = draw(rng)
        return rng.choice(["empty", f"[{bound},{bound}]", f"({bound},)", f"[,{bound})", "(,)"])

    return drawn


def multiranges(draw: Draw) -> Draw:
    return lambda rng: "{" + ", ".join(ranges(draw)(rng) for _ in range(rng.randrange(3))) + "}"


def paths(points: int) -> Draw:
    return lambda rng: ",".join(f"({rng.randint(-999, 999) / 8},{rng.randint(-999, 999) / 8})" for _ in range(points))


def places(rng: random.Random) -> str:
    def point() -> str:
        return f"{rng.uniform(-180, 180)!r} {rng.uniform(-90, 90)!r}"

    line = ", ".join(point() for _ in range(rng.randint(2, 9)))
    return rng.choice([f"POINT({point()})", f"LINESTRING({line})", f"MULTIPOINT({line})"])
