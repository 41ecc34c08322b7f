"""A small Tidings client, written from docs/protocol.md alone.

It proves that the page says enough: nothing here was taken from the Rust
source, and only Python's standard library (3.9 or later) is used. `prove.py`
runs it against golden vectors and against a cluster.

    host = Connection("127.0.0.1:7401")
    host.call("DescribeTopic", name="quakes.ci")["end_offset"]

What it cannot do: batches packed with lz4 or zstd. The standard library has
neither; such a batch is an `Unsupported` error, never a wrong answer.
"""

import socket
import struct

# Section 4: number of each request. Its body has the layout of the request's name.
REQUESTS = {
    "Hello": 1, "Ping": 2, "Figures": 3, "Metrics": 4,
    "Lookup": 10, "ListTopics": 11, "ListPeers": 12, "PlaceTopic": 13, "RetirePeer": 14,
    "RegisterPeer": 20, "RegisterTopics": 21, "Heartbeat": 22, "Depart": 23,
    "ClaimTopic": 24, "ConfirmTopic": 25, "DropTopic": 26, "Watch": 27,
    "CreateTopic": 40, "DeleteTopic": 41, "DescribeTopic": 42, "DescribeTopics": 43,
    "SetTopic": 44, "RenameTopic": 45, "PurgeTopic": 46, "PurgeKey": 59, "AcceptLoss": 47,
    "FindOffset": 48, "PeerStatus": 49, "Publish": 50, "Fetch": 51,
    "Stream": 52, "StreamCredit": 53, "WatchEnds": 54,
    "DescribeProducer": 55, "OpenProducer": 56, "PublishExpecting": 57,
    "CreateSubscription": 60, "DeleteSubscription": 61, "DescribeSubscription": 62,
    "ListSubscriptions": 63, "SeekSubscription": 64, "Commit": 65,
    "SubscriptionHistory": 66, "UndoSubscription": 67,
    "SetSubscription": 68, "WatchSubscription": 69, "WatchSubscriptions": 85,
    "CreateConsumerGroup": 70, "SetConsumerGroup": 71, "DescribeConsumerGroup": 72,
    "ListConsumerGroups": 73, "DeleteConsumerGroup": 74, "SeekConsumerGroup": 75,
    "JoinConsumerGroup": 76, "TakeRecords": 77, "SettleRecords": 78, "LeaveConsumerGroup": 79,
    "ReplayDeadLetters": 80, "OpenLater": 81, "ListLater": 82, "CancelLater": 83,
}  # fmt: skip

# Requests that an index server answers alone, and both kinds of node; the rest is the peers'.
OF_INDEX = {
    "RegisterPeer", "RegisterTopics", "Heartbeat", "Depart", "ClaimTopic", "ConfirmTopic",
    "DropTopic", "Watch",
}  # fmt: skip
OF_BOTH = {
    "Hello", "Ping", "Figures", "Metrics", "Lookup", "ListTopics", "ListPeers", "PlaceTopic",
    "RetirePeer",
}  # fmt: skip

# Sections 3 and 5: the type of each answer.
ANSWERS = {
    "Hello": "HelloAnswer", "Ping": "Done", "Figures": "FiguresAnswer", "Metrics": "MetricsPage",
    "Lookup": "TopicLocation", "ListTopics": "TopicPage", "ListPeers": "[PeerInfo]",
    "PlaceTopic": "Placement", "RetirePeer": "Retired",
    "RegisterPeer": "Registered", "RegisterTopics": "RegisteredTopics", "Heartbeat": "Done",
    "Depart": "Done", "ClaimTopic": "Claimed", "ConfirmTopic": "Done", "DropTopic": "Done",
    "Watch": "Changes",
    "CreateTopic": "CreatedTopic", "DeleteTopic": "Done", "DescribeTopic": "TopicInfo",
    "DescribeTopics": "TopicInfoPage", "SetTopic": "TopicInfo", "RenameTopic": "TopicInfo",
    "PurgeTopic": "TopicInfo", "PurgeKey": "TopicInfo", "AcceptLoss": "AcceptedLoss", "FindOffset": "FoundOffset",
    "PeerStatus": "PeerStatusAnswer", "StreamCredit": "Done", "WatchEnds": "TopicEnds",
    "DescribeProducer": "ProducerInfo", "OpenProducer": "ProducerInfo",
    "CreateSubscription": "SubscriptionInfo", "DeleteSubscription": "Done",
    "DescribeSubscription": "SubscriptionInfo", "ListSubscriptions": "SubscriptionPage",
    "SeekSubscription": "Sought", "Commit": "Committed",
    "SubscriptionHistory": "HistoryOfSubscription", "UndoSubscription": "Undone",
    "SetSubscription": "SubscriptionInfo", "WatchSubscription": "WatchedSubscription",
    "WatchSubscriptions": "WatchedSubscriptions",
    "CreateConsumerGroup": "ConsumerGroupInfo", "SetConsumerGroup": "ConsumerGroupInfo",
    "DescribeConsumerGroup": "ConsumerGroupInfo", "ListConsumerGroups": "ConsumerGroupPage",
    "DeleteConsumerGroup": "Done", "SeekConsumerGroup": "SoughtConsumerGroup",
    "JoinConsumerGroup": "Done", "SettleRecords": "SettledRecords", "LeaveConsumerGroup": "Done",
    "ReplayDeadLetters": "ReplayedDeadLetters",
    "OpenLater": "OpenedLater", "ListLater": "LaterPage", "CancelLater": "CancelledLater",
}  # fmt: skip

# Sections 3, 5 and 8: layouts, as `field type`; the texts of section 1 are strings.
LAYOUTS = {
    "Hello": "magic magic, protocol_min u16, protocol_max u16, client string, features u64",
    "HelloAnswer": "protocol u16, role Role, node id, name string, server string, features u64,"
    " frame_bytes_max u32, message_bytes_max u32, requests_unanswered_max u32,"
    " publishes_unanswered_max u32, indexes [string]",
    "Done": "",
    "Ping": "",
    "Figures": "",
    "FiguresAnswer": "process id, figures [Figure]",
    "Figure": "name string, value u64",
    "Metrics": "after MetricPlace?, limit u32",
    "MetricsPage": "families [MetricFamily], more bool",
    "MetricPlace": "figure string, labels [string]",
    "MetricFamily": "name string, kind MetricKind, help string, ticks u64, labels [string],"
    " bounds [u64], samples [MetricSample]",
    "MetricSample": "labels [string], value u64, classes [u64]",
    "Gap": "from u64, to u64, reason GapReason",
    "Retention": "age_ms u64?, bytes u64?, records u64?, interest bool",
    "TopicSettings": "durability Durability, retention Retention, when_full WhenFull,"
    " ids RememberIds, compaction Compaction",
    "Compaction": "on bool, tombstone_age_ms u64?",
    "RememberIds": "for_ms u64?, max u64?",
    # 5.2
    "Lookup": "name string, local_only bool",
    "TopicLocation": "name string, id id, epoch u32, peer id, peer_name string,"
    " address string, state PeerState, since time",
    "ListTopics": "pattern string, after string?, limit u32",
    "TopicPage": "topics [TopicLocation], more bool",
    "ListPeers": "",
    "PeerInfo": "id id, name string, address string, state PeerState, since time, topics u64,"
    " conflicts [string], load PeerLoad",
    "PeerLoad": "topics u64, stored_bytes u64, bytes_in_per_second u64,"
    " bytes_out_per_second u64, connections u64, disk_free_bytes u64",
    "PlaceTopic": "name string, on string?",
    "Placement": "peer id, name string, address string",
    "RetirePeer": "name string",
    "Retired": "topics u64",
    # 5.3
    "RegisterPeer": "peer id, name string, address string, nonce id, load PeerLoad",
    "Registered": "lease_ms u64",
    "RegisterTopics": "peer id, nonce id, part u32, last bool, topics [StoredTopic]",
    "RegisteredTopics": "conflicts [Conflict]",
    "StoredTopic": "name string, id id, epoch u32",
    "Conflict": "name string, id id, holder string",
    "Heartbeat": "peer id, nonce id, load PeerLoad",
    "Depart": "peer id, nonce id, leave bool",
    "ClaimTopic": "peer id, nonce id, name string, id id",
    "Claimed": "epoch u32",
    "ConfirmTopic": "peer id, nonce id, name string, id id, epoch u32",
    "DropTopic": "peer id, nonce id, name string, id id",
    "Watch": "version u64, pattern string, max_wait_ms u32",
    "Changes": "version u64, reset bool, changed [TopicLocation], dropped [string]",
    # 5.4
    "CreateTopic": "name string, settings TopicSettings, if_not_exists bool",
    "CreatedTopic": "topic TopicInfo, created bool",
    "TopicInfo": "name string, id id, epoch u32, settings TopicSettings, start_offset u64,"
    " end_offset u64, durable_end_offset u64, bytes u64, created time, last_append time?,"
    " subscriptions u64, quarantined bool, conflict bool, gaps [Gap], removed u64,"
    " compacted_offset u64, purges u32",
    "PurgeKey": "name string, key bytes",
    "DeleteTopic": "name string, id id?",
    "DescribeTopic": "name string",
    "DescribeTopics": "pattern string, after string?, limit u32",
    "TopicInfoPage": "topics [TopicInfo], more bool",
    "SetTopic": "name string, changes TopicChanges",
    "TopicChanges": "durability Durability?, retain_age_ms u64??, retain_bytes u64??,"
    " retain_records u64??, retain_interest bool?, when_full WhenFull?,"
    " remember_ids_for_ms u64??, remember_ids_max u64??,"
    " compact bool?, tombstone_age_ms u64??",
    "RenameTopic": "name string, new string",
    "PurgeTopic": "name string, before Position",
    "AcceptLoss": "name string",
    "AcceptedLoss": "gap Gap",
    "FindOffset": "topic string, position Position",
    "FoundOffset": "id id, epoch u32, offset u64, start_offset u64, end_offset u64",
    "PeerStatus": "",
    "PeerStatusAnswer": "id id, name string, version string, started time, load PeerLoad,"
    " rss_bytes u64, cpu_ms u64, payload_bytes u64, disk_written_bytes u64, segments u64,"
    " journal_bytes u64, damage [string], index_reachable bool",
    "WatchEnds": "version u64, pattern string, after string?, max_wait_ms u32",
    "TopicEnds": "version u64, all bool, ends [TopicEnd], next string?",
    "TopicEnd": "id id, start_offset u64, end_offset u64",
    # 5.5
    "DescribeProducer": "topic id, producer id",
    "ProducerInfo": "epoch u32, next_sequence u64, last_offset u64?, last_used time?,"
    " names_forgotten bool",
    "OpenProducer": "topic id, producer id, nonce id, at u64?",
    # 5.6
    "CreateSubscription": "topic string, name string, from Position, if_not_exists bool,"
    " expire_ms u64?",
    "SubscriptionInfo": "topic string, topic_id id, epoch u32, name string,"
    " committed_offset u64, generation u64, start_offset u64, end_offset u64, lag_ms u64,"
    " created time, last_commit time?, paused bool, expire_ms u64?, expires_in_ms u64?,"
    " readers u64",
    "DeleteSubscription": "topic string, name string",
    "DescribeSubscription": "topic string, name string",
    "ListSubscriptions": "topic string?, after (string,string)?, limit u32",
    "SubscriptionPage": "subscriptions [SubscriptionInfo], more bool",
    "SeekSubscription": "topic string, name string, to Position, dry_run bool",
    "Sought": "from u64, to u64, subscription SubscriptionInfo",
    "Commit": "topic id, name string, generation u64, offset u64",
    "Committed": "offset u64",
    "SubscriptionHistory": "topic string, name string",
    "HistoryOfSubscription": "subscription SubscriptionInfo, changes [PlaceChange]",
    "PlaceChange": "when time, kind ChangeKind, from u64?, to u64, generation u64, author Author",
    "Author": "client string, address string",
    "UndoSubscription": "topic string, name string, generation u64?, dry_run bool",
    "Undone": "change PlaceChange, from u64, to u64, subscription SubscriptionInfo",
    "SetSubscription": "topic string, name string, changes SubscriptionChanges",
    "SubscriptionChanges": "paused bool?, expire_ms u64??",
    "WatchSubscription": "topic id, name string, paused bool, max_wait_ms u32",
    "WatchSubscriptions": "name string, pattern string, paused [id], max_wait_ms u32",
    "WatchedSubscriptions": "paused [id]",
    "WatchedSubscription": "paused bool",
    # 5.7
    "StreamCredit": "stream u32, bytes u64, records u64, end bool",
    # 5.8
    "ConsumerGroupOptions": "ack_deadline_ms u64, deliveries_max u32, backoff_ms [u64],"
    " unacked_max u32, ordered_by_key bool, dead_letters string",
    "ConsumerGroupChanges": "ack_deadline_ms u64?, deliveries_max u32?, backoff_ms [u64]?,"
    " unacked_max u32?, ordered_by_key bool?, dead_letters string?",
    "CreateConsumerGroup": "topic string, name string, from Position,"
    " options ConsumerGroupChanges, if_not_exists bool",
    "ConsumerGroupInfo": "topic string, topic_id id, epoch u32, name string, generation u64,"
    " options ConsumerGroupOptions, created time, start_offset u64, end_offset u64, floor u64,"
    " unsettled u64, in_flight u64, failed u64, dying u64, lag_ms u64, acknowledged u64,"
    " dead u64, skipped u64, last_settled time?, stuck string?, members [ConsumerMemberInfo]",
    "ConsumerMemberInfo": "id id, client string, since time, in_flight u64",
    "SetConsumerGroup": "topic string, name string, changes ConsumerGroupChanges",
    "DescribeConsumerGroup": "topic string, name string",
    "ListConsumerGroups": "topic string?, after (string,string)?, limit u32",
    "ConsumerGroupPage": "groups [ConsumerGroupInfo], more bool",
    "DeleteConsumerGroup": "topic string, name string",
    "SeekConsumerGroup": "topic string, name string, to Position, dry_run bool",
    "SoughtConsumerGroup": "from u64, to u64, group ConsumerGroupInfo",
    "JoinConsumerGroup": "topic id, name string, generation u64, member id",
    "TakeRecords": "topic id, name string, generation u64, member id, records u32, bytes u32,"
    " wait_ms u32",
    "SettleRecords": "topic id, name string, generation u64, member id, runs [SettledRun]",
    "SettledRun": "first u64, count u32, delivery u32, verdict Verdict",
    "Nak": "delay_ms u64?",
    "Reject": "reason string",
    "SettledRecords": "not_held [NotHeld]",
    "NotHeld": "first u64, count u32, instead Instead",
    "LeaveConsumerGroup": "topic id, name string, member id",
    "ReplayDeadLetters": "topic string, before u64",
    "ReplayedDeadLetters": "next u64, replayed u64",
    # 5.9
    "OpenLater": "topic id",
    "OpenedLater": "id id, name string",
    "ListLater": "topic string?, after LaterPlace?, limit u32",
    "LaterPlace": "at time, stored_in string, number u64",
    "LaterPage": "topics [LaterTopic], messages [LaterMessage], more bool",
    "LaterTopic": "topic string, topic_id id, stored_in string, pending u64, next time?,"
    " kept_by string?",
    "LaterMessage": "topic string, stored_in string, number u64, at time, timestamp time,"
    " id bytes?, key bytes?, payload bytes, payload_bytes u64",
    "CancelLater": "topic string, which LaterChoice",
    "CancelledLater": "cancelled u64, too_late bool",
    # 8
    "ErrorBody": "code u16, retryable bool, message string, detail bytes",
}

# The variants in the order of their numbers; what one carries stands behind a colon.
ENUMS = {
    "Role": "index peer",
    "Durability": "fsync os",
    "WhenFull": "discard-oldest refuse",
    "PeerState": "online offline down",
    "MetricKind": "counter gauge histogram",
    "GapReason": "discarded lost damaged compacted expired purged",
    "ChangeKind": "created seek undo",
    "Instead": "Settled Waiting Elsewhere Untouched",
    "Verdict": "Ack Nak:Nak Reject:Reject Extend",
    "LaterChoice": "Id:bytes Number:u64 All",
    "Position": "Beginning End Offset:u64 Back:u64 Time:time",
}

# Section 8: code -> (index of the detail, name, retry, fields of the detail).
ERRORS = {
    1: (0, "BadFrame", False, "reason string"),
    2: (1, "UnknownApi", False, "api u16"),
    3: (2, "UnsupportedVersion", False, "what string, given u16, min u16, max u16"),
    4: (3, "HelloRequired", False, ""),
    5: (4, "FrameTooLarge", False, "bytes u64, max u64"),
    6: (5, "Malformed", False, "what string, reason string"),
    7: (6, "TooManyConnections", True, "max u64"),
    8: (7, "WrongRole", False, "request string, answered_by string, this_is string"),
    9: (8, "ShuttingDown", True, ""),
    20: (9, "TopicNotFound", False, "name string"),
    21: (10, "UnknownTopicId", False, "id id"),
    22: (11, "TopicExists", False, "name string"),
    23: (12, "NotHosted", True, "name string, peer string, address string, epoch u32"),
    24: (13, "StaleEpoch", True, "given u32, current u32"),
    25: (14, "TopicQuarantined", False, "name string, end u64"),
    26: (15, "NameConflict", False, "name string, holder string"),
    27: (16, "TooManyTopics", False, "max u64"),
    28: (42, "NotQuarantined", False, "name string"),
    29: (46, "TopicFull", True, "name string, records u64, bytes u64"),
    30: (17, "BadBatch", False, "reason string"),
    31: (18, "MessageTooLarge", False, "bytes u64, max u64"),
    32: (19, "SequenceGap", True, "expected u64, given u64"),
    33: (20, "DuplicateTooOld", False, "given u64, oldest u64"),
    34: (21, "UnknownProducer", False, ""),
    35: (22, "DiskReserve", True, "free_bytes u64, needed_bytes u64"),
    36: (54, "UnexpectedEnd", False, "expected u64, found u64"),
    37: (55, "ProducerFenced", False, "given u32, current u32"),
    38: (56, "ProducerForgotten", False, ""),
    39: (57, "IdsNotRemembered", False, "name string"),
    40: (23, "OffsetOutOfRange", False, "requested u64, start u64, end u64"),
    41: (24, "Damaged", False, "from u64, to u64"),
    42: (43, "UnknownStream", False, "stream u32"),
    43: (44, "TooManyStreams", True, "max u64"),
    44: (45, "ClientSilent", True, "silent_ms u64"),
    50: (25, "SubscriptionNotFound", False, "topic string, name string"),
    51: (26, "SubscriptionExists", False, "topic string, name string"),
    52: (27, "StaleGeneration", False, "given u64, current u64"),
    53: (28, "CommitPastEnd", False, "offset u64, end u64"),
    54: (29, "TooManySubscriptions", False, "max u64"),
    55: (47, "NothingToUndo", False, "topic string, name string, reason string"),
    60: (30, "IndexUnavailable", True, "reason string"),
    61: (31, "PeerNotFound", False, "name string"),
    62: (32, "NoPeerOnline", True, ""),
    63: (33, "Displaced", False, ""),
    64: (34, "NotRegistered", True, ""),
    65: (35, "PeerNameTaken", False, "name string"),
    66: (36, "ClaimPending", True, "name string"),
    67: (37, "PeerNotOnline", True, "peer string, state string"),
    70: (48, "ConsumerGroupNotFound", False, "topic string, name string"),
    71: (49, "ConsumerGroupExists", False, "topic string, name string"),
    72: (50, "TooManyConsumerGroups", False, "max u64"),
    73: (51, "TooManyMembers", False, "max u64"),
    74: (52, "NotAMember", False, "name string, member id"),
    75: (53, "NotReplayable", False, "offset u64, reason string"),
    80: (38, "StorageStopped", True, "reason string"),
    81: (39, "InvalidArgument", False, "what string, reason string"),
    82: (41, "Unanswered", False, ""),
    83: (58, "TooManyDelayed", True, "max u64"),
    84: (59, "Busy", True, "max u64"),
    85: (60, "NotReadableNow", True, "reason string"),
}

NUMBERS = {"u8": "<B", "u16": "<H", "u32": "<I", "u64": "<Q", "i64": "<q", "time": "<q"}
RAW = {"id": 16, "magic": 4}

# Section 2: the flags of a frame.
REQUEST, ANSWER, ERROR, ANSWER_AND_MORE = 0, 1, 3, 5


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


def fields_of(layout):
    return [field.split(" ") for field in filter(None, layout.split(", "))]


def variants_of(kind):
    return [variant.partition(":")[::2] for variant in ENUMS[kind].split(" ")]


def encode(kind, value):
    """The bytes of a value. An option is None or the value; an option of an
    option None, or a tuple of what is inside. A variant is its name, or
    (name, what it carries)."""
    if kind in NUMBERS:
        return struct.pack(NUMBERS[kind], value)
    if kind == "bool":
        return struct.pack("<?", value)
    if kind in ("string", "bytes"):
        data = value.encode() if kind == "string" else value
        return struct.pack("<Q", len(data)) + data
    if kind in RAW:
        if len(value) != RAW[kind]:
            raise ValueError(f"{kind} of {len(value)} bytes")
        return value
    if kind.endswith("?"):
        inner = value[0] if kind.endswith("??") and value is not None else value
        return b"\0" if value is None else b"\1" + encode(kind[:-1], inner)
    if kind.startswith("["):
        return struct.pack("<Q", len(value)) + b"".join(encode(kind[1:-1], v) for v in value)
    if kind.startswith("("):
        return b"".join(encode(part, v) for part, v in zip(kind[1:-1].split(","), value))
    if kind in ENUMS:
        name, carried = value if isinstance(value, tuple) else (value, None)
        number = [variant for variant, _ in variants_of(kind)].index(name)
        carries = variants_of(kind)[number][1]
        return struct.pack("<I", number) + (encode(carries, carried) if carries else b"")
    return b"".join(encode(what, value[field]) for field, what in fields_of(LAYOUTS[kind]))


class Reader:
    """Takes bytes from the front; what is missing or left over is an error."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def left(self):
        return len(self.data) - self.at

    def raw(self, count):
        if count > self.left():
            raise ProtocolError("a body ends too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def rest(self):
        return self.raw(self.left())

    def end(self, value):
        if self.left():
            raise ProtocolError(f"{self.left()} bytes left over in a body")
        return value

    def number(self, kind):
        form = NUMBERS[kind]
        return struct.unpack(form, self.raw(struct.calcsize(form)))[0]

    def flag(self):
        byte = self.number("u8")
        if byte > 1:
            raise ProtocolError(f"{byte} where 0 or 1 belongs")
        return byte == 1

    def text(self):
        try:
            return self.raw(self.number("u64")).decode()
        except UnicodeDecodeError as error:
            raise ProtocolError("a text is not UTF-8") from error

    def read(self, kind):
        """A value of that type, as `encode` takes it."""
        if kind in NUMBERS:
            return self.number(kind)
        if kind == "bool":
            return self.flag()
        if kind == "string":
            return self.text()
        if kind == "bytes":
            return self.raw(self.number("u64"))
        if kind in RAW:
            return self.raw(RAW[kind])
        if kind.endswith("?"):
            if not self.flag():
                return None
            inner = self.read(kind[:-1])
            return (inner,) if kind.endswith("??") else inner
        if kind.startswith("["):
            count = self.number("u64")
            if count > self.left():
                raise ProtocolError(f"{count} entries in {self.left()} bytes")
            return [self.read(kind[1:-1]) for _ in range(count)]
        if kind.startswith("("):
            return tuple(self.read(part) for part in kind[1:-1].split(","))
        if kind in ENUMS:
            return self.variant(kind)
        return {field: self.read(what) for field, what in fields_of(LAYOUTS[kind])}

    def variant(self, kind):
        number, variants = self.number("u32"), variants_of(kind)
        if number >= len(variants):
            raise ProtocolError(f"variant {number} of {kind}")
        name, carried = variants[number]
        return (name, self.read(carried)) if carried else name


def decode(kind, body):
    reader = Reader(body)
    return reader.end(reader.read(kind))


def decode_error(body):
    error = decode("ErrorBody", body)
    code, detail = error["code"], Reader(error["detail"])
    index, name, retryable, layout = ERRORS.get(code, (None, "unknown", None, ""))
    fields = {}
    if index is not None:
        if error["retryable"] != retryable:
            raise ProtocolError(f"{name} that is retryable: {error['retryable']}")
        if detail.left():
            if detail.number("u32") != index:
                raise ProtocolError(f"the detail of {name} has another index")
            fields = detail.end({field: detail.read(kind) for field, kind in fields_of(layout)})
    return ApiError(code, error["retryable"], error["message"], name, fields)


def hello_body(client="tidings_client.py 1", oldest=1, newest=1):
    fields = {"magic": b"TIDE", "protocol_min": oldest, "protocol_max": newest}
    return encode("Hello", {**fields, "client": client, "features": 0})


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
        byte = reader.number("u8")
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


def producer_of_name(name):
    """The id of a named producer: section 5.5."""
    value = 0x6C62272E07BB014262B821756295C58D
    for byte in b"tidings producer\0" + name.encode():
        value = (value ^ byte) * 0x1000000000000000000013B % (1 << 128)
    return value.to_bytes(16, "big")


# Section 7: the bit of the attributes that says so, and the header that holds the id.
HAS_ID, ID_HEADER = 0x10, "tidings-id"
# And the one that says that the records live for a time, which stands in front of them.
HAS_TTL, TTL_MAX = 0x20, 10 * 365 * 24 * 3_600_000


def encode_batch(
    records, producer=bytes(16), first_sequence=0, producer_epoch=0, attributes=0, ttl=None
):
    """A batch without compression. Its time to live is in milliseconds."""
    base = records[0]["timestamp"]
    newest = max(item["timestamp"] for item in records)
    payload = b"".join(encode_record(item, base) for item in records)
    front = b"" if ttl is None else struct.pack("<Q", ttl)
    attributes |= HAS_TTL if front else 0
    length, unpacked = len(front) + len(payload), len(payload)
    header = BATCH_HEADER.pack(
        0, BATCH_MAGIC, 1, attributes, length, len(records), unpacked, producer_epoch,
        base, newest, producer, first_sequence,
    )  # fmt: skip
    rest = header[4:] + front + payload
    return struct.pack("<I", crc32c(rest)) + rest


def batch_with_id(timestamp, value, message_id):
    """One message with an id."""
    item = record(timestamp, value, headers=[(ID_HEADER, message_id)])
    return encode_batch([item], attributes=HAS_ID)


def decode_record(reader, base):
    body = Reader(reader.raw(read_varint(reader)))
    if body.number("u8") != 0:
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
    (crc, magic, version, attributes, length, count, unpacked, producer_epoch,
     base, newest, producer, sequence) = BATCH_HEADER.unpack_from(data)  # fmt: skip
    has_id, has_ttl = attributes & HAS_ID, attributes & HAS_TTL
    attributes &= ~(HAS_ID | HAS_TTL)
    if (magic, version) != (BATCH_MAGIC, 1) or attributes > 2:
        raise ProtocolError("not a batch of version 1")
    if producer_epoch and producer == bytes(16):
        raise ProtocolError("an epoch of nobody")
    if length != len(data) - BATCH_HEADER.size or not 1 <= count <= 65_536:
        raise ProtocolError("a batch's length or count is false")
    if crc != crc32c(data[4:]):
        raise ProtocolError("a batch's checksum is wrong")
    if attributes:
        raise Unsupported(("lz4", "zstd")[attributes - 1])
    reader = Reader(data[BATCH_HEADER.size :])
    if has_ttl and not 1 <= reader.number("u64") <= TTL_MAX:
        raise ProtocolError("a batch's time to live is false")
    if length != unpacked + (8 if has_ttl else 0):
        raise ProtocolError("a batch's unpacked length is false")
    try:
        records = [decode_record(reader, base) for _ in range(count)]
    except UnicodeDecodeError as error:
        raise ProtocolError("the name of a header is not UTF-8") from error
    ids = [value for item in records for name, value in item["headers"] if name == ID_HEADER]
    if has_id and (count, producer, len(ids)) != (1, bytes(16), 1):
        raise ProtocolError("a batch whose record has an id holds something else")
    if has_id and not 1 <= len(ids[0]) <= 255:
        raise ProtocolError("an id has 1 to 255 bytes")
    if newest != max(item["timestamp"] for item in records):
        raise ProtocolError("a batch's max timestamp is false")
    return reader.end((records, producer, sequence))


# --- section 6: publish, fetch and stream -----------------------------------------------


def publish_body(topic, epoch, batch):
    return topic + struct.pack("<I", epoch) + batch


def publish_expecting_body(topic, epoch, end, batch):
    return topic + struct.pack("<IQ", epoch, end) + batch


def decode_published(body):
    r = Reader(body)
    base, end, durability, duplicate = (r.number(kind) for kind in ("u64", "u64", "u8", "u8"))
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


def stream_body(
    topic, epoch, offset, credit, max_bytes=1 << 20, keep_alive=200, pass_damage=False
):
    """`credit` is bytes and records."""
    return topic + struct.pack(
        "<IQIQQIB", epoch, offset, max_bytes, *credit, keep_alive, pass_damage
    )


def decode_fetched(body):
    r = Reader(body)
    fetched = {name: r.number("u64") for name in ("start", "end", "next")}
    fetched["items"] = []
    while r.left():
        kind = r.number("u8")
        if kind == 1:
            item = {"base": r.number("u64"), "epoch": r.number("u32")}
            item["append_time"] = r.number("i64")
            item["batch"] = r.raw(r.number("u32"))
        elif kind == 2:
            item = {"from": r.number("u64"), "to": r.number("u64"), "reason": r.number("u8")}
            if not 1 <= item["reason"] <= 6:
                raise ProtocolError(f"gap reason {item['reason']}")
        else:
            raise ProtocolError(f"item kind {kind}")
        fetched["items"].append(item)
    return fetched


def decode_taken(body):
    r = Reader(body)
    deadline, number, items = r.number("u64"), r.number("u64"), []
    while r.left():
        item = {"append_time": r.number("i64")}
        runs, length = r.number("u32"), r.number("u32")
        item["runs"] = [tuple(r.number(kind) for kind in ("u64", "u32", "u32")) for _ in range(runs)]
        after = 0
        for first, count, delivery in item["runs"]:
            if first < after or count == 0 or delivery == 0 or first + count >= 1 << 64:
                raise ProtocolError(f"runs that make no sense: {item['runs']}")
            after = first + count
        item["batch"] = r.raw(length)
        items.append(item)
    return {"ack_deadline": deadline, "number": number, "items": items}


# --- sections 2 and 3: frames and the hello ---------------------------------------


def frame(api, correlation, body, version=1, flags=REQUEST):
    return struct.pack("<IHBBI", 8 + len(body), api, version, flags, correlation) + body


class Connection:
    """One connection, with the hello behind it unless `greet` is false."""

    # Requests that were answered, over all connections.
    answered = set()

    def __init__(self, address, greet=True):
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host.strip("[]"), int(port)), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.correlation, self.early, self.frame_bytes_max = 0, {}, 4096
        self.flags = None  # those of the answer that `wait` told last
        self.hello = None
        if greet:
            self.socket.sendall(frame(1, 0, hello_body()))
            self.hello = decode("HelloAnswer", self.wait((1, 0, 1)))
            self.answered.add("Hello")
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
        """Sends a request, by name or number; several may be on their way."""
        number = REQUESTS.get(api, api)
        self.correlation += 1
        self.socket.sendall(frame(number, self.correlation, body, version))
        return number, self.correlation, version

    def wait(self, sent):
        """The body of the answer to what `send` sent."""
        api, correlation, version = sent
        while correlation not in self.early:
            found_api, found_version, flags, found, body = self.read_frame()
            if flags not in (ANSWER, ERROR, ANSWER_AND_MORE):
                raise ProtocolError(f"flags {flags} from a node")
            if found_api == 1 and flags == ERROR:
                raise decode_error(body)  # section 2: it ends the connection
            if flags == ANSWER_AND_MORE and found_api != REQUESTS["Stream"]:
                raise ProtocolError(f"more than one answer to request {found_api}")
            self.early.setdefault(found, []).append((found_api, found_version, flags, body))
        found_api, found_version, self.flags, body = self.early[correlation].pop(0)
        if not self.early[correlation]:
            del self.early[correlation]
        if (found_api, found_version) != (api, version):
            raise ProtocolError("an answer to another request has this correlation")
        if self.flags == ERROR:
            raise decode_error(body)
        return body

    def call_raw(self, api, body=b"", version=1):
        return self.wait(self.send(api, body, version))

    def call(self, api, /, **fields):
        """A request with a control body, and its answer."""
        answer = decode(ANSWERS[api], self.call_raw(api, encode(api, fields)))
        self.answered.add(api)
        return answer

    def publish(self, topic, batch):
        body = publish_body(topic["id"], topic["epoch"], batch)
        published = decode_published(self.call_raw("Publish", body))
        self.answered.add("Publish")
        return published

    def publish_expecting(self, topic, end, batch):
        body = publish_expecting_body(topic["id"], topic["epoch"], end, batch)
        published = decode_published(self.call_raw("PublishExpecting", body))
        self.answered.add("PublishExpecting")
        return published

    def fetch(self, topic, offset, **options):
        body = fetch_body(topic["id"], topic["epoch"], offset, **options)
        fetched = decode_fetched(self.call_raw("Fetch", body))
        self.answered.add("Fetch")
        return fetched

    def stream(self, topic, offset, credit, **options):
        """A stream that stands."""
        body = stream_body(topic["id"], topic["epoch"], offset, credit, **options)
        sent = self.send("Stream", body)
        if self.wait(sent) or self.flags != ANSWER_AND_MORE:
            raise ProtocolError("a stream begins with something else than an empty answer")
        self.answered.add("Stream")
        return sent

    def part(self, sent):
        """What a stream sends next, keep-alives apart; None at its end."""
        while True:
            body = self.wait(sent)
            if self.flags == ANSWER:
                return None
            if body:
                return decode_fetched(body)

    def credit(self, sent, bytes=0, records=0, end=False):
        self.call("StreamCredit", stream=sent[1], bytes=bytes, records=records, end=end)
