"""Compares the client's encoding and decoding with the golden vectors, without a network."""

from checks import Mismatch, equal, say
from tidings_client import (
    ANSWER, ANSWER_AND_MORE, ANSWERS, ERRORS, REQUESTS, ProtocolError, Unsupported, crc32c, decode,
    decode_batch, decode_error, decode_fetched, decode_published, decode_taken, encode,
    encode_batch, fetch_body, frame, hello_body, publish_body, publish_expecting_body, record,
    stream_body,
)  # fmt: skip

# Bodies that are not control bodies.
RAW = {
    "Publish.request", "Publish.answer", "PublishExpecting.request", "PublishExpecting.answer",
    "Fetch.request", "Fetch.answer", "Stream.request", "Stream.answer", "TakeRecords.answer",
}  # fmt: skip

# What some of the vectors hold, so that they are not only read but understood.
SAMPLES = {
    "Lookup.request": {"name": "quakes.ci", "local_only": True},
    "ListTopics.request": {"pattern": "quakes.*", "after": "quakes.ci", "limit": 100},
    "PlaceTopic.request": {"name": "quakes.ci", "on": "peer-1"},
    "CreateTopic.request": {
        "name": "quakes.ci",
        "settings": {
            "durability": "fsync",
            "retention": {
                "age_ms": None,
                "bytes": None,
                "records": None,
                "interest": False,
            },
            "when_full": "discard-oldest",
            "ids": {"for_ms": None, "max": None},
            "compaction": {"on": False, "tombstone_age_ms": None},
        },
        "if_not_exists": True,
    },
    "DescribeTopic.request": {"name": "quakes.ci"},
    "FindOffset.request": {"topic": "quakes.ci", "position": ("Back", 10)},
    "CreateSubscription.request": {
        "topic": "quakes.ci",
        "name": "billing",
        "from": "Beginning",
        "if_not_exists": False,
        "expire_ms": 300_000,
    },
    "SeekSubscription.request": {
        "topic": "quakes.ci",
        "name": "billing",
        "to": ("Offset", 40),
        "dry_run": True,
    },
    "Commit.request": {
        "topic": bytes(range(0x10, 0x20)),
        "name": "billing",
        "generation": 5,
        "offset": 42,
    },
    "SettleRecords.request": {
        "topic": bytes(range(0x10, 0x20)),
        "name": "billing",
        "generation": 5,
        "member": bytes(range(0x50, 0x60)),
        "runs": [
            {"first": 42, "count": 2, "delivery": 1, "verdict": "Ack"},
            {"first": 44, "count": 2, "delivery": 1, "verdict": ("Nak", {"delay_ms": None})},
            {"first": 46, "count": 2, "delivery": 1, "verdict": ("Nak", {"delay_ms": 250})},
            {
                "first": 48,
                "count": 2,
                "delivery": 1,
                "verdict": ("Reject", {"reason": "no such quake"}),
            },
            {"first": 50, "count": 2, "delivery": 1, "verdict": "Extend"},
        ],
    },
}

# The same for answers: some fields each.
PARTS = {
    "Hello.answer": {"role": "peer", "name": "peer-1", "indexes": ["127.0.0.1:7400"]},
    "Lookup.answer": {
        "address": "127.0.0.1:7401",
        "state": "down",
        "since": 1_517_363_399_650,
    },
    "DescribeTopic.answer": {
        "end_offset": 1707,
        "gaps": [{"from": 20, "to": 30, "reason": "lost"}],
    },
    "CreateSubscription.answer": {"committed_offset": 42, "last_commit": None},
    "DescribeConsumerGroup.answer": {"floor": 42, "unsettled": 1600, "dying": 1, "dead": 7},
}


def read_vectors(path):
    vectors, name = {}, None
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            line = line.split("#")[0].strip()
            if line.startswith("["):
                name = line.strip("[]")
                vectors[name] = b""
            elif line:
                vectors[name] += bytes.fromhex(line)
    return vectors


def id_from(first):
    return bytes(range(first, first + 16))


def vector_records():
    at = 1_517_363_399_650
    return [
        record(at, b", ".join([b"magnitude 3.4"] * 10), b"ci38110719"),
        record(at - 2, b"earlier, with headers", None, [("größe", b"3.4"), ("", b"\0\xff")]),
        record(at + 200, b"", b""),
    ]


def kind_of(name):
    """The type of a vector with a control body."""
    request, kind = name.split(".")
    return request if kind == "request" else ANSWERS[request]


def check_bodies(vectors):
    """Every request and every answer: decoded, and encoded again to the same bytes."""
    names = [f"{r}.{kind}" for r in REQUESTS for kind in ("request", "answer")]
    control = [name for name in names if name not in RAW]
    told = [name for name in vectors if name.endswith((".request", ".answer"))]
    equal(sorted(names), sorted(told), "the requests and answers there are")
    for name in control:
        kind, data = kind_of(name), vectors[name]
        equal(encode(kind, decode(kind, data)).hex(), data.hex(), name)
        refuses(kind, data + b"\0", f"{name} and a byte")
        for length in range(len(data)):
            refuses(kind, data[:length], f"{name} cut at {length}")
    for name, value in SAMPLES.items():
        equal(decode(kind_of(name), vectors[name]), value, name)
    for name, part in PARTS.items():
        found = decode(kind_of(name), vectors[name])
        equal({field: found[field] for field in part}, part, name)
    return len(control)


def refuses(kind, data, what):
    try:
        decode(kind, data)
    except ProtocolError:
        return
    raise Mismatch(f"{what} was decoded")


def check_raw(vectors):
    topic, batch = id_from(0x10), encode_batch(vector_records(), id_from(0x40), 7)
    encoded = {
        "frame.hello": frame(REQUESTS["Hello"], 0, hello_body("example 1.0")),
        "frame.ping": frame(REQUESTS["Ping"], 1, b""),
        "frame.ping-answer": frame(REQUESTS["Ping"], 1, b"", flags=ANSWER),
        "Publish.request": publish_body(topic, 4, batch),
        "PublishExpecting.request": publish_expecting_body(topic, 4, 1707, batch),
        "Fetch.request": fetch_body(topic, 4, 20, 1 << 20, 1, 5000, True),
        "Stream.request": stream_body(topic, 4, 20, (1 << 22, 1 << 16), 1 << 20, 300, True),
        "frame.stream-keep-alive": frame(REQUESTS["Stream"], 1, b"", flags=ANSWER_AND_MORE),
        "batch.none": batch,
        "batch.ttl": encode_batch(vector_records(), id_from(0x40), 7, ttl=60_000),
    }
    for name, data in encoded.items():
        equal(data.hex(), vectors[name].hex(), name)
    for name in ("Publish.answer", "PublishExpecting.answer"):
        published = decode_published(vectors[name])
        expected = {"base": 1707, "end": 1710, "durability": "os", "duplicate": True}
        equal(published, expected, name)
    fetched = decode_fetched(vectors["Fetch.answer"])
    ends = (fetched["start"], fetched["end"], fetched["next"])
    equal(ends, (10, 40, 33), "Fetch.answer")
    equal(vectors["Stream.answer"], vectors["Fetch.answer"], "Stream.answer")
    equal(fetched["items"][0], {"from": 20, "to": 30, "reason": 3}, "Fetch.answer")
    found = decode_batch(fetched["items"][1]["batch"])
    equal(found, (vector_records(), id_from(0x40), 7), "the batch of Fetch.answer")
    equal(decode_batch(vectors["batch.ttl"]), found, "batch.ttl")
    gaps = decode_fetched(vectors["Fetch.answer-gaps"])["items"]
    reasons = [{"from": 19 + n, "to": 20 + n, "reason": n} for n in range(1, 7)]
    equal(gaps, reasons, "Fetch.answer-gaps")
    answer = decode_taken(vectors["TakeRecords.answer"])
    equal((answer["ack_deadline"], answer["number"]), (30_000, 6), "TakeRecords.answer")
    (taken,) = answer["items"]
    equal(taken["runs"], [(42, 2, 1), (45, 1, 3)], "TakeRecords.answer")
    equal(decode_batch(taken["batch"])[0], vector_records(), "the batch of TakeRecords.answer")
    return len(encoded)


def check_errors(vectors):
    names = [name for name in vectors if name.startswith("error.")]
    for name in names:
        error = decode_error(vectors[name])
        equal("error." + error.name, name, "the error")
        equal(bool(error.fields), ERRORS[error.code][3] != "", f"fields of {name}")
    equal(len(names), len(ERRORS), "the number of errors")
    fields = decode_error(vectors["error.NotHosted"]).fields
    expected = {"name": "quakes.ci", "peer": "peer-1", "address": "127.0.0.1:7401", "epoch": 4}
    equal(fields, expected, "error.NotHosted")
    unknown = {"code": 60_000, "retryable": True, "message": "newer", "detail": b"\xff" * 9}
    error = decode_error(encode("ErrorBody", unknown))
    equal((error.name, error.retryable), ("unknown", True), "an error of tomorrow")
    return len(names)


def check_refused(vectors):
    names = [name for name in vectors if name.startswith("refused.")]
    for name in names:
        try:
            decode_batch(vectors[name])
        except (ProtocolError, Unsupported):
            continue
        raise Mismatch(f"{name} was accepted")
    return len(names)


def self_test(path):
    vectors = read_vectors(path)
    equal(crc32c(b"123456789"), 0xE3069283, "the CRC-32C of 123456789")
    say("bodies", f"{check_bodies(vectors)} requests and answers, both ways")
    say("raw", f"{check_raw(vectors)} frames, publishes, fetches and batches")
    for packed in ("lz4", "zstd"):
        try:
            decode_batch(vectors[f"batch.{packed}"])
        except Unsupported as what:
            equal(str(what), packed, "what is not supported")
        else:
            raise Mismatch(f"batch.{packed} was decoded")
    say("compression", "lz4 and zstd are reported as not supported")
    say("errors", f"{check_errors(vectors)} errors with their fields")
    say("refused", f"{check_refused(vectors)} bad batches")
