"""aiohttp, client and server on one loop: timeouts of a request, of reading, of idle connections and of heartbeats."""

import asyncio
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from programs import LATE, SOON, fires, mute_server, never_early

TRICKLE = 25
"""Chunks of a slow body, a tenth of a second apart: longer in all than the timeout of one read, 2 s."""


@asynccontextmanager
async def serving(routes, **options):
    """A server with these handlers; its base URL."""
    app = web.Application()
    app.router.add_routes([web.get(path, handler) for path, handler in routes.items()])
    runner = web.AppRunner(app, **options)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def at_once(request):
    return web.Response(text="done")


async def stuck(request):
    await asyncio.sleep(LATE)


def test_total_timeout_of_a_request(run):
    async def main():
        async with serving({"/fast": at_once, "/slow": stuck}, shutdown_timeout=0.1) as url:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LATE)) as session:
                with fires(SOON, TimeoutError):
                    await session.get(f"{url}/slow", timeout=aiohttp.ClientTimeout(total=SOON))
                for _ in range(20):
                    async with session.get(f"{url}/fast") as response:
                        assert await response.text() == "done"

    run(main)


def test_connect_timeout_waits_for_a_free_connection(run):
    async def main():
        async with serving({"/fast": at_once, "/slow": stuck}, shutdown_timeout=0.1) as url:
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
                held = asyncio.create_task(session.get(f"{url}/slow"))
                await asyncio.sleep(0.05)
                with fires(SOON, aiohttp.ConnectionTimeoutError):
                    await session.get(f"{url}/fast", timeout=aiohttp.ClientTimeout(connect=SOON))
                waiting = asyncio.create_task(
                    session.get(f"{url}/fast", timeout=aiohttp.ClientTimeout(connect=LATE))
                )
                await asyncio.sleep(0.05)
                held.cancel()
                async with await waiting as response:
                    assert response.status == 200

    run(main)


def test_read_timeout_starts_anew_with_each_chunk(run):
    async def trickle(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(TRICKLE):
            await asyncio.sleep(0.1)
            await response.write(b"x")
        return response

    async def stall(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x")
        await asyncio.sleep(LATE)

    async def main():
        async with serving({"/trickle": trickle, "/stall": stall}, shutdown_timeout=0.1) as url:
            async with aiohttp.ClientSession() as session:
                with never_early(0.1 * TRICKLE):
                    timeout = aiohttp.ClientTimeout(sock_read=2)
                    async with session.get(f"{url}/trickle", timeout=timeout) as response:
                        assert await response.read() == b"x" * TRICKLE
                with fires(SOON, aiohttp.SocketTimeoutError):
                    async with session.get(f"{url}/stall", timeout=aiohttp.ClientTimeout(sock_read=SOON)) as response:
                        assert await response.content.readexactly(1) == b"x"
                        await response.read()

    run(main)


def test_a_server_that_never_answers(run):
    async def main():
        with mute_server() as port:
            async with aiohttp.ClientSession() as session:
                with fires(SOON, aiohttp.SocketTimeoutError):
                    await session.get(f"http://127.0.0.1:{port}/", timeout=aiohttp.ClientTimeout(sock_read=SOON))

    run(main)


@pytest.mark.parametrize("keepalive", [SOON, LATE])
def test_server_ends_an_idle_connection_after_its_keepalive_timeout(run, keepalive):
    async def main():
        async with serving({"/": at_once}, keepalive_timeout=keepalive) as url:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))

            async def request():
                writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 OK")
                assert await reader.readexactly(4) == b"done"

            if keepalive == LATE:
                await request()
                await asyncio.sleep(2 * SOON)
                await request()
            else:
                with never_early(keepalive):
                    await request()
                    assert await reader.read() == b""
            writer.close()

    run(main)


@pytest.mark.parametrize(("keepalive", "connections"), [(SOON, 2), (LATE, 1)])
def test_client_drops_an_idle_connection_after_its_keepalive_timeout(run, keepalive, connections):
    peers = set()

    async def note_peer(request):
        peers.add(request.transport.get_extra_info("peername"))
        return web.Response(text="done")

    async def main():
        connector = aiohttp.TCPConnector(keepalive_timeout=keepalive)
        async with serving({"/": note_peer}) as url, aiohttp.ClientSession(connector=connector) as session:
            for _ in range(2):
                async with session.get(url) as response:
                    assert response.status == 200
                await asyncio.sleep(3 * SOON)

    run(main)
    assert len(peers) == connections


@pytest.mark.parametrize("answers", [True, False])
def test_heartbeat_of_a_websocket(run, answers):
    """A client that does not answer the server's pings is given up, one that does is kept."""
    ended = asyncio.Queue()

    async def socket(request):
        ws = web.WebSocketResponse(heartbeat=1.0 if answers else 0.1)
        await ws.prepare(request)
        async for message in ws:
            if message.type is aiohttp.WSMsgType.TEXT:
                await ws.send_str(message.data)
        ended.put_nowait(ws.close_code)
        return ws

    async def main():
        async with serving({"/": socket}, shutdown_timeout=0.1) as url, aiohttp.ClientSession() as session:
            async with session.ws_connect(url, autoping=answers) as ws:
                if answers:
                    with never_early(2.5), pytest.raises(TimeoutError):
                        async with asyncio.timeout(2.5):
                            await ws.receive()
                    await ws.send_str("still there")
                    assert (await ws.receive()).data == "still there"
                else:
                    with never_early(0.1):
                        assert (await ws.receive()).type is aiohttp.WSMsgType.PING
                        async for message in ws:
                            assert message.type is aiohttp.WSMsgType.PING
            expected = aiohttp.WSCloseCode.OK if answers else aiohttp.WSCloseCode.ABNORMAL_CLOSURE
            assert await ended.get() == expected

    run(main)


def test_timeout_in_a_handler_answers_with_504(run):
    async def slow(request):
        try:
            async with asyncio.timeout(float(request.query["timeout"])):
                await asyncio.wait_for(asyncio.sleep(0.05), LATE)
                await asyncio.sleep(float(request.query["for"]))
        except TimeoutError:
            return web.Response(status=504)
        return web.Response(text="done")

    async def main():
        async with serving({"/": slow}) as url, aiohttp.ClientSession() as session:
            async def status(timeout, seconds):
                async with session.get(url, params={"timeout": timeout, "for": seconds}) as response:
                    return response.status

            with never_early(SOON):
                answers = await asyncio.gather(*(
                    status(SOON, LATE) if number % 2 else status(LATE, 0.01) for number in range(100)
                ))
            assert answers == [200, 504] * 50

    run(main)


def test_shutdown_does_not_wait_for_a_stuck_handler(run):
    begun = asyncio.Event()

    async def announce(request):
        begun.set()
        await stuck(request)

    async def main():
        async with aiohttp.ClientSession() as session:
            async with serving({"/": announce}, shutdown_timeout=SOON) as url:
                task = asyncio.create_task(session.get(url))
                await begun.wait()
                start = asyncio.get_running_loop().time()
            assert asyncio.get_running_loop().time() - start < LATE / 2
            with pytest.raises(aiohttp.ClientError):
                await task

    run(main)
