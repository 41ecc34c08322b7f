#!/usr/bin/env python3
"""A small Tidings client, written from docs/protocol.md alone.

It proves that the page says enough: nothing here was taken from the Rust
source, and only Python's standard library (3.9 or later) is used.

    tidings_client.py ADDRESS [--topic NAME]

connects to an index server or to any peer, has a topic placed and creates it,
publishes with a producer id and repeats a batch on purpose, fetches with a long
poll, keeps a subscription, and provokes errors; then it deletes the topic.
One line for each step; status 1 at the first thing that is not as the page says.

    tidings_client.py --self-test data/fixtures/protocol/vectors.txt

compares its encoding and decoding with the golden vectors, without a network.

What it cannot do: batches packed with lz4 or zstd. The standard library has
neither; such a batch is an `Unsupported` error, never a wrong answer.
"""

import argparse
import os
import socket
import struct
import sys
import time

# Section 4: the requests used here.
HELLO, PING, LOOKUP, LIST_TOPICS, PLACE_TOPIC = 1, 2, 10, 11, 13
CREATE_TOPIC, DELETE_TOPIC, DESCRIBE_TOPIC, FIND_OFFSET = 40, 41, 42, 48
PUBLISH, FETCH = 50, 51
CREATE_SUBSCRIPTION, DESCRIBE_SUBSCRIPTION, SEEK_SUBSCRIPTION, COMMIT = 60, 62, 64, 65

# Section 2: the flags of a frame.
REQUEST, ANSWER, ERROR = 0, 1, 3

# Section 8: code -> (index of the detail, name, fields of the detail).
ERRORS = {
    1: (0, "BadFrame", "reason string"),
    2: (1, "UnknownApi", "api u16"),
    3: (2, "UnsupportedVersion", "what string, given u16, min u16, max u16"),
    4: (3, "HelloRequired", ""),
    5: (4, "FrameTooLarge", "bytes u64, max u64"),
    6: (5, "Malformed", "what string, reason string"),
    7: (6, "TooManyConnections", "max u64"),
    8: (7, "WrongRole", "request string, answered_by string, this_is string"),
    9: (8, "ShuttingDown", ""),
    20: (9, "TopicNotFound", "name string"),
    21: (10, "UnknownTopicId", "id id"),
    22: (11, "TopicExists", "name string"),
    23: (12, "NotHosted", "name string, peer string, address string, epoch u32"),
    24: (13, "StaleEpoch", "given u32, current u32"),
    25: (14, "TopicQuarantined", "name string, end u64"),
    26: (15, "NameConflict", "name string, holder string"),
    27: (16, "TooManyTopics", "max u64"),
    30: (17, "BadBatch", "reason string"),
    31: (18, "MessageTooLarge", "bytes u64, max u64"),
    32: (19, "SequenceGap", "expected u64, given u64"),
    33: (20, "DuplicateTooOld", "given u64, oldest u64"),
    34: (21, "UnknownProducer", ""),
    35: (22, "DiskReserve", "free_bytes u64, needed_bytes u64"),
    40: (23, "OffsetOutOfRange", "requested u64, start u64, end u64"),
    41: (24, "Damaged", "from u64, to u64"),
    50: (25, "SubscriptionNotFound", "topic string, name string"),
    51: (26, "SubscriptionExists", "topic string, name string"),
    52: (27, "StaleGeneration", "given u64, current u64"),
    53: (28, "CommitPastEnd", "offset u64, end u64"),
    54: (29, "TooManySubscriptions", "max u64"),
    60: (30, "IndexUnavailable", "reason string"),
    61: (31, "PeerNotFound", "name string"),
    62: (32, "NoPeerOnline", ""),
    63: (33, "Displaced", ""),
    64: (34, "NotRegistered", ""),
    65: (35, "PeerNameTaken", "name string"),
    66: (36, "ClaimPending", "name string"),
    67: (37, "PeerNotOnline", "peer string, state string"),
    80: (38, "StorageStopped", "reason string"),
    81: (39, "InvalidArgument", "what string, reason string"),
    82: (41, "Unanswered", ""),
}


class ProtocolError(Exception):
    """The other side did not keep to the page."""


class Unsupported(Exception):
    """The page allows it, this client cannot do it."""


class ApiError(Exception):
    """An error that was answered."""

    def __init__(self, code, retryable, message, name, fields):
        super().__init__(f"{name} ({code}): {message}")
        self.code, self.retryable, self.name, self.fields = code, retryable, name, fields


# --- section 5: control bodies ------------------------------------------------


class Writer:
    """Writes the types of section 5, one after the other."""

    def __init__(self):
        self.parts = []

    def _pack(self, form, value):
        self.parts.append(struct.pack(form, value))
        return self

    def u16(self, value):
        return self._pack("<H", value)

    def u32(self, value):
        return self._pack("<I", value)

    def u64(self, value):
        return self._pack("<Q", value)

    def bool(self, value):
        return self._pack("<?", value)

    def string(self, text):
        data = text.encode()
        self.u64(len(data))
        return self.raw(data)

    def raw(self, data):
        self.parts.append(data)
        return self

    def option(self, write, value):
        """`T?`; `write` is the method for a T."""
        self.bool(value is not None)
        if value is not None:
            write(value)
        return self

    def position(self, position):
        """("Beginning",), ("End",), ("Offset", n), ("Back", n) or ("Time", ms)."""
        kind = ("Beginning", "End", "Offset", "Back", "Time").index(position[0])
        self.u32(kind)
        if kind >= 2:
            self._pack("<q" if kind == 4 else "<Q", position[1])
        return self

    def done(self):
        return b"".join(self.parts)


class Reader:
    """Reads the types of section 5; what is missing or left over is an error."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def raw(self, count):
        if count > len(self.data) - self.at:
            raise ProtocolError("a body ends too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def _unpack(self, form):
        return struct.unpack(form, self.raw(struct.calcsize(form)))[0]

    def u8(self):
        return self._unpack("<B")

    def u16(self):
        return self._unpack("<H")

    def u32(self):
        return self._unpack("<I")

    def u64(self):
        return self._unpack("<Q")

    def i64(self):
        return self._unpack("<q")

    def bool(self):
        value = self.u8()
        if value > 1:
            raise ProtocolError(f"a bool of {value}")
        return value == 1

    def bytes(self):
        return self.raw(self.u64())

    def string(self):
        return self.bytes().decode()

    def id(self):
        return self.raw(16)

    def option(self, read):
        return read() if self.bool() else None

    def list(self, read):
        return [read() for _ in range(self.u64())]

    def enum(self, *names):
        number = self.u32()
        if number >= len(names):
            raise ProtocolError(f"variant {number} of {names}")
        return names[number]

    def rest(self):
        return self.raw(len(self.data) - self.at)

    def end(self, value):
        if self.at != len(self.data):
            raise ProtocolError(f"{len(self.data) - self.at} bytes left over in a body")
        return value


def decode_error(body):
    reader = Reader(body)
    code, retryable = reader.u16(), reader.bool()
    message, detail = reader.string(), reader.bytes()
    reader.end(None)
    index, name, layout = ERRORS.get(code, (None, "unknown", ""))
    fields = {}
    if name != "unknown" and detail:
        reader = Reader(detail)
        if reader.u32() != index:
            raise ProtocolError(f"the detail of {name} has another index")
        for field in filter(None, layout.split(", ")):
            field, kind = field.split(" ")
            fields[field] = getattr(reader, kind)()
        reader.end(None)
    return ApiError(code, retryable, message, name, fields)


def hello_body(client="tidings_client.py 1", oldest=1, newest=1):
    return Writer().raw(b"TIDE").u16(oldest).u16(newest).string(client).u64(0).done()


def decode_hello_answer(body):
    r = Reader(body)
    return r.end(
        {
            "protocol": r.u16(),
            "role": r.enum("index", "peer"),
            "node": r.id(),
            "name": r.string(),
            "server": r.string(),
            "features": r.u64(),
            "frame_bytes_max": r.u32(),
            "message_bytes_max": r.u32(),
            "requests_unanswered_max": r.u32(),
            "publishes_unanswered_max": r.u32(),
            "indexes": r.list(r.string),
        }
    )


def read_location(r):
    return {
        "name": r.string(),
        "id": r.id(),
        "epoch": r.u32(),
        "peer": r.id(),
        "peer_name": r.string(),
        "address": r.string(),
        "state": r.enum("online", "offline", "down"),
        "since": r.i64(),
    }


def read_gap(r):
    return {
        "from": r.u64(),
        "to": r.u64(),
        "reason": r.enum("discarded", "lost", "damaged"),
    }


def read_topic(r):
    return {
        "name": r.string(),
        "id": r.id(),
        "epoch": r.u32(),
        "durability": r.enum("fsync", "os"),
        "retain_age_ms": r.option(r.u64),
        "retain_bytes": r.option(r.u64),
        "retain_records": r.option(r.u64),
        "start_offset": r.u64(),
        "end_offset": r.u64(),
        "durable_end_offset": r.u64(),
        "bytes": r.u64(),
        "created": r.i64(),
        "last_append": r.option(r.i64),
        "subscriptions": r.u64(),
        "quarantined": r.bool(),
        "conflict": r.bool(),
        "gaps": r.list(lambda: read_gap(r)),
    }


def read_subscription(r):
    return {
        "topic": r.string(),
        "topic_id": r.id(),
        "epoch": r.u32(),
        "name": r.string(),
        "committed_offset": r.u64(),
        "generation": r.u64(),
        "start_offset": r.u64(),
        "end_offset": r.u64(),
        "lag_ms": r.u64(),
        "created": r.i64(),
        "last_commit": r.option(r.i64),
    }


def create_topic_body(name, durability, retention, if_not_exists):
    writer = Writer().string(name).u32(("fsync", "os").index(durability))
    for bound in retention:
        writer.option(writer.u64, bound)
    return writer.bool(if_not_exists).done()


# --- section 7: record batches ------------------------------------------------

BATCH_HEADER = struct.Struct("<IHBBIIIIqq16sQ")
BATCH_MAGIC = 0x4254


def _crc_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


CRC_TABLE = _crc_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def zigzag(value):
    return 2 * value if value >= 0 else -2 * value - 1


def read_varint(reader):
    value = 0
    for index in range(10):
        byte = reader.u8()
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if (byte == 0 and index > 0) or value >= 1 << 64:
                raise ProtocolError("a varint is not minimal, or above 64 bits")
            return value
    raise ProtocolError("a varint does not end")


def record(timestamp, value, key=None, headers=()):
    return {"timestamp": timestamp, "key": key, "headers": list(headers), "value": value}


def encode_record(item, base):
    body = [b"\0", varint(zigzag(item["timestamp"] - base))]
    key = item["key"]
    body += [b"\0"] if key is None else [varint(len(key) + 1), key]
    body.append(varint(len(item["headers"])))
    for name, value in item["headers"]:
        name = name.encode()
        body += [varint(len(name)), name, varint(len(value)), value]
    body.append(item["value"])
    body = b"".join(body)
    return varint(len(body)) + body


def encode_batch(records, producer=bytes(16), first_sequence=0):
    """A batch without compression."""
    base = records[0]["timestamp"]
    newest = max(item["timestamp"] for item in records)
    payload = b"".join(encode_record(item, base) for item in records)
    header = BATCH_HEADER.pack(
        0, BATCH_MAGIC, 1, 0, len(payload), len(records), len(payload), 0,
        base, newest, producer, first_sequence,
    )  # fmt: skip
    rest = header[4:] + payload
    return struct.pack("<I", crc32c(rest)) + rest


def decode_record(reader, base):
    body = Reader(reader.raw(read_varint(reader)))
    if body.u8() != 0:
        raise ProtocolError("a record has attributes")
    delta = read_varint(body)
    delta = delta >> 1 if delta % 2 == 0 else -(delta >> 1) - 1
    length = read_varint(body)
    key = body.raw(length - 1) if length else None
    count = read_varint(body)
    if count > 256 or length > 65_537:
        raise ProtocolError("too many headers, or too long a key")
    headers = []
    for _ in range(count):
        name = body.raw(read_varint(body)).decode()
        headers.append((name, body.raw(read_varint(body))))
    timestamp = base + delta
    if not -(1 << 63) <= timestamp < 1 << 63:
        raise ProtocolError("a timestamp is out of range")
    return record(timestamp, body.rest(), key, headers)


def decode_batch(data):
    """The records, the producer id and the first sequence of a batch."""
    if len(data) < BATCH_HEADER.size:
        raise ProtocolError("shorter than the header of a batch")
    (crc, magic, version, attributes, length, count, unpacked, reserved,
     base, newest, producer, sequence) = BATCH_HEADER.unpack_from(data)  # fmt: skip
    if (magic, version, reserved) != (BATCH_MAGIC, 1, 0) or attributes > 2:
        raise ProtocolError("not a batch of version 1")
    if length != len(data) - BATCH_HEADER.size or not 1 <= count <= 65_536:
        raise ProtocolError("a batch's length or count is false")
    if crc != crc32c(data[4:]):
        raise ProtocolError("a batch's checksum is wrong")
    if attributes:
        raise Unsupported(("lz4", "zstd")[attributes - 1])
    if length != unpacked:
        raise ProtocolError("a batch's unpacked length is false")
    reader = Reader(data[BATCH_HEADER.size :])
    try:
        records = [decode_record(reader, base) for _ in range(count)]
    except UnicodeDecodeError as error:
        raise ProtocolError("the name of a header is not UTF-8") from error
    if newest != max(item["timestamp"] for item in records):
        raise ProtocolError("a batch's max timestamp is false")
    return reader.end((records, producer, sequence))


# --- section 6: publish and fetch -----------------------------------------------


def publish_body(topic, epoch, batch):
    return topic + struct.pack("<I", epoch) + batch


def decode_published(body):
    r = Reader(body)
    base, end, durability, duplicate = r.u64(), r.u64(), r.u8(), r.u8()
    if durability > 1 or duplicate > 1:
        raise ProtocolError("an acknowledgement with unknown values")
    return r.end(
        {
            "base": base,
            "end": end,
            "durability": ("fsync", "os")[durability],
            "duplicate": duplicate == 1,
        }
    )


def fetch_body(topic, epoch, offset, max_bytes=1 << 20, min_bytes=0, max_wait=0, pass_damage=False):
    return topic + struct.pack(
        "<IQIIIB", epoch, offset, max_bytes, min_bytes, max_wait, pass_damage
    )


def decode_fetched(body):
    r = Reader(body)
    fetched = {"start": r.u64(), "end": r.u64(), "next": r.u64(), "items": []}
    while r.at < len(body):
        kind = r.u8()
        if kind == 1:
            item = {"base": r.u64(), "epoch": r.u32(), "append_time": r.i64()}
            item["batch"] = r.raw(r.u32())
        elif kind == 2:
            item = {"from": r.u64(), "to": r.u64(), "reason": r.u8()}
            if not 1 <= item["reason"] <= 3:
                raise ProtocolError(f"gap reason {item['reason']}")
        else:
            raise ProtocolError(f"item kind {kind}")
        fetched["items"].append(item)
    return fetched


# --- sections 2 and 3: frames and the hello ---------------------------------------


def frame(api, correlation, body, version=1, flags=REQUEST):
    return struct.pack("<IHBBI", 8 + len(body), api, version, flags, correlation) + body


class Connection:
    """One connection, with the hello behind it unless `greet` is false."""

    def __init__(self, address, greet=True):
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host.strip("[]"), int(port)), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.correlation, self.early, self.frame_bytes_max = 0, {}, 4096
        self.hello = None
        if greet:
            self.socket.sendall(frame(HELLO, 0, hello_body()))
            self.hello = decode_hello_answer(self._wait(HELLO, 0, 1))
            self.frame_bytes_max = self.hello["frame_bytes_max"]

    def close(self):
        self.socket.close()

    def _read(self, count):
        data = bytearray()
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise ConnectionError("the node closed the connection")
            data += piece
        return bytes(data)

    def read_frame(self):
        (length,) = struct.unpack("<I", self._read(4))
        if not 8 <= length <= self.frame_bytes_max:
            raise ProtocolError(f"a frame of {length} bytes")
        data = self._read(length)
        return (*struct.unpack("<HBBI", data[:8]), data[8:])

    def is_closed(self):
        """Whether nothing more comes but the end."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def send(self, api, body=b"", version=1):
        """Sends a request; several may be on their way."""
        self.correlation += 1
        self.socket.sendall(frame(api, self.correlation, body, version))
        return api, self.correlation, version

    def _wait(self, api, correlation, version):
        while correlation not in self.early:
            found_api, found_version, flags, found, body = self.read_frame()
            if flags not in (ANSWER, ERROR):
                raise ProtocolError(f"flags {flags} from a node")
            if found_api == HELLO and flags == ERROR:
                raise decode_error(body)  # section 2: it ends the connection
            self.early[found] = (found_api, found_version, flags, body)
        found_api, found_version, flags, body = self.early.pop(correlation)
        if (found_api, found_version) != (api, version):
            raise ProtocolError("an answer to another request has this correlation")
        if flags == ERROR:
            raise decode_error(body)
        return body

    def wait(self, sent):
        """The answer to what `send` sent."""
        return self._wait(*sent)

    def call(self, api, body=b"", version=1):
        return self.wait(self.send(api, body, version))

    # Section 5, the requests this client uses.

    def lookup(self, name):
        r = Reader(self.call(LOOKUP, Writer().string(name).bool(False).done()))
        return r.end(read_location(r))

    def list_topics(self, pattern, after=None, limit=1000):
        writer = Writer().string(pattern)
        writer.option(writer.string, after).u32(limit)
        r = Reader(self.call(LIST_TOPICS, writer.done()))
        return r.end((r.list(lambda: read_location(r)), r.bool()))

    def place_topic(self, name, on=None):
        writer = Writer().string(name)
        r = Reader(self.call(PLACE_TOPIC, writer.option(writer.string, on).done()))
        return r.end({"peer": r.id(), "name": r.string(), "address": r.string()})

    def create_topic(self, name, durability="fsync", if_not_exists=False):
        body = create_topic_body(name, durability, (None, None, None), if_not_exists)
        r = Reader(self.call(CREATE_TOPIC, body))
        return r.end((read_topic(r), r.bool()))

    def describe_topic(self, name):
        r = Reader(self.call(DESCRIBE_TOPIC, Writer().string(name).done()))
        return r.end(read_topic(r))

    def delete_topic(self, name, topic):
        writer = Writer().string(name)
        Reader(self.call(DELETE_TOPIC, writer.option(writer.raw, topic).done())).end(None)

    def find_offset(self, name, position):
        r = Reader(self.call(FIND_OFFSET, Writer().string(name).position(position).done()))
        found = {"id": r.id(), "epoch": r.u32(), "offset": r.u64()}
        return r.end({**found, "start": r.u64(), "end": r.u64()})

    def publish(self, topic, batch):
        body = publish_body(topic["id"], topic["epoch"], batch)
        return decode_published(self.call(PUBLISH, body))

    def fetch(self, topic, offset, **options):
        body = fetch_body(topic["id"], topic["epoch"], offset, **options)
        return decode_fetched(self.call(FETCH, body))

    def create_subscription(self, topic, name, position, if_not_exists=False):
        writer = Writer().string(topic).string(name).position(position)
        r = Reader(self.call(CREATE_SUBSCRIPTION, writer.bool(if_not_exists).done()))
        return r.end(read_subscription(r))

    def describe_subscription(self, topic, name):
        r = Reader(self.call(DESCRIBE_SUBSCRIPTION, Writer().string(topic).string(name).done()))
        return r.end(read_subscription(r))

    def seek(self, topic, name, position, dry_run=False):
        writer = Writer().string(topic).string(name).position(position).bool(dry_run)
        r = Reader(self.call(SEEK_SUBSCRIPTION, writer.done()))
        return r.end((r.u64(), r.u64(), read_subscription(r)))

    def commit(self, topic, name, generation, offset):
        writer = Writer().raw(topic["id"]).string(name).u64(generation).u64(offset)
        r = Reader(self.call(COMMIT, writer.done()))
        return r.end(r.u64())


def records_from(connection, topic, offset, end):
    """All records in [offset, end), by offset; a gap is an error here."""
    records = []
    while offset < end:
        fetched = connection.fetch(topic, offset, max_bytes=200, min_bytes=1, max_wait=5000)
        check(fetched["items"], "a fetch below the end brings something")
        for item in fetched["items"]:
            check("batch" in item, f"no gap was expected: {item}")
            for index, found in enumerate(decode_batch(item["batch"])[0]):
                if item["base"] + index >= offset:
                    equal(item["base"] + index, offset, "offsets are dense")
                    records.append(found)
                    offset += 1
        equal(fetched["next"], offset, "next offset is where the items end")
    return records


# --- the proof ----------------------------------------------------------------------


class Mismatch(Exception):
    """Something is not as the page says."""


def check(holds, what):
    if not holds:
        raise Mismatch(what)


def equal(found, expected, what):
    check(found == expected, f"{what}: expected {expected!r}, found {found!r}")


def fails(name, call, *arguments, **options):
    """Expects an error of that name; returns its fields."""
    try:
        call(*arguments, **options)
    except ApiError as error:
        equal(error.name, name, "the error")
        return error.fields
    raise Mismatch(f"expected {name}, and it was done")


def say(step, what):
    print(f"ok  {step:<14} {what}", flush=True)


class Proof:
    """The steps, in order; each leaves what the next ones need."""

    def __init__(self, address, name):
        self.address, self.name = address, name
        self.producer, self.sent = os.urandom(16), []
        self.steps = [
            self.greet, self.strangers, self.odd_requests, self.missing_topic, self.create,
            self.publish, self.retry, self.refused, self.read, self.long_poll,
            self.places, self.subscribe, self.seek, self.resume, self.delete,
        ]  # fmt: skip

    def run(self):
        for step in self.steps:
            say(step.__name__, step())

    def greet(self):
        self.entry = Connection(self.address)
        hello = self.entry.hello
        equal(hello["protocol"], 1, "the protocol")
        equal(self.entry.call(PING), b"", "the answer to a ping")
        return f"{hello['role']} {hello['name']}, {hello['server']}, at {self.address}"

    def strangers(self):
        """Connections that begin wrongly are told so and closed."""
        body = Writer().string(self.name).bool(False).done()
        for sent, error in (
            (frame(LOOKUP, 1, body), "HelloRequired"),
            (frame(HELLO, 0, hello_body(oldest=900, newest=901)), "UnsupportedVersion"),
            (struct.pack("<I", 4) + b"1234", "BadFrame"),
            (struct.pack("<I", 1 << 30), "FrameTooLarge"),
        ):
            stranger = Connection(self.address, greet=False)
            stranger.socket.sendall(sent)
            found = stranger.read_frame()
            equal((found[0], found[2]), (HELLO, ERROR), f"the frame of {error}")
            equal(decode_error(found[4]).name, error, "the error")
            check(stranger.is_closed(), f"after {error} the connection is closed")
            stranger.close()
        return "no hello, a version of tomorrow, a short and a huge frame are refused"

    def odd_requests(self):
        """Wrong requests are answered, and the connection goes on."""
        equal(fails("UnknownApi", self.entry.call, 9999)["api"], 9999, "the number")
        fails("UnsupportedVersion", self.entry.call, PING, version=99)
        fails("Malformed", self.entry.call, PING, b"\0")
        fails("Malformed", self.entry.call, LOOKUP, Writer().string("a/b").bool(False).done())
        equal(self.entry.call(PING), b"", "the answer to a ping")
        return "unknown number, unknown version, trailing byte, bad name: answered, not closed"

    def missing_topic(self):
        fields = fails("TopicNotFound", self.entry.lookup, self.name)
        equal(fields["name"], self.name, "the name in the error")
        return f"{self.name} does not exist yet"

    def create(self):
        placement = self.entry.place_topic(self.name)
        self.host_address = placement["address"]
        self.host = Connection(self.host_address)
        equal(self.host.hello["role"], "peer", "the role of the host")
        equal(self.host.hello["node"], placement["peer"], "the identity of the host")
        topic, created = self.host.create_topic(self.name)
        check(created, "this request made it")
        equal((topic["start_offset"], topic["end_offset"]), (0, 0), "offsets of a new topic")
        again, created = self.host.create_topic(self.name, if_not_exists=True)
        equal((created, again["id"]), (False, topic["id"]), "creating it again")
        fails("TopicExists", self.host.create_topic, self.name)
        found = self.entry.lookup(self.name)
        equal((found["id"], found["address"]), (topic["id"], self.host_address), "the lookup")
        listed, _ = self.entry.list_topics(self.name)
        equal([item["id"] for item in listed], [topic["id"]], "the list")
        self.topic = found
        return f"{self.name} on {placement['name']} at {self.host_address}"

    def batch(self, first, count):
        now = int(time.time() * 1000)
        records = [
            record(
                now + n,
                f"message {n}".encode() * 5,
                key=(None, b"", b"key")[n % 3],
                headers=[("größe", bytes([n])), ("größe", b"")][: n % 3],
            )
            for n in range(first, first + count)
        ]
        return records, encode_batch(records, self.producer, first)

    def publish(self):
        """Three batches on their way at once."""
        batches = [self.batch(first, 4) for first in (0, 4, 8)]
        bodies = [publish_body(self.topic["id"], self.topic["epoch"], b) for _, b in batches]
        waiting = [self.host.send(PUBLISH, body) for body in bodies]
        for first, sent in zip((0, 4, 8), waiting):
            answer = decode_published(self.host.wait(sent))
            expected = {"base": first, "end": first + 4, "durability": "fsync", "duplicate": False}
            equal(answer, expected, "the acknowledgement")
        self.sent = [item for records, _ in batches for item in records]
        self.second = batches[1][1]
        return "3 batches pipelined, offsets [0, 12), fsync"

    def retry(self):
        """As after a lost answer: the same batch again, on another connection."""
        other = Connection(self.host_address)
        answer = other.publish(self.topic, self.second)
        expected = {"base": 4, "end": 8, "durability": "fsync", "duplicate": True}
        equal(answer, expected, "the acknowledgement of a batch sent twice")
        fields = fails("SequenceGap", other.publish, self.topic, self.batch(20, 1)[1])
        equal(fields, {"expected": 12, "given": 20}, "the gap")
        stranger = encode_batch([record(0, b"x")], os.urandom(16), 5)
        fails("UnknownProducer", other.publish, self.topic, stranger)
        equal(other.describe_topic(self.name)["end_offset"], 12, "the end")
        other.close()
        return "the same batch again is at [4, 8) still; a gap and a stranger are refused"

    def refused(self):
        """Batches that are not what they say, and requests for another time."""
        good = encode_batch([record(0, b"payload")])
        flipped = bytearray(good)
        flipped[-1] ^= 1
        fails("BadBatch", self.host.publish, self.topic, bytes(flipped))
        fails("BadBatch", self.host.publish, self.topic, good[:-1])
        fails("BadBatch", self.host.publish, self.topic, b"")
        largest = self.host.hello["message_bytes_max"]
        large = encode_batch([record(0, bytes(largest + 1))])
        fields = fails("MessageTooLarge", self.host.publish, self.topic, large)
        equal(fields, {"bytes": largest + 1, "max": largest}, "the sizes")
        stale = {**self.topic, "epoch": self.topic["epoch"] + 7}
        fails("StaleEpoch", self.host.publish, stale, good)
        fails("UnknownTopicId", self.host.fetch, {**self.topic, "id": os.urandom(16)}, 0)
        equal(self.host.describe_topic(self.name)["end_offset"], 12, "the end")
        return "flipped, cut, empty, too large, stale epoch, unknown id: nothing stored"

    def read(self):
        equal(records_from(self.host, self.topic, 0, 12), self.sent, "what was published")
        equal(records_from(self.host, self.topic, 6, 12), self.sent[6:], "from inside a batch")
        fields = fails("OffsetOutOfRange", self.host.fetch, self.topic, 13)
        equal(fields, {"requested": 13, "start": 0, "end": 12}, "the range")
        return "12 records as published; from inside a batch; past the end is an error"

    def long_poll(self):
        began = time.monotonic()
        fetched = self.host.fetch(self.topic, 12, min_bytes=1, max_wait=300)
        waited = time.monotonic() - began
        equal(fetched["items"], [], "items at the end")
        check(0.25 < waited < 5, f"it waits for 0.3 s, not {waited:.3f} s")
        reader = Connection(self.host_address)
        body = fetch_body(self.topic["id"], self.topic["epoch"], 12, min_bytes=1, max_wait=20_000)
        waiting = reader.send(FETCH, body)
        reader.call(PING)  # answered although the fetch before it waits
        records, batch = self.batch(12, 2)
        began = time.monotonic()
        self.host.publish(self.topic, batch)
        fetched = decode_fetched(reader.wait(waiting))
        waited = time.monotonic() - began
        check(waited < 10, f"a record ends the wait at once, not after {waited:.3f} s")
        found = [r for item in fetched["items"] for r in decode_batch(item["batch"])[0]]
        equal((found, fetched["next"]), (records, 14), "what ended the wait")
        self.sent += records
        reader.close()
        return "waits when there is nothing, ends when a record comes, others overtake it"

    def places(self):
        middle = self.sent[5]["timestamp"] - 60_000
        for position, offset in (
            (("Beginning",), 0),
            (("End",), 14),
            (("Offset", 7), 7),
            (("Back", 3), 11),
            (("Back", 99), 0),
            (("Time", middle), 0),
        ):
            found = self.host.find_offset(self.name, position)
            expected = {"id": self.topic["id"], "epoch": self.topic["epoch"], "offset": offset}
            equal(found, {**expected, "start": 0, "end": 14}, f"the offset of {position}")
        return "beginning, end, offset, back and time become offsets"

    def subscribe(self):
        made = self.host.create_subscription(self.name, "proof", ("Beginning",))
        equal((made["committed_offset"], made["end_offset"]), (0, 14), "a new subscription")
        fails("SubscriptionExists", self.host.create_subscription, self.name, "proof", ("End",))
        again = self.host.create_subscription(self.name, "proof", ("End",), if_not_exists=True)
        equal(again["committed_offset"], 0, "the existing one")
        generation = made["generation"]
        equal(self.host.commit(self.topic, "proof", generation, 6), 6, "the commit")
        equal(self.host.commit(self.topic, "proof", generation, 3), 6, "a lower commit")
        fields = fails("CommitPastEnd", self.host.commit, self.topic, "proof", generation, 15)
        equal(fields, {"offset": 15, "end": 14}, "the ends")
        fails("SubscriptionNotFound", self.host.describe_subscription, self.name, "nobody")
        return "made, committed at 6, neither back nor past the end"

    def seek(self):
        before = self.host.describe_subscription(self.name, "proof")
        moves = self.host.seek(self.name, "proof", ("Back", 1), dry_run=True)
        equal(moves[:2], (6, 13), "what a seek would do")
        after_dry_run = self.host.describe_subscription(self.name, "proof")
        equal(after_dry_run["generation"], before["generation"], "after a dry run")
        moves = self.host.seek(self.name, "proof", ("Offset", 9))
        equal(moves[:2], (6, 9), "what the seek did")
        now = moves[2]["generation"]
        check(now > before["generation"], "a seek raises the generation")
        fields = fails(
            "StaleGeneration", self.host.commit, self.topic, "proof", before["generation"], 12
        )
        equal(fields, {"given": before["generation"], "current": now}, "the generations")
        return "moved to 9; a late commit misses"

    def resume(self):
        """As a subscriber that was restarted."""
        self.host.close()
        self.host = Connection(self.host_address)
        stands = self.host.describe_subscription(self.name, "proof")
        offset = stands["committed_offset"]
        equal(offset, 9, "where it stands")
        topic = {"id": stands["topic_id"], "epoch": stands["epoch"]}
        records = records_from(self.host, topic, offset, stands["end_offset"])
        equal(records, self.sent[9:], "what it had not confirmed")
        committed = self.host.commit(topic, "proof", stands["generation"], stands["end_offset"])
        stands = self.host.describe_subscription(self.name, "proof")
        equal((committed, stands["committed_offset"], stands["lag_ms"]), (14, 14, 0), "the end")
        return "the 5 records not confirmed come again, and nothing else"

    def delete(self):
        fails("TopicNotFound", self.host.delete_topic, self.name, os.urandom(16))
        self.host.delete_topic(self.name, self.topic["id"])
        fails("TopicNotFound", self.entry.lookup, self.name)
        fails("UnknownTopicId", self.host.fetch, self.topic, 0)
        return f"{self.name} is gone"


# --- the vectors ----------------------------------------------------------------------


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


def encoded_vectors():
    """What this client encodes, by the name of the vector."""
    topic = id_from(0x10)
    batch = encode_batch(vector_records(), id_from(0x40), 7)
    quakes = Writer().string("quakes.ci")
    listing = Writer().string("quakes.*")
    place = Writer().string("quakes.ci")
    delete = Writer().string("quakes.ci")
    both = Writer().string("quakes.ci").string("billing").done()
    commit = Writer().raw(topic).string("billing").u64(5).u64(42)
    return {
        "frame.hello": frame(HELLO, 0, hello_body("example 1.0")),
        "frame.ping": frame(PING, 1, b""),
        "frame.ping-answer": frame(PING, 1, b"", flags=ANSWER),
        "Hello.request": hello_body("example 1.0"),
        "Lookup.request": Writer().string("quakes.ci").bool(True).done(),
        "ListTopics.request": listing.option(listing.string, "quakes.ci").u32(100).done(),
        "PlaceTopic.request": place.option(place.string, "peer-1").done(),
        "CreateTopic.request": create_topic_body("quakes.ci", "fsync", (None,) * 3, True),
        "DescribeTopic.request": quakes.done(),
        "DeleteTopic.request": delete.option(delete.raw, topic).done(),
        "FindOffset.request": Writer().string("quakes.ci").position(("Back", 10)).done(),
        "CreateSubscription.request": both + Writer().position(("Beginning",)).bool(False).done(),
        "DescribeSubscription.request": both,
        "SeekSubscription.request": both + Writer().position(("Offset", 40)).bool(True).done(),
        "Commit.request": commit.done(),
        "Publish.request": publish_body(topic, 4, batch),
        "Fetch.request": fetch_body(topic, 4, 20, 1 << 20, 1, 5000, True),
        "batch.none": batch,
    }


def check_answers(vectors):
    def read(name, reading):
        reader = Reader(vectors[name])
        return reader.end(reading(reader))

    hello = decode_hello_answer(vectors["Hello.answer"])
    equal((hello["role"], hello["name"]), ("peer", "peer-1"), "Hello.answer")
    equal(hello["indexes"], ["127.0.0.1:7400"], "Hello.answer")
    location = read("Lookup.answer", read_location)
    found = (location["address"], location["state"], location["since"])
    equal(found, ("127.0.0.1:7401", "down", 1_517_363_399_650), "Lookup.answer")
    topic = read("DescribeTopic.answer", read_topic)
    found = (topic["durability"], topic["retain_bytes"], topic["end_offset"])
    equal(found, ("os", None, 1707), "DescribeTopic.answer")
    equal(topic["gaps"], [{"from": 20, "to": 30, "reason": "lost"}], "DescribeTopic.answer")
    subscription = read("CreateSubscription.answer", read_subscription)
    found = (subscription["committed_offset"], subscription["last_commit"])
    equal(found, (42, None), "CreateSubscription.answer")
    published = decode_published(vectors["Publish.answer"])
    expected = {"base": 1707, "end": 1710, "durability": "os", "duplicate": True}
    equal(published, expected, "Publish.answer")
    fetched = decode_fetched(vectors["Fetch.answer"])
    ends = (fetched["start"], fetched["end"], fetched["next"])
    equal(ends, (10, 40, 33), "Fetch.answer")
    equal(fetched["items"][0], {"from": 20, "to": 30, "reason": 3}, "Fetch.answer")
    found = decode_batch(fetched["items"][1]["batch"])
    equal(found, (vector_records(), id_from(0x40), 7), "the batch of Fetch.answer")


def check_errors(vectors):
    names = [name for name in vectors if name.startswith("error.")]
    for name in names:
        error = decode_error(vectors[name])
        equal("error." + error.name, name, "the error")
        equal(bool(error.fields), ERRORS[error.code][2] != "", f"fields of {name}")
    equal(len(names), len(ERRORS), "the number of errors")
    fields = decode_error(vectors["error.NotHosted"]).fields
    expected = {"name": "quakes.ci", "peer": "peer-1", "address": "127.0.0.1:7401", "epoch": 4}
    equal(fields, expected, "error.NotHosted")
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
    encoded = encoded_vectors()
    for name, data in encoded.items():
        equal(data.hex(), vectors[name].hex(), name)
    say("encode", f"{len(encoded)} vectors")
    check_answers(vectors)
    say("decode", "answers, topics, subscriptions, fetched batches")
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", nargs="?", help="host:port of an index server or a peer")
    parser.add_argument("--topic", help="name of the topic to make (default: a random one)")
    parser.add_argument("--self-test", metavar="VECTORS", help="compare with golden vectors")
    options = parser.parse_args()
    if not options.self_test and not options.address:
        parser.error("an address or --self-test is needed")
    try:
        if options.self_test:
            self_test(options.self_test)
        if options.address:
            name = options.topic or f"proof.{os.urandom(4).hex()}"
            Proof(options.address, name).run()
    except (Mismatch, ProtocolError, ApiError, Unsupported, OSError) as error:
        print(f"FAILED: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print("all as the page says")
    return 0


if __name__ == "__main__":
    sys.exit(main())
