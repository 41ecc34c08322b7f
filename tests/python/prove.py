#!/usr/bin/env python3
"""Proves docs/protocol.md with the client that was written from it.

    prove.py ADDRESS [--topic NAME]

connects to an index server or to any peer, has a topic placed and creates it,
publishes with a producer id and repeats a batch on purpose, fetches with a long
poll, keeps a subscription, provokes errors, and registers at the index as a peer
would; then it deletes what it made. Every request of the page is sent. One line for
each step; status 1 at the first thing that is not as the page says.

    prove.py --self-test data/fixtures/protocol/vectors.txt

compares the client's encoding and decoding with the golden vectors.
"""

import argparse
import os
import sys

from checks import Mismatch, equal
from proof_as_client import ClientProof
from proof_as_peer import PeerProof
from tidings_client import REQUESTS, ApiError, Connection, ProtocolError, Unsupported
from vectors import self_test


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
            ClientProof(options.address, name).run()
            PeerProof(options.address, name).run()
            # There is no loss to accept; everything else was done.
            undone = set(REQUESTS) - Connection.answered
            equal(undone, {"AcceptLoss"}, "requests that were never answered")
    except (Mismatch, ProtocolError, ApiError, Unsupported, OSError) as error:
        print(f"FAILED: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print("all as the page says")
    return 0


if __name__ == "__main__":
    sys.exit(main())
