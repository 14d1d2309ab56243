"""websockets, client and server on one loop: timeouts of the opening, of pings, of the closing and of a read."""

import asyncio
import logging

import pytest
from programs import LATE, SOON, fires, mute_server, never_early
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosedError


async def echo(connection):
    async for message in connection:
        await connection.send(message)


def address(server):
    return server.sockets[0].getsockname()[:2]


def url(server):
    return "ws://{}:{}".format(*address(server))


async def open_by_hand(server):
    """The opening handshake of a client that does nothing else of itself."""
    host, port = address(server)
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(
        b"GET / HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    return reader, writer


def test_opening(run):
    async def main():
        with mute_server() as port:
            with fires(SOON, TimeoutError):
                async with connect(f"ws://127.0.0.1:{port}", open_timeout=SOON):
                    pass
        async with serve(echo, "127.0.0.1", 0, open_timeout=SOON) as server:
            with never_early(SOON):
                reader, writer = await asyncio.open_connection(*address(server))
                assert await reader.read() == b""
                writer.close()
            async with connect(url(server), open_timeout=LATE) as connection:
                await asyncio.sleep(2 * SOON)
                await connection.send("still there")
                assert await connection.recv() == "still there"

    run(main)


def test_pings_that_are_answered_keep_a_connection(run, caplog):
    async def main():
        async with serve(echo, "127.0.0.1", 0, ping_interval=0.1, ping_timeout=1) as server:
            async with connect(url(server), ping_interval=0.1, ping_timeout=1) as connection:
                await asyncio.sleep(1.5)
                await connection.send("still there")
                assert await connection.recv() == "still there"

    caplog.set_level(logging.DEBUG, "websockets")
    run(main)
    pongs = [record.name for record in caplog.records if record.message == "% received keepalive pong"]
    assert pongs.count("websockets.client") >= 2
    assert pongs.count("websockets.server") >= 2


def test_pings_that_are_not_answered_end_it(run):
    async def main():
        ended = asyncio.Queue()

        async def note_end(connection):
            try:
                await connection.recv()
            except ConnectionClosedError as exc:
                ended.put_nowait(exc)

        async with serve(
            note_end, "127.0.0.1", 0, ping_interval=SOON, ping_timeout=SOON, close_timeout=SOON
        ) as server:
            with never_early(2 * SOON):
                reader, writer = await open_by_hand(server)
                error = await ended.get()
            assert (error.sent.code, error.sent.reason) == (1011, "keepalive ping timeout")
            assert error.rcvd is None
            assert (await reader.readexactly(2))[0] == 0x89  # a ping
            writer.close()

    run(main)


def test_closing(run):
    """The peer that was asked to close has `close_timeout` for it, which one that does close does not need."""
    async def main():
        async def close(connection):
            with never_early(SOON):
                await connection.close()
            took.put_nowait(connection.close_code)

        took = asyncio.Queue()
        async with serve(close, "127.0.0.1", 0, close_timeout=SOON) as server:
            _, writer = await open_by_hand(server)
            assert await took.get() == 1006
            writer.close()
        async with serve(echo, "127.0.0.1", 0, close_timeout=LATE) as server:
            async with connect(url(server), close_timeout=LATE) as connection:
                await connection.send("last words")
                assert await connection.recv() == "last words"
            assert connection.close_code == 1000

    run(main)


@pytest.mark.parametrize("wait_for", [True, False])
def test_read_that_times_out_loses_no_message(run, wait_for):
    async def main():
        async with serve(echo, "127.0.0.1", 0) as server, connect(url(server)) as connection:
            async def recv(seconds):
                if wait_for:
                    return await asyncio.wait_for(connection.recv(), seconds)
                async with asyncio.timeout(seconds):
                    return await connection.recv()

            with fires(SOON, TimeoutError):
                await recv(SOON)
            sent = received = 0
            for number in range(300):
                await connection.send(str(number))
                sent += 1
                try:
                    assert await recv(0.0003 if number % 2 else LATE) == str(received)
                    received += 1
                except TimeoutError:
                    pass
            while received < sent:
                assert await recv(LATE) == str(received)
                received += 1

    run(main)


def test_many_connections_with_heartbeats_and_timeouts(run):
    patient = {"open_timeout": LATE, "close_timeout": LATE, "ping_interval": 0.1, "ping_timeout": LATE}

    async def main():
        async with serve(echo, "127.0.0.1", 0, **patient) as server:
            async def talk(number):
                async with connect(url(server), **patient) as connection:
                    for turn in range(10):
                        await connection.send(f"{number} {turn}")
                        assert await asyncio.wait_for(connection.recv(), LATE) == f"{number} {turn}"
                        await asyncio.sleep(0.03)

            await asyncio.gather(*map(talk, range(100)))

    run(main)
