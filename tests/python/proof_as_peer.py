"""What a peer tells the index (section 5.3), step by step, by a peer that stores nothing."""

import os

from checks import check, equal, fails, say
from tidings_client import Connection

LOAD = {
    "topics": 0,
    "stored_bytes": 0,
    "bytes_in_per_second": 0,
    "bytes_out_per_second": 0,
    "connections": 0,
    "disk_free_bytes": 0,
}


class PeerProof:
    """The steps, in order. Nothing should be placed here meanwhile: it tells a full disk."""

    def __init__(self, address, name):
        entry = Connection(address)
        index = address if entry.hello["role"] == "index" else entry.hello["indexes"][0]
        entry.close()
        self.index = Connection(index)
        self.topics = name + ".of-peer"
        self.peer, self.nonce = os.urandom(16), os.urandom(16)
        self.peer_name = "proof-" + self.peer.hex()[:8]
        self.steps = [
            self.stranger, self.register, self.list_topics, self.conflict, self.claim,
            self.rename, self.move, self.watch, self.displaced, self.depart,
        ]  # fmt: skip

    def run(self):
        for step in self.steps:
            say(step.__name__, step())

    def ask(self, request, nonce=None, **fields):
        return self.index.call(request, peer=self.peer, nonce=nonce or self.nonce, **fields)

    def introduce(self, nonce=None, **changes):
        fields = {"name": self.peer_name, "address": "localhost:9", "load": LOAD, **changes}
        return self.ask("RegisterPeer", nonce, **fields)

    def list(self, topics, part=0, last=True):
        listed = [dict(zip(("name", "id", "epoch"), topic)) for topic in topics]
        answer = self.ask("RegisterTopics", part=part, last=last, topics=listed)
        return [(c["name"], c["id"], c["holder"]) for c in answer["conflicts"]]

    def lookup(self, name):
        found = self.index.call("Lookup", name=name, local_only=False)
        return found["peer_name"], found["id"], found["epoch"]

    def is_free(self, name):
        fails("TopicNotFound", self.lookup, name)

    def named(self, suffix):
        return f"{self.topics}.{suffix}"

    def stranger(self):
        fails("NotRegistered", self.ask, "Heartbeat", load=LOAD)
        fails("NotRegistered", self.list, [])
        claim = {"name": self.named("a"), "id": os.urandom(16)}
        fails("NotRegistered", self.ask, "ClaimTopic", **claim)
        fails("NotRegistered", self.ask, "Depart", leave=False)
        return "who is not registered is told so"

    def register(self):
        nobody = {"peer": bytes(16), "nonce": self.nonce, "name": self.peer_name}
        introduction = {**nobody, "address": "localhost:9", "load": LOAD}
        fails("InvalidArgument", self.index.call, "RegisterPeer", **introduction)
        taken = self.index.call("ListPeers")[0]["name"]
        fields = fails("PeerNameTaken", self.introduce, name=taken)
        equal(fields["name"], taken, "the name that is taken")
        check(self.introduce()["lease_ms"] > 0, "a lease")
        self.ask("Heartbeat", load=LOAD)
        return f"as {self.peer_name}"

    def list_topics(self):
        """In parts; it counts when the last one is there."""
        a, b = (self.named("a"), os.urandom(16), 1), (self.named("b"), os.urandom(16), 3)
        fails("InvalidArgument", self.list, [b], part=1)
        equal(self.list([a], last=False), [], "conflicts told before the last part")
        self.is_free(a[0])
        fails("InvalidArgument", self.list, [b], part=2)
        equal(self.list([b], part=1), [], "conflicts")
        for name, topic, epoch in (a, b):
            equal(self.lookup(name), (self.peer_name, topic, epoch), "the lookup")
        equal(self.list([a]), [], "conflicts of a shorter list")
        self.is_free(b[0])
        zero = (self.named("zero"), bytes(16), 1)
        fails("InvalidArgument", self.list, [zero])
        # What is confirmed or dropped while a list comes in is applied to it.
        self.list([a, b], last=False)
        self.ask("DropTopic", name=b[0], id=b[1])
        late = (self.named("late"), os.urandom(16), 1)
        self.ask("ConfirmTopic", name=late[0], id=late[1], epoch=1)
        self.list([], part=1)
        self.is_free(b[0])
        equal(self.lookup(late[0])[1], late[1], "what was confirmed meanwhile")
        self.a = a
        return "in parts, replaced as a whole, with what happened meanwhile"

    def conflict(self):
        other = (self.a[0], os.urandom(16), 1)
        found = self.list([self.a, other])
        equal(found, [(other[0], other[1], self.peer_name)], "the conflict")
        equal(self.lookup(self.a[0])[1], self.a[1], "the name stays")
        twice = self.list([(self.named("old"), self.a[1], 1), self.a])
        equal(twice, [], "an id listed twice")
        self.is_free(self.named("old"))
        return "a name that is taken is told; the last mention of an id counts"

    def claim(self):
        name, topic = self.named("c"), os.urandom(16)
        epoch = self.ask("ClaimTopic", name=name, id=topic)["epoch"]
        equal(self.ask("ClaimTopic", name=name, id=topic)["epoch"], epoch, "the same claim")
        other = {"name": name, "id": os.urandom(16)}
        fails("ClaimPending", self.ask, "ClaimTopic", **other)
        fails("ClaimPending", self.ask, "ConfirmTopic", **other, epoch=1)
        self.is_free(name)
        fields = fails("StaleEpoch", self.ask, "ConfirmTopic", name=name, id=topic, epoch=0)
        equal(fields, {"given": 0, "current": epoch}, "the epochs")
        for _ in range(2):
            self.ask("ConfirmTopic", name=name, id=topic, epoch=epoch)
        equal(self.lookup(name), (self.peer_name, topic, epoch), "the lookup")
        fails("TopicExists", self.ask, "ClaimTopic", **other)
        fails("NameConflict", self.ask, "ConfirmTopic", **other, epoch=1)
        self.ask("DropTopic", **other)  # of another id: left alone
        equal(self.lookup(name)[1], topic, "the lookup")
        given_up = {"name": self.named("given-up"), "id": os.urandom(16)}
        self.ask("ClaimTopic", **given_up)
        self.ask("DropTopic", **given_up)
        self.ask("ClaimTopic", name=given_up["name"], id=os.urandom(16))
        self.c = (topic, epoch)
        return "claimed, confirmed twice, not to be had by another, given up"

    def rename(self):
        topic, epoch = self.c
        new = {"name": self.named("d"), "id": topic}
        equal(self.ask("ClaimTopic", **new)["epoch"], epoch, "the epoch of a second name")
        self.ask("ConfirmTopic", **new, epoch=epoch)
        self.is_free(self.named("c"))
        equal(self.lookup(new["name"]), (self.peer_name, topic, epoch), "the lookup")
        for _ in range(2):
            self.ask("DropTopic", **new)
        self.is_free(new["name"])
        return "a second name takes the place of the first"

    def move(self):
        """The same topic at two peers: the higher epoch has the name."""
        other = {"peer": os.urandom(16), "nonce": os.urandom(16)}
        address = {"name": self.peer_name + "-2", "address": "localhost:10", "load": LOAD}
        self.index.call("RegisterPeer", **other, **address)

        def list_other(epoch):
            topics = [{"name": self.a[0], "id": self.a[1], "epoch": epoch}]
            parts = {"part": 0, "last": True, "topics": topics}
            return self.index.call("RegisterTopics", **other, **parts)["conflicts"]

        equal(list_other(1)[0]["holder"], self.peer_name, "the same epoch: who held it first")
        claim = {"name": self.a[0], "id": self.a[1]}
        fails("TopicExists", self.index.call, "ClaimTopic", **other, **claim)
        elsewhere = {"name": self.named("elsewhere"), "id": self.a[1]}
        fails("NameConflict", self.index.call, "ClaimTopic", **other, **elsewhere)
        equal(list_other(2), [], "a higher epoch")
        equal(self.lookup(self.a[0]), (address["name"], self.a[1], 2), "it moved")
        equal(self.list([self.a]), [(*self.a[:2], address["name"])], "the conflict here")
        # The host ends; who has a copy may take it over, an epoch above.
        self.index.call("Depart", **other, leave=False)
        epoch = self.ask("ClaimTopic", **claim)["epoch"]
        equal(epoch, 3, "the epoch")
        self.ask("ConfirmTopic", **claim, epoch=epoch)
        equal(self.lookup(self.a[0]), (self.peer_name, self.a[1], 3), "it moved back")
        self.index.call("RetirePeer", name=address["name"])
        self.a = (*self.a[:2], 3)
        return "to a higher epoch, and back from a peer that ended"

    def watch(self):
        pattern = self.topics + ".*"
        first = self.index.call("Watch", version=0, pattern=pattern, max_wait_ms=60_000)
        equal((first["reset"], first["changed"], first["dropped"]), (True, [], []), "at first")
        again = {"version": first["version"], "pattern": pattern}
        quiet = self.index.call("Watch", **again, max_wait_ms=0)
        equal((quiet["reset"], quiet["changed"]), (False, []), "nothing new")
        self.ask("ConfirmTopic", name=self.named("w"), id=os.urandom(16), epoch=1)
        self.ask("DropTopic", name=self.named("late"), id=os.urandom(16))
        found = self.index.call("Watch", **again, max_wait_ms=60_000)
        changed = [topic["name"] for topic in found["changed"]]
        equal((changed, found["dropped"]), ([self.named("w")], []), "what changed")
        again["version"] = found["version"]
        self.ask("DropTopic", name=self.a[0], id=self.a[1])
        found = self.index.call("Watch", **again, max_wait_ms=60_000)
        equal((found["changed"], found["dropped"]), ([], [self.a[0]]), "what is gone")
        unknown = {**again, "version": (1 << 64) - 1}
        check(self.index.call("Watch", **unknown, max_wait_ms=60_000)["reset"], "a false version")
        return "from 0, a new topic, one that is gone"

    def displaced(self):
        """Another process has the same identity."""
        old, self.nonce = self.nonce, os.urandom(16)
        self.introduce()
        fails("Displaced", self.ask, "Heartbeat", old, load=LOAD)
        fails("Displaced", self.introduce, old)
        fails("Displaced", self.ask, "Depart", old, leave=True)
        equal(self.lookup(self.named("w"))[0], self.peer_name, "the old list until the new one")
        self.list([(self.named("n"), os.urandom(16), 1)])
        self.is_free(self.named("w"))
        return "the newest process counts"

    def depart(self):
        name = self.named("n")

        def state():
            return self.index.call("Lookup", name=name, local_only=False)["state"]

        equal(state(), "online", "the state")
        for _ in range(2):
            self.ask("Depart", leave=False)
        equal(state(), "offline", "the state of a peer that ended")
        fails("NotRegistered", self.ask, "Heartbeat", load=LOAD)
        gone = {"name": name + ".new", "on": self.peer_name}
        fields = fails("PeerNotOnline", self.index.call, "PlaceTopic", **gone)
        equal(fields, {"peer": self.peer_name, "state": "offline"}, "who is not online")
        self.introduce()
        equal(state(), "online", "the state of one that is back")
        for _ in range(2):
            self.ask("Depart", leave=True)
        self.is_free(name)
        fails("PeerNotFound", self.index.call, "RetirePeer", name=self.peer_name)
        return "ended, back, and gone for good"
