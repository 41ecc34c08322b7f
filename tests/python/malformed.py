"""Bodies that are not as section 5 says, for every request."""

import struct

from tidings_client import ENUMS, LAYOUTS, NUMBERS, RAW, encode, fields_of, variants_of

# Section 1: which fields are texts with a rule, and something that breaks it. The layouts of
# the client call them all strings.
RULES = {
    "name": (b"", b"a..b", b"a.", b"a b", b"a*", "ä".encode(), b"a" * 256),
    "new": (b"", b".a"),
    "topic": (b"", b"a/b"),
    "after": (b"", b"*"),
    "on": (b"", b"a.b", b"a" * 65),
    "pattern": (b"", b"a*", b">.a", b"a..*", b"a" * 256),
    "address": (b"", b"a", b"a:0", b"a:65536", b"a:b", b":1", b"::1:80", b"[zz]:1"),
}


def sample(kind, field=""):
    """A good value of that type; options and lists hold something."""
    if kind in NUMBERS:
        return 1
    if kind in RAW:
        return bytes(range(RAW[kind]))
    if kind in ("bool", "string"):
        return True if kind == "bool" else "a:1" if field == "address" else "a"
    if kind == "bytes":
        return b"a"
    if kind.endswith("?"):
        return (sample(kind[:-1]),) if kind.endswith("??") else sample(kind[:-1])
    if kind.startswith("["):
        return [sample(kind[1:-1])]
    if kind.startswith("("):
        return tuple(sample(part) for part in kind[1:-1].split(","))
    if kind in ENUMS:
        name, carried = variants_of(kind)[-1]
        return (name, sample(carried)) if carried else name
    return {name: sample(what, name) for name, what in fields_of(LAYOUTS[kind])}


def spoilt(kind, value, field=""):
    """(what, bytes) for a value, each with one thing in it that is wrong."""
    good = encode(kind, value)
    if kind == "bool":
        yield "a bool of 2", b"\2"
    elif kind == "bytes":
        yield "a length beyond the end", struct.pack("<Q", 1 << 62) + good[8:]
    elif kind == "string":
        yield "a length beyond the end", struct.pack("<Q", 1 << 62) + good[8:]
        for text in (b"\xff", *RULES.get(field, ())):
            yield f"{text!r} as {field}", struct.pack("<Q", len(text)) + text
    elif kind.endswith("?"):
        inner = value[0] if kind.endswith("??") else value
        yield "an option of 2", b"\2" + good[1:]
        for what, data in spoilt(kind[:-1], inner, field):
            yield what, good[:1] + data
    elif kind.startswith("["):
        yield "a count beyond the end", struct.pack("<Q", (1 << 64) - 1) + good[8:]
        for what, data in spoilt(kind[1:-1], value[0], field):
            yield what, good[:8] + data
    elif kind.startswith("("):
        yield from spoilt_parts([(field, part) for part in kind[1:-1].split(",")], value)
    elif kind in ENUMS:
        count = len(variants_of(kind))
        for number in (count, 1 << 24, (1 << 32) - 1):
            yield f"variant {number}", struct.pack("<I", number) + good[4:]
    elif kind in LAYOUTS:
        fields = fields_of(LAYOUTS[kind])
        yield from spoilt_parts(fields, [value[name] for name, _ in fields])


def spoilt_parts(fields, values):
    encoded = [encode(kind, value) for (_, kind), value in zip(fields, values)]
    for at, ((field, kind), value) in enumerate(zip(fields, values)):
        before, after = b"".join(encoded[:at]), b"".join(encoded[at + 1 :])
        for what, data in spoilt(kind, value, field):
            yield f"{what} in {field}", before + data + after


def bodies(request):
    """(what, body) for a request: each is malformed."""
    raw = {"Publish": 20, "PublishExpecting": 28, "Fetch": 41, "Stream": 53}
    if request in raw:
        length = raw[request]
        for cut in range(length):
            yield f"cut at {cut}", bytes(cut)
        if request in ("Fetch", "Stream"):
            yield "a byte more", bytes(length + 1)
            yield "unknown flags", bytes(length - 1) + b"\2"
        return
    value = sample(request)
    good = encode(request, value)
    for cut in range(len(good)):
        yield f"cut at {cut}", good[:cut]
    yield "a byte more", good + b"\0"
    yield from spoilt(request, value)
