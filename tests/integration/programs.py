"""What the tests of several programs need: peers that do not answer, and how long something took."""

import socket
import time
from contextlib import contextmanager

SOON = 0.2
"""Seconds of a timeout that is meant to fire."""

LATE = 60.0
"""Seconds of one that is not."""

SLACK = 0.002
"""What a timeout may seem to come early by, in seconds: uvloop's clock counts milliseconds, and programs round."""


@contextmanager
def never_early(seconds):
    """The block ends no earlier than `seconds` after its start: what it waits for is a timeout of that length."""
    start = time.monotonic()
    yield
    assert time.monotonic() - start >= seconds - SLACK


@contextmanager
def fires(seconds, error):
    """The block is ended by a timeout of so many seconds, which raises `error`, and no earlier."""
    with never_early(seconds):
        try:
            yield
        except error:
            pass
        else:
            raise AssertionError(f"no {error} within the block")


@contextmanager
def mute_server():
    """Where connections are taken by the system, and nobody ever answers; the port, on the loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@contextmanager
def full_server():
    """Where no further connection is taken, since the queue of those that wait is full; the port, on the loopback."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening:
        with socket.create_connection(listening.getsockname()):
            yield listening.getsockname()[1]
