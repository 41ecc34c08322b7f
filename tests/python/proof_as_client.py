"""What a client does, step by step, at a real cluster."""

import os
import socket
import struct
import time

from checks import check, equal, fails, say
from malformed import bodies
from tidings_client import (
    ERROR, HAS_ID, ID_HEADER, OF_BOTH, OF_INDEX, REQUESTS, ApiError, Connection, batch_with_id,
    decode_batch, decode_error, decode, decode_fetched, decode_published, decode_taken, encode,
    encode_batch, fetch_body, frame, hello_body, producer_of_name, publish_body, record, stream_body,
)  # fmt: skip

NO_BOUNDS = {"age_ms": None, "bytes": None, "records": None, "interest": False}
NO_IDS = {"for_ms": None, "max": None}
DEFAULTS = {
    "durability": "fsync",
    "retention": NO_BOUNDS,
    "when_full": "discard-oldest",
    "ids": NO_IDS,
    "compaction": {"on": False, "tombstone_age_ms": None},
}
NO_CHANGES = {
    "durability": None,
    "retain_age_ms": None,
    "retain_bytes": None,
    "retain_records": None,
    "retain_interest": None,
    "when_full": None,
    "remember_ids_for_ms": None,
    "remember_ids_max": None,
    "compact": None,
    "tombstone_age_ms": None,
}


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


class ClientProof:
    """The steps, in order; each leaves what the next ones need."""

    def __init__(self, address, name):
        self.address, self.name = address, name
        self.producer, self.sent = os.urandom(16), []
        self.steps = [
            self.greet, self.strangers, self.odd_requests, self.malformed, self.second_hello,
            self.missing_topic, self.create, self.cluster, self.publish, self.retry,
            self.expecting, self.named, self.ids, self.passing, self.refused, self.largest, self.read,
            self.sizes, self.long_poll, self.ends, self.stream,
            self.streams_end, self.places, self.subscribe, self.seek, self.resume, self.pause,
            self.list_subscriptions, self.group, self.settle, self.dead_letters, self.manage_groups,
            self.later, self.settings, self.purge, self.rename, self.delete,
        ]  # fmt: skip

    def run(self):
        for step in self.steps:
            say(step.__name__, step())

    def create_topic(self, name, if_not_exists=False):
        return self.host.call(
            "CreateTopic", name=name, settings=DEFAULTS, if_not_exists=if_not_exists
        )

    def describe(self):
        return self.host.call("DescribeTopic", name=self.name)

    def is_gone(self, name):
        """A peer that is no host may tell for a second what it was told before."""
        deadline = time.monotonic() + 10
        while True:
            try:
                self.entry.call("Lookup", name=name, local_only=False)
            except ApiError as error:
                equal(error.name, "TopicNotFound", "the error")
                return
            check(time.monotonic() < deadline, f"{name} is gone, and is found")
            time.sleep(0.05)

    def greet(self):
        self.entry = Connection(self.address)
        hello = self.entry.hello
        equal(hello["protocol"], 1, "the protocol")
        equal(self.entry.call("Ping"), {}, "the answer to a ping")
        figures = {figure["name"]: figure["value"] for figure in self.entry.call("Figures")["figures"]}
        check(figures["rss_bytes"] > 0, "memory among the figures")
        once = self.metrics(1000)
        # Meanwhile something may have been counted for the first time.
        check(set(once) <= set(self.metrics(3)), "short pages tell of as many figures")
        return f"{hello['role']} {hello['name']}, {hello['server']}, at {self.address}"

    def metrics(self, limit):
        """The names of all figures, read in pages of so many series."""
        names, after, more = [], None, True
        while more:
            page = self.entry.call("Metrics", after=after, limit=limit)
            more = page["more"]
            for family in page["families"]:
                if names[-1:] != [family["name"]]:
                    names.append(family["name"])
                for series in family["samples"]:
                    equal(len(series["labels"]), len(family["labels"]), "values of labels")
                    classes = len(family["bounds"]) + 1 if family["kind"] == "histogram" else 0
                    equal(len(series["classes"]), classes, f"classes of {family['name']}")
            last = page["families"][-1]
            after = {"figure": last["name"], "labels": last["samples"][-1]["labels"]}
        check("process_cpu_seconds_total" in names, "the figures of the process")
        return names

    def strangers(self):
        """Connections that begin wrongly are told so and closed."""
        lookup = encode("Lookup", {"name": self.name, "local_only": False})
        for sent, error in (
            (frame(REQUESTS["Lookup"], 1, lookup), "HelloRequired"),
            (frame(1, 0, hello_body(oldest=900, newest=901)), "UnsupportedVersion"),
            (frame(1, 0, hello_body()[:-1]), "Malformed"),
            (frame(1, 0, b"GET / HTTP/1.1"), "BadFrame"),
            (frame(1, 0, hello_body(client="x" * 256)), "InvalidArgument"),
            (struct.pack("<I", 4) + b"1234", "BadFrame"),
            (struct.pack("<I", 4097), "FrameTooLarge"),
        ):
            stranger = Connection(self.address, greet=False)
            stranger.socket.sendall(sent)
            found = stranger.read_frame()
            equal((found[0], found[2]), (1, ERROR), f"the frame of {error}")
            equal(decode_error(found[4]).name, error, "the error")
            check(stranger.is_closed(), f"after {error} the connection is closed")
            stranger.close()
        return "no hello, a bad one, one of tomorrow, a short and a huge frame are refused"

    def odd_requests(self):
        """Wrong requests are answered, and the connection goes on."""
        equal(fails("UnknownApi", self.entry.call_raw, 9999)["api"], 9999, "the number")
        fails("UnknownApi", self.entry.call_raw, 9999, version=99)
        fails("UnsupportedVersion", self.entry.call_raw, "Ping", version=99)
        other = "PeerStatus" if self.entry.hello["role"] == "index" else "Heartbeat"
        fails("UnsupportedVersion", self.entry.call_raw, other, version=99)
        fails("WrongRole", self.entry.call_raw, other, b"not looked at")
        equal(self.entry.call("Ping"), {}, "the answer to a ping")
        return "unknown number, unknown version, another kind of node: answered, not closed"

    def malformed(self):
        """Bodies of every request that are not as section 5 says."""
        index = self.entry.hello["role"] == "index"
        own = [
            name for name in REQUESTS
            if name != "Hello" and (name in OF_BOTH or (name in OF_INDEX) == index)
        ]  # fmt: skip
        count = 0
        for name in own:
            for what, body in bodies(name):
                fields = fails("Malformed", self.entry.call_raw, name, body)
                equal(fields["what"], name, f"what is malformed: {what}")
                check(fields["reason"].strip(": "), f"a reason for {what}")
                count += 1
        return f"{count} bodies of {len(own)} requests"

    def second_hello(self):
        """It ends the connection; what was unanswered may stay so."""
        other = Connection(self.address)
        other.call("Ping")
        other.socket.sendall(frame(1, 7, hello_body()))
        found = other.read_frame()
        equal(found[:4], (1, 1, ERROR, 7), "the frame that ends the connection")
        equal(decode_error(found[4]).name, "BadFrame", "the error")
        check(other.is_closed(), "nothing follows")
        other.close()
        return "is BadFrame and the end"

    def missing_topic(self):
        for local_only in (False, True):
            look = {"name": self.name, "local_only": local_only}
            fields = fails("TopicNotFound", self.entry.call, "Lookup", **look)
            equal(fields["name"], self.name, "the name in the error")
        return f"{self.name} does not exist yet"

    def create(self):
        fails("PeerNotFound", self.entry.call, "PlaceTopic", name=self.name, on="nobody-here")
        placement = self.entry.call("PlaceTopic", name=self.name, on=None)
        self.host_address = placement["address"]
        self.host = Connection(self.host_address)
        equal(self.host.hello["role"], "peer", "the role of the host")
        equal(self.host.hello["node"], placement["peer"], "the identity of the host")
        made = self.create_topic(self.name)
        check(made["created"], "this request made it")
        topic = made["topic"]
        equal((topic["start_offset"], topic["end_offset"]), (0, 0), "offsets of a new topic")
        again = self.create_topic(self.name, if_not_exists=True)
        equal((again["created"], again["topic"]["id"]), (False, topic["id"]), "creating it again")
        fails("TopicExists", self.create_topic, self.name)
        fails("TopicExists", self.entry.call, "PlaceTopic", name=self.name, on=None)
        found = self.entry.call("Lookup", name=self.name, local_only=False)
        equal((found["id"], found["address"]), (topic["id"], self.host_address), "the lookup")
        self.topic = found
        return f"{self.name} on {placement['name']} at {self.host_address}"

    def cluster(self):
        """Listings, page by page, and the peers."""
        other = self.create_topic(self.name + ".other")["topic"]
        mine = {self.name, self.name + ".other"}
        for node, listing in ((self.entry, "ListTopics"), (self.host, "DescribeTopics")):
            found, after = [], None
            while True:
                page = node.call(listing, pattern=">", after=after, limit=0)
                found += [topic["name"] for topic in page["topics"]]
                if not page["more"]:
                    break
                after = found[-1]
            equal(found, sorted(found), f"the order of {listing}")
            check(mine <= set(found), f"both topics are in {found}")
            page = node.call(listing, pattern=self.name + ".*", after=None, limit=1 << 31)
            equal([topic["id"] for topic in page["topics"]], [other["id"]], "one by pattern")
        peers = self.entry.call("ListPeers")
        equal([p["name"] for p in peers], sorted(p["name"] for p in peers), "the order of peers")
        here = [peer for peer in peers if peer["id"] == self.host.hello["node"]][0]
        equal((here["address"], here["state"]), (self.host_address, "online"), "the host")
        status = self.host.call("PeerStatus")
        equal((status["name"], status["index_reachable"]), (here["name"], True), "its status")
        fails("PeerNotFound", self.entry.call, "RetirePeer", name="nobody-here")
        fails("InvalidArgument", self.entry.call, "RetirePeer", name=here["name"])
        self.host.call("DeleteTopic", name=self.name + ".other", id=None)
        return f"pages of one, {len(peers)} peers, nobody to retire"

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
        waiting = [self.host.send("Publish", body) for body in bodies]
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
        # The same numbers in another batch: it was not stored as this one.
        fails("DuplicateTooOld", other.publish, self.topic, self.batch(4, 3)[1])
        fails("DuplicateTooOld", other.publish, self.topic, self.batch(10, 4)[1])
        stranger = encode_batch([record(0, b"x")], os.urandom(16), 5)
        fails("UnknownProducer", other.publish, self.topic, stranger)
        equal(self.describe()["end_offset"], 12, "the end")
        other.close()
        return "the same batch again is at [4, 8) still; a gap and a stranger are refused"

    def expecting(self):
        """Batches for a certain end of the topic: of two for one end the first is stored."""
        topic = self.create_topic(self.name + ".expecting")["topic"]
        mine, other = os.urandom(16), os.urandom(16)
        first = encode_batch([record(0, b"a"), record(0, b"b")], mine, 0)
        equal(self.host.publish_expecting(topic, 0, first)["end"], 2, "the end")
        late = encode_batch([record(0, b"c")], other, 0)
        fields = fails("UnexpectedEnd", self.host.publish_expecting, topic, 0, late)
        equal(fields, {"expected": 0, "found": 2}, "the ends")
        answer = self.host.publish_expecting(topic, 2, late)
        equal((answer["base"], answer["duplicate"]), (2, False), "the second try")
        # Again, as after a lost answer: it is there, wherever the topic ends by now.
        answer = self.host.publish_expecting(topic, 0, first)
        equal((answer["base"], answer["duplicate"]), (0, True), "the batch sent twice")
        fails("UnexpectedEnd", self.host.publish_expecting, topic, 9, encode_batch([record(0, b"")]))
        self.host.call("DeleteTopic", name=topic["name"], id=None)
        return "one of two is stored; the same again is known; the end has to be exact"

    def named(self):
        """A producer with a name: the newest process goes on, the one before it is told."""
        topic = self.create_topic(self.name + ".named")["topic"]
        who = {"topic": topic["id"], "producer": producer_of_name("nightly-import")}
        check(self.host.call("DescribeProducer", **who)["last_used"] is None, "it is new")
        fields = {**who, "nonce": os.urandom(16), "at": None}
        first = self.host.call("OpenProducer", **fields)
        equal(self.host.call("OpenProducer", **fields), first, "the same process, asked again")

        def batch(epoch, sequence):
            return encode_batch([record(0, b"x")], who["producer"], sequence, epoch)

        self.host.publish(topic, batch(first["epoch"], 0))
        second = self.host.call("OpenProducer", **{**fields, "nonce": os.urandom(16)})
        equal((second["next_sequence"], second["last_offset"]), (1, 0), "where it goes on")
        fields = fails("ProducerFenced", self.host.publish, topic, batch(first["epoch"], 1))
        expected = {"given": first["epoch"], "current": second["epoch"]}
        equal(fields, expected, "the epochs")
        equal(self.host.publish(topic, batch(first["epoch"], 0))["duplicate"], True, "a retry")
        self.host.publish(topic, batch(second["epoch"], 1))
        equal(self.host.call("DescribeProducer", **who)["next_sequence"], 2, "the next sequence")
        stranger = encode_batch([record(0, b"x")], os.urandom(16), 0, 1)
        fails("ProducerForgotten", self.host.publish, topic, stranger)
        self.host.call("DeleteTopic", name=topic["name"], id=None)
        return "a second process goes on at the next sequence, the first is fenced"

    def ids(self):
        """Messages that are known by their ids, where the topic remembers them."""
        topic = self.create_topic(self.name + ".ids")["topic"]
        first = batch_with_id(0, b"first", b"order-17")
        fields = fails("IdsNotRemembered", self.host.publish, topic, first)
        equal(fields, {"name": topic["name"]}, "the topic")
        changes = {**NO_CHANGES, "remember_ids_for_ms": (60_000,)}
        settings = self.host.call("SetTopic", name=topic["name"], changes=changes)["settings"]
        equal(settings["ids"], {"for_ms": 60_000, "max": None}, "the setting")
        equal(self.host.publish(topic, first)["duplicate"], False, "the first one")
        self.host.publish(topic, batch_with_id(0, b"another", b"order-18"))
        answer = self.host.publish(topic, batch_with_id(9, b"the same order", b"order-17"))
        equal((answer["base"], answer["duplicate"]), (0, True), "the same id")
        bare = encode_batch([record(0, b"no id")], attributes=HAS_ID)
        fails("BadBatch", self.host.publish, topic, bare)
        two = [record(0, b"x", headers=[(ID_HEADER, b"a")])] * 2
        fails("BadBatch", self.host.publish, topic, encode_batch(two, attributes=HAS_ID))
        changes = {**NO_CHANGES, "remember_ids_for_ms": (59_999,)}
        fails("InvalidArgument", self.host.call, "SetTopic", name=topic["name"], changes=changes)
        self.host.call("DeleteTopic", name=topic["name"], id=None)
        return "the second message of an id is a duplicate of the first"

    def passing(self):
        """Messages that live for a time: read while they do, a gap afterwards."""
        topic = self.create_topic(self.name + ".passing")["topic"]
        self.host.publish(topic, encode_batch([record(0, b"a day")], ttl=24 * 3_600_000))
        self.host.publish(topic, encode_batch([record(0, b"a moment")], ttl=1))
        self.host.publish(topic, encode_batch([record(0, b"for good")]))
        deadline = time.monotonic() + 30
        while True:
            items = self.host.fetch(topic, 0)["items"]
            if "reason" in items[1]:
                break
            check(time.monotonic() < deadline, "a moment is over within 30 seconds")
        equal(items[1], {"from": 1, "to": 2, "reason": 5}, "the gap")
        left = [decode_batch(items[n]["batch"])[0][0]["value"] for n in (0, 2)]
        equal(left, [b"a day", b"for good"], "the messages that live")
        for ttl in (0, 1 << 63):
            bad = encode_batch([record(0, b"x")], ttl=ttl)
            fails("BadBatch", self.host.publish, topic, bad)
        self.host.call("DeleteTopic", name=topic["name"], id=None)
        return "one day is there, one moment is a gap"

    def refused(self):
        """Batches that are not what they say, and requests for another time."""
        good = encode_batch([record(0, b"payload")])
        flipped = bytearray(good)
        flipped[-1] ^= 1
        fails("BadBatch", self.host.publish, self.topic, bytes(flipped))
        fails("BadBatch", self.host.publish, self.topic, good[:-1])
        fails("BadBatch", self.host.publish, self.topic, b"")
        for epoch in (self.topic["epoch"] - 1, self.topic["epoch"] + 7):
            stale = {**self.topic, "epoch": epoch}
            expected = {"given": epoch, "current": self.topic["epoch"]}
            equal(fails("StaleEpoch", self.host.publish, stale, good), expected, "the epochs")
            fields = fails("StaleEpoch", self.host.fetch, stale, 12, min_bytes=1, max_wait=60_000)
            equal(fields, expected, "the epochs, without a wait")
        unknown = {**self.topic, "id": os.urandom(16)}
        fails("UnknownTopicId", self.host.fetch, unknown, 0)
        fails("UnknownTopicId", self.host.publish, unknown, good)
        equal(self.describe()["end_offset"], 12, "the end")
        return "flipped, cut, empty, stale epochs, unknown id: nothing stored"

    def largest(self):
        """The largest message and the largest batch, and one byte more."""
        largest = self.host.hello["message_bytes_max"]
        large = encode_batch([record(0, bytes(largest + 1))])
        fields = fails("MessageTooLarge", self.host.publish, self.topic, large)
        equal(fields, {"bytes": largest + 1, "max": largest}, "the sizes")
        topic = self.create_topic(self.name + ".large")["topic"]
        limit = max(largest + (64 << 10), 327_680)
        fits = encode_batch([record(0, bytes(largest))])
        # Several records that are as large together as a batch may be, to the byte.
        fillers = [record(0, bytes(60_000)) for _ in range(limit // 60_000 - 1)]
        room = limit - len(encode_batch(fillers + [record(0, bytes(10_000))])) + 10_000
        while len(full := encode_batch(fillers + [record(0, bytes(room))])) > limit:
            room -= 1
        equal(len(full), limit, "the size of the largest batch")
        over = encode_batch(fillers + [record(0, bytes(room + 1))])
        self.host.publish(topic, fits)
        self.host.publish(topic, full)
        fails("BadBatch", self.host.publish, topic, over)
        end = self.host.call("DescribeTopic", name=topic["name"])["end_offset"]
        equal(end, 1 + len(fillers) + 1, "the end")
        self.host.call("DeleteTopic", name=topic["name"], id=topic["id"])
        return f"messages of {largest} bytes, batches of {limit}"

    def read(self):
        equal(records_from(self.host, self.topic, 0, 12), self.sent, "what was published")
        equal(records_from(self.host, self.topic, 6, 12), self.sent[6:], "from inside a batch")
        for wait in ({}, {"min_bytes": 1, "max_wait": 60_000}):
            fields = fails("OffsetOutOfRange", self.host.fetch, self.topic, 13, **wait)
            equal(fields, {"requested": 13, "start": 0, "end": 12}, "the range")
        return "12 records as published; from inside a batch; past the end is an error"

    def sizes(self):
        """Max bytes: the first batch always, others while all fit."""
        items = self.host.fetch(self.topic, 0)["items"]
        size = [len(item["batch"]) for item in items]
        equal(len(size), 3, "the batches")
        for most, count in (
            (0, 1),
            (size[0] - 1, 1),
            (size[0], 1),
            (size[0] + size[1] - 1, 1),
            (size[0] + size[1], 2),
            (sum(size) - 1, 2),
            (sum(size), 3),
            ((1 << 32) - 1, 3),
        ):
            # More than fits is not waited for.
            wait = {"min_bytes": sum(size), "max_wait": 60_000} if count < 3 else {}
            fetched = self.host.fetch(self.topic, 0, max_bytes=most, **wait)
            equal(len(fetched["items"]), count, f"batches in {most} bytes")
            equal(fetched["next"], 4 * count, "where to go on")
        return f"batches of {size} bytes, never more than was asked for"

    def ends(self):
        asked = {"pattern": self.name, "after": None, "max_wait_ms": 60_000}
        told = self.host.call("WatchEnds", version=0, **asked)
        ends = [(end["id"], end["start_offset"], end["end_offset"]) for end in told["ends"]]
        equal((ends, told["all"], told["next"]), ([(self.topic["id"], 0, 14)], True, None), "ends")
        asked["max_wait_ms"] = 50
        again = self.host.call("WatchEnds", version=told["version"], **asked)
        equal((again["ends"], again["all"]), ([], False), "ends that have not moved")
        asked["after"] = self.name
        rest = self.host.call("WatchEnds", version=0, **asked)
        equal(rest["ends"], [], "the page behind the last")
        return "one topic that ends at 14, and stays there"

    def long_poll(self):
        began = time.monotonic()
        fetched = self.host.fetch(self.topic, 12, min_bytes=1, max_wait=300)
        waited = time.monotonic() - began
        equal(fetched["items"], [], "items at the end")
        check(0.25 < waited < 5, f"it waits for 0.3 s, not {waited:.3f} s")
        fetched = self.host.fetch(self.topic, 12, min_bytes=0, max_wait=60_000)
        equal(fetched["items"], [], "items at the end, at once")
        reader = Connection(self.host_address)
        body = fetch_body(self.topic["id"], self.topic["epoch"], 12, min_bytes=1, max_wait=20_000)
        waiting = reader.send("Fetch", body)
        reader.call("Ping")  # answered although the fetch before it waits
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

    def stream(self):
        """Answers come as long as there is credit, and keep-alives in between."""
        reader = Connection(self.host_address)
        # One record is too little for a batch of four, which comes all the same; then nothing is left.
        stream = reader.stream(self.topic, 0, (1 << 20, 1), keep_alive=100)
        part = reader.part(stream)
        equal((len(part["items"]), part["next"]), (1, 4), "what one record of credit brings")
        began = time.monotonic()
        equal(reader.wait(stream), b"", "a keep-alive")
        check(time.monotonic() - began < 5, "it comes soon")
        reader.credit(stream, records=3)  # the debt
        equal(reader.wait(stream), b"", "without credit nothing but keep-alives comes")
        reader.credit(stream, bytes=(1 << 64) - 1, records=(1 << 64) - 1)
        reader.credit(stream, bytes=(1 << 64) - 1, records=(1 << 64) - 1)
        found, at = [], 4
        while at < 14:
            part = reader.part(stream)
            found += [r for item in part["items"] for r in decode_batch(item["batch"])[0]]
            at = part["next"]
        equal((found, at), (self.sent[4:], 14), "the records")
        reader.credit(stream, end=True)
        equal(reader.part(stream), None, "the end")
        fails("UnknownStream", reader.credit, stream, bytes=1)
        reader.call("Ping")
        reader.close()
        return "credit in bytes and records is kept to, paid back, and never overflows"

    def streams_end(self):
        """A stream ends with the error that a fetch would meet."""
        topic, many = self.topic, (1 << 20, 1 << 20)
        for error, changed, offset in (
            ("UnknownTopicId", {**topic, "id": bytes(16)}, 0),
            ("StaleEpoch", {**topic, "epoch": topic["epoch"] + 1}, 0),
            ("OffsetOutOfRange", topic, 15),
        ):
            fails(error, self.host.stream, changed, offset, many)
        reader = Connection(self.host_address)
        body = stream_body(topic["id"], topic["epoch"], 14, many)
        reader.send("Stream", body)
        twice = frame(REQUESTS["Stream"], reader.correlation, body)
        reader.socket.sendall(twice)
        first = (REQUESTS["Stream"], reader.correlation, 1)
        equal(reader.wait(first), b"", "the first stands")
        fails("InvalidArgument", reader.wait, first)
        reader.socket.shutdown(socket.SHUT_WR)
        fails("Unanswered", reader.part, first)
        check(reader.is_closed(), "and the connection ends")
        reader.close()
        return "with an error in its place, and with the client's sending side"

    def places(self):
        times = [item["append_time"] for item in self.host.fetch(self.topic, 0)["items"]]
        for position, offset in (
            ("Beginning", 0),
            ("End", 14),
            (("Offset", 7), 7),
            (("Offset", 14), 14),
            (("Back", 3), 11),
            (("Back", 99), 0),
            (("Time", times[0] - 1), 0),
            (("Time", -(1 << 63)), 0),
            (("Time", times[-1] + 1), 14),
        ):
            found = self.host.call("FindOffset", topic=self.name, position=position)
            expected = {
                "id": self.topic["id"],
                "epoch": self.topic["epoch"],
                "offset": offset,
                "start_offset": 0,
                "end_offset": 14,
            }
            equal(found, expected, f"the offset of {position}")
        past = {"topic": self.name, "position": ("Offset", 15)}
        fails("OffsetOutOfRange", self.host.call, "FindOffset", **past)
        return "beginning, end, offset, back and time become offsets"

    def subscription(self, request, **fields):
        return self.host.call(request, topic=self.name, name="proof", **fields)

    def commit(self, generation, offset):
        fields = {"name": "proof", "generation": generation, "offset": offset}
        return self.host.call("Commit", topic=self.topic["id"], **fields)["offset"]

    def subscribe(self):
        new = {"from": "Beginning", "if_not_exists": False, "expire_ms": None}
        made = self.subscription("CreateSubscription", **new)
        equal((made["committed_offset"], made["end_offset"]), (0, 14), "a new subscription")
        fails("SubscriptionExists", self.subscription, "CreateSubscription", **new)
        at_end = {"from": "End", "if_not_exists": True, "expire_ms": None}
        again = self.subscription("CreateSubscription", **at_end)
        equal(again["committed_offset"], 0, "the existing one")
        generation = made["generation"]
        equal(self.commit(generation, 6), 6, "the commit")
        equal(self.commit(generation, 3), 6, "a lower commit")
        fields = fails("CommitPastEnd", self.commit, generation, 15)
        equal(fields, {"offset": 15, "end": 14}, "the ends")
        nobody = {"topic": self.name, "name": "nobody"}
        fails("SubscriptionNotFound", self.host.call, "DescribeSubscription", **nobody)
        elsewhere = {"topic": os.urandom(16), "name": "proof", "generation": 1, "offset": 1}
        fails("UnknownTopicId", self.host.call, "Commit", **elsewhere)
        return "made, committed at 6, neither back nor past the end"

    def seek(self):
        before = self.subscription("DescribeSubscription")["generation"]
        moves = self.subscription("SeekSubscription", to=("Back", 1), dry_run=True)
        equal((moves["from"], moves["to"]), (6, 13), "what a seek would do")
        after = self.subscription("DescribeSubscription")["generation"]
        equal(after, before, "the generation after a dry run")
        moves = self.subscription("SeekSubscription", to=("Offset", 9), dry_run=False)
        equal((moves["from"], moves["to"]), (6, 9), "what the seek did")
        now = moves["subscription"]["generation"]
        check(now > before, "a seek raises the generation")
        fields = fails("StaleGeneration", self.commit, before, 12)
        equal(fields, {"given": before, "current": now}, "the generations")
        self.undo(now)
        return "moved to 9, back and there again; a late commit misses"

    def undo(self, generation):
        told = self.subscription("SubscriptionHistory")
        moves = [(change["kind"], change["from"], change["to"]) for change in told["changes"]]
        equal(moves, [("created", None, 0), ("seek", 6, 9)], "the history")
        check(told["changes"][1]["author"]["client"], "the history knows who it was")
        dry = self.subscription("UndoSubscription", generation=None, dry_run=True)
        equal((dry["from"], dry["to"]), (9, 6), "what an undo would do")
        back = self.subscription("UndoSubscription", generation=generation, dry_run=False)
        equal((back["from"], back["to"]), (9, 6), "what the undo did")
        again = {"generation": generation, "dry_run": False}
        fails("StaleGeneration", self.subscription, "UndoSubscription", **again)
        there = self.subscription("UndoSubscription", generation=None, dry_run=False)
        equal((there["from"], there["to"]), (6, 9), "what undoing the undo did")

    def resume(self):
        """As a subscriber that was restarted."""
        self.host.close()
        self.host = Connection(self.host_address)
        stands = self.subscription("DescribeSubscription")
        offset, end = stands["committed_offset"], stands["end_offset"]
        equal(offset, 9, "where it stands")
        topic = {"id": stands["topic_id"], "epoch": stands["epoch"]}
        records = records_from(self.host, topic, offset, end)
        equal(records, self.sent[9:], "what it had not confirmed")
        committed = self.commit(stands["generation"], end)
        stands = self.subscription("DescribeSubscription")
        equal((committed, stands["committed_offset"], stands["lag_ms"]), (14, 14, 0), "the end")
        return "the 5 records not confirmed come again, and nothing else"

    def pause(self):
        """Who attends is told at once; who commits is not refused."""
        def change(**changes):
            changes = {"paused": None, "expire_ms": None, **changes}
            return self.subscription("SetSubscription", changes=changes)

        watch = {"topic": self.topic["id"], "name": "proof", "paused": False}
        body = encode("WatchSubscription", {**watch, "max_wait_ms": 60_000})
        waiting = self.host.send("WatchSubscription", body)
        other = Connection(self.host_address)
        described = {"topic": self.name, "name": "proof"}
        while other.call("DescribeSubscription", **described)["readers"] == 0:
            pass
        changes = {"paused": True, "expire_ms": None}
        found = other.call("SetSubscription", **described, changes=changes)
        equal((found["paused"], found["expire_ms"]), (True, None), "what was set")
        told = decode("WatchedSubscription", self.host.wait(waiting))
        equal(told, {"paused": True}, "what who attends is told")
        told = self.host.call("WatchSubscription", **{**watch, "paused": True}, max_wait_ms=1)
        equal(told, {"paused": True}, "without news, after its wait")
        all_of_it = {"name": "proof", "pattern": self.name, "paused": []}
        told = self.host.call("WatchSubscriptions", **all_of_it, max_wait_ms=60_000)
        equal(told, {"paused": [self.topic["id"]]}, "what who follows a pattern is told")
        stands = self.subscription("DescribeSubscription")
        equal(self.commit(stands["generation"], 14), 14, "a commit while it is paused")
        found = change(paused=False, expire_ms=(3_600_000,))
        equal((found["paused"], found["expire_ms"]), (False, 3_600_000), "resumed")
        check(3_590_000 < found["expires_in_ms"] <= 3_600_000, "nobody attends it now")
        fails("InvalidArgument", change, expire_ms=(999,))
        equal(change(expire_ms=(None,))["expire_ms"], None, "it stays")
        gone = {**watch, "name": "nobody"}
        fails("SubscriptionNotFound", self.host.call, "WatchSubscription", **gone, max_wait_ms=1)
        return "attended, paused, told, resumed; an expiry there and back"

    def list_subscriptions(self):
        new = {"from": ("Back", 2), "if_not_exists": False, "expire_ms": None}
        self.host.call("CreateSubscription", topic=self.name, name="other", **new)
        found, after = [], None
        while True:
            page = self.host.call("ListSubscriptions", topic=self.name, after=after, limit=1)
            found += [(s["topic"], s["name"]) for s in page["subscriptions"]]
            if not page["more"]:
                break
            after = found[-1]
        equal(found, [(self.name, "other"), (self.name, "proof")], "all of the topic")
        page = self.host.call("ListSubscriptions", topic=None, after=None, limit=10_000)
        everywhere = [(s["topic"], s["name"]) for s in page["subscriptions"]]
        check(set(found) <= set(everywhere), "all of the peer")
        other = {"topic": self.name, "name": "other"}
        before = self.host.call("DescribeSubscription", **other)
        equal(before["committed_offset"], 12, "two records back")
        self.host.call("DeleteSubscription", **other)
        fails("SubscriptionNotFound", self.host.call, "DeleteSubscription", **other)
        anew = self.host.call("CreateSubscription", **other, **new)
        check(anew["generation"] > before["generation"], "made anew has a higher generation")
        return "pages of one, deleted, made anew under a higher generation"

    def take(self, member, records, wait_ms=0):
        """Offset, delivery and record of each, taken on the connection of a member."""
        fields = {**self.seat(member), "records": records, "bytes": 1 << 20, "wait_ms": wait_ms}
        answer = decode_taken(member.call_raw("TakeRecords", encode("TakeRecords", fields)))
        Connection.answered.add("TakeRecords")
        equal(answer["ack_deadline"], self.jobs["options"]["ack_deadline_ms"], "the deadline")
        self.answers[member] = self.answers.get(member, 0) + 1
        equal(answer["number"], self.answers[member], "the number of the answer")
        found = []
        for item in answer["items"]:
            records = iter(decode_batch(item["batch"])[0])
            for first, count, delivery in item["runs"]:
                found += [(first + n, delivery, next(records)) for n in range(count)]
            check(next(records, None) is None, "a batch has just the records of its runs")
        return found

    def seat(self, member):
        return {
            "topic": self.jobs["topic_id"],
            "name": "workers",
            "generation": self.jobs["generation"],
            "member": member.id,
        }

    def say(self, member, taken, verdict):
        runs = [
            {"first": offset, "count": 1, "delivery": delivery, "verdict": verdict}
            for offset, delivery, _ in taken
        ]
        return member.call("SettleRecords", **self.seat(member), runs=runs)["not_held"]

    def member(self):
        member = Connection(self.host_address)
        member.id = os.urandom(16)
        member.call("JoinConsumerGroup", **self.seat(member))
        return member

    def group(self):
        """Each record goes to one member."""
        topic = self.create_topic(self.name + ".jobs")["topic"]
        jobs = [record(0, f"job {n}".encode()) for n in range(6)]
        self.host.publish(topic, encode_batch(jobs))
        options = {
            "ack_deadline_ms": 60_000, "deliveries_max": 2, "backoff_ms": [], "unacked_max": None,
            "ordered_by_key": None, "dead_letters": None,
        }  # fmt: skip
        making = {
            "topic": topic["name"], "name": "workers", "from": "Beginning", "options": options,
        }  # fmt: skip
        self.jobs = self.host.call("CreateConsumerGroup", **making, if_not_exists=False)
        self.answers = {}
        equal(self.jobs["options"]["dead_letters"], f"dead.{topic['name']}.workers", "the default")
        fails("ConsumerGroupExists", self.host.call, "CreateConsumerGroup", **making, if_not_exists=False)
        making = {"topic": topic["name"], "name": "workers", "from": "End", "if_not_exists": True}
        fails("ConsumerGroupExists", self.host.call, "CreateSubscription", **making, expire_ms=None)
        self.first, self.second = self.member(), self.member()
        self.mine, self.yours = self.take(self.first, 4), self.take(self.second, 10)
        equal([(o, d) for o, d, _ in self.mine], [(n, 1) for n in range(4)], "what came first")
        equal([r["value"] for _, _, r in self.yours], [b"job 4", b"job 5"], "what came then")
        equal(self.take(self.first, 10), [], "what is left")
        return "6 records between two members"

    def settle(self):
        equal(self.say(self.first, self.mine[:2], "Ack"), [], "what was refused")
        told = self.say(self.second, self.mine[:3], "Ack")
        expected = [
            {"first": 0, "count": 2, "instead": "Settled"},
            {"first": 2, "count": 1, "instead": "Elsewhere"},
        ]
        equal(told, expected, "what was refused")
        unknown = [(6, 1, None), (1 << 40, 1, None)]
        expected = [
            {"first": 6, "count": 1, "instead": "Untouched"},
            {"first": 1 << 40, "count": 1, "instead": "Untouched"},
        ]
        equal(self.say(self.first, unknown, "Ack"), expected, "what is past the end")
        self.say(self.first, self.mine[2:3], "Extend")
        equal(self.say(self.first, self.mine[2:3], ("Nak", {"delay_ms": 0})), [], "a nak")
        again = self.take(self.second, 10, wait_ms=5000)
        equal([(o, d) for o, d, _ in again], [(2, 2)], "what comes again")
        equal(self.say(self.second, again + self.yours, "Ack"), [], "what was refused")
        stranger = Connection(self.host_address)
        stranger.id = self.first.id
        fails("NotAMember", self.say, stranger, self.mine[3:], "Ack")
        stranger.close()
        return "acknowledged once each; refused, extended, given again"

    def dead_letters(self):
        dead = self.jobs["options"]["dead_letters"]
        equal(self.say(self.first, self.mine[3:], ("Reject", {"reason": "too heavy"})), [], "a reject")
        deadline = time.monotonic() + 10
        describing = {"topic": self.jobs["topic"], "name": "workers"}
        while self.host.call("DescribeConsumerGroup", **describing)["dead"] == 0:
            check(time.monotonic() < deadline, "the dead letter is written")
            time.sleep(0.05)
        found = self.entry.call("Lookup", name=dead, local_only=False)
        (letter,) = records_from(self.host, found, 0, 1)
        headers = dict(letter["headers"])
        equal(headers["tidings-dead-reason"], b"too heavy", "the reason")
        equal(headers["tidings-dead-topic"], self.jobs["topic"].encode(), "where it came from")
        equal((headers["tidings-dead-offset"], letter["value"]), (b"3", b"job 3"), "the record")
        answer = self.host.call("ReplayDeadLetters", topic=dead, before=1)
        equal(answer, {"next": 1, "replayed": 1}, "the replay")
        again = self.take(self.second, 10, wait_ms=5000)
        equal([(o, r["value"], r["headers"]) for o, _, r in again], [(6, b"job 3", [])], "again")
        equal(self.say(self.second, again, "Ack"), [], "what was refused")
        self.host.call("DeleteTopic", name=dead, id=None)
        return "one, with its reason and origin, and replayed"

    def manage_groups(self):
        named = {"topic": self.jobs["topic"], "name": "workers"}
        changes = {
            "ack_deadline_ms": 1000, "deliveries_max": None, "backoff_ms": None, "unacked_max": None,
            "ordered_by_key": None, "dead_letters": None,
        }  # fmt: skip
        told = self.host.call("SetConsumerGroup", **named, changes=changes)
        equal((told["options"]["ack_deadline_ms"], told["acknowledged"]), (1000, 6), "the group")
        bad = {**changes, "ack_deadline_ms": 1}
        fails("InvalidArgument", self.host.call, "SetConsumerGroup", **named, changes=bad)
        listing = {"topic": self.jobs["topic"], "after": None, "limit": 5}
        page = self.host.call("ListConsumerGroups", **listing)
        equal([group["name"] for group in page["groups"]], ["workers"], "the list")
        self.first.call("LeaveConsumerGroup", **{
            field: value for field, value in self.seat(self.first).items() if field != "generation"
        })  # fmt: skip
        sought = self.host.call("SeekConsumerGroup", **named, to=("Offset", 5), dry_run=False)
        equal((sought["from"], sought["to"]), (7, 5), "where it stood and stands")
        fails("StaleGeneration", self.take, self.second, 1)
        self.host.call("DeleteConsumerGroup", **named)
        fails("ConsumerGroupNotFound", self.take, self.second, 1)
        self.host.call("DeleteTopic", name=self.jobs["topic"], id=None)
        fails("UnknownTopicId", self.take, self.second, 1)
        self.first.close()
        self.second.close()
        return "changed, listed, left, moved, removed"

    def later(self):
        """What is to be delivered later comes in the order of its times, without what was cancelled."""
        topic = self.create_topic(self.name + ".due")["topic"]
        name = topic["name"]
        opened = self.host.call("OpenLater", topic=topic["id"])
        equal(opened["name"], f"later.{name}", "the companion")
        equal(self.host.call("OpenLater", topic=topic["id"]), opened, "the same again")
        companion = self.entry.call("Lookup", name=opened["name"], local_only=False)
        now = int(time.time() * 1000)
        delays = [(b"never", 3_600_000), (b"second", 400), (b"first", 200)]
        messages = [
            record(now, value, headers=[("tidings-deliver-at", str(now + delay).encode())])
            for value, delay in delays
        ]
        self.host.publish(companion, encode_batch(messages))
        listing = {"topic": name, "after": None, "limit": 2}
        page = self.host.call("ListLater", **listing)
        equal([message["number"] for message in page["messages"]], [2, 1], "the earliest first")
        equal((page["topics"][0]["pending"], page["more"]), (3, True), "how many there are")
        last = page["messages"][-1]
        after = {field: last[field] for field in ("at", "stored_in", "number")}
        page = self.host.call("ListLater", **{**listing, "after": after})
        equal([message["payload"] for message in page["messages"]], [b"never"], "the next page")
        cancel = {"topic": name, "which": ("Number", 0)}
        told = self.host.call("CancelLater", **cancel)
        equal(told, {"cancelled": 1, "too_late": False}, "cancelled")
        told = self.host.call("CancelLater", **cancel)
        equal(told, {"cancelled": 0, "too_late": True}, "cancelled before")
        deadline = time.monotonic() + 10
        while self.host.call("DescribeTopic", name=name)["end_offset"] < 2:
            check(time.monotonic() < deadline, "they are delivered")
            time.sleep(0.05)
        check(time.time() * 1000 >= now + 400, "not before their time")
        found = records_from(self.host, topic, 0, 2)
        equal([one["value"] for one in found], [b"first", b"second"], "in order of time")
        equal(found[0]["headers"], messages[2]["headers"], "with the time that was meant")
        self.host.call("DeleteTopic", name=name, id=None)
        fails("TopicNotFound", self.host.call, "DescribeTopic", name=opened["name"])
        return "two delivered in order of time, one cancelled"

    def settings(self):
        def change(**changes):
            return self.host.call(
                "SetTopic", name=self.name, changes={**NO_CHANGES, **changes}
            )["settings"]

        found = change(durability="os", retain_records=(1000,))
        bounds = {**NO_BOUNDS, "records": 1000}
        expected = {**DEFAULTS, "durability": "os", "retention": bounds}
        equal(found, expected, "what was set")
        equal(change(), expected, "nothing changed")
        found = change(durability="fsync", retain_records=(None,))
        equal(found, DEFAULTS, "the bound is gone")
        self.full(change)
        fails("NotQuarantined", self.host.call, "AcceptLoss", name=self.name)
        return "durability and bounds, there and back; full it refuses; there is no loss to accept"

    def full(self, change):
        held = self.host.call("DescribeTopic", name=self.name)
        count = held["end_offset"] - held["start_offset"]
        change(retain_records=(count,), when_full="refuse")
        fields = fails("TopicFull", self.host.publish, self.topic, encode_batch([record(0, b"more")]))
        equal(fields["records"], count, "what it holds")
        equal(change(retain_records=(None,), when_full="discard-oldest"), DEFAULTS, "as before")

    def purge(self):
        """To an offset inside a batch; what was there is a gap."""
        purge = {"name": self.name, "before": ("Offset", 6)}
        equal(self.host.call("PurgeTopic", **purge)["start_offset"], 6, "the start")
        equal(self.host.call("PurgeTopic", **purge)["start_offset"], 6, "the start, again")
        fetched = self.host.fetch(self.topic, 0)
        gap = {"from": 0, "to": 6, "reason": 1}
        equal((fetched["start"], fetched["items"][0]), (6, gap), "what is not there any more")
        equal(fetched["items"][1]["base"], 4, "the batch that holds the start")
        equal(records_from(self.host, self.topic, 6, 14), self.sent[6:], "what is left")
        for position in (("Offset", 5), ("Offset", 15)):
            outside = {"name": self.name, "before": position}
            fails("OffsetOutOfRange", self.host.call, "PurgeTopic", **outside)
        nobody = {"name": self.name, "key": b"a key that nobody has"}
        equal(self.host.call("PurgeKey", **nobody)["end_offset"], 14, "the end")
        equal(records_from(self.host, self.topic, 6, 14), self.sent[6:], "nothing of that key")
        return "6 records are gone, and told as a gap"

    def rename(self):
        new = self.name + ".renamed"
        renamed = self.host.call("RenameTopic", name=self.name, new=new)
        equal((renamed["name"], renamed["id"]), (new, self.topic["id"]), "the topic")
        again = {"name": self.name, "new": new}
        fails("TopicNotFound", self.host.call, "RenameTopic", **again)
        fails("TopicExists", self.host.call, "RenameTopic", name=new, new=new)
        self.is_gone(self.name)
        found = self.entry.call("Lookup", name=new, local_only=False)
        equal(found["id"], self.topic["id"], "the lookup")
        self.name, self.topic = new, found
        equal(records_from(self.host, found, 12, 14), self.sent[12:], "the records")
        return f"{new}, with everything in it"

    def delete(self):
        other = {"name": self.name, "id": os.urandom(16)}
        fails("TopicNotFound", self.host.call, "DeleteTopic", **other)
        body = fetch_body(self.topic["id"], self.topic["epoch"], 14, min_bytes=1, max_wait=60_000)
        waiting = self.host.send("Fetch", body)
        follower = Connection(self.host_address)
        stream = follower.stream(self.topic, 14, (1 << 20, 1 << 20))
        self.host.call("DeleteTopic", name=self.name, id=self.topic["id"])
        fails("UnknownTopicId", self.host.wait, waiting)
        fails("UnknownTopicId", follower.part, stream)
        follower.close()
        self.is_gone(self.name)
        fails("UnknownTopicId", self.host.fetch, self.topic, 0)
        return f"{self.name} is gone, and the fetch and the stream that waited for it end"
