"""uvicorn with an ASGI app: within a test's loop, and as a program of its own that is told which loop to take."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvicorn
from helpers import PATIENCE, wait_until
from loops import LOOPS
from programs import LATE, SOON, never_early

KEEPALIVE = 1
"""Seconds; uvicorn takes whole ones."""


async def app(scope, receive, send):
    """Answers when the body is there, or with 504 if that takes longer than the path says, in seconds."""
    assert scope["type"] == "http"
    status = 200
    try:
        async with asyncio.timeout(float(scope["path"][1:])):
            while (await asyncio.wait_for(receive(), LATE)).get("more_body"):
                pass
    except TimeoutError:
        status = 504
    body = str(status).encode()
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"3")]})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(app, **options):
    """A server in this loop; its port."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, lifespan="off", log_config=None, **options)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


async def request(reader, writer, path, body=b"body", length=4):
    writer.write(b"POST %s HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n%s" % (path, length, body))
    head = await reader.readuntil(b"\r\n\r\n")
    return head.split(b" ")[1], await reader.readexactly(3)


both_parsers = pytest.mark.parametrize("http", ["h11", "httptools"])


@both_parsers
@pytest.mark.parametrize("keepalive", [KEEPALIVE, int(LATE)])
def test_idle_connection_ends_after_its_keepalive_timeout(run, http, keepalive):
    async def main():
        async with serving(app, http=http, timeout_keep_alive=keepalive) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            if keepalive == KEEPALIVE:
                with never_early(KEEPALIVE):
                    assert await request(reader, writer, b"/60") == (b"200", b"200")
                    assert await reader.read() == b""
            else:
                assert await request(reader, writer, b"/60") == (b"200", b"200")
                await asyncio.sleep(1.5 * KEEPALIVE)
                assert await request(reader, writer, b"/60") == (b"200", b"200")
            writer.close()

    run(main)


@both_parsers
def test_timeout_of_an_app_that_waits_for_the_body(run, http):
    async def main():
        async with serving(app, http=http) as port:
            async def ask(number):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                complete = number % 2 == 0
                path = b"/60" if complete else b"/%.1f" % SOON
                answer = await request(reader, writer, path, length=4 if complete else 5)
                writer.close()
                return answer[1]

            with never_early(SOON):
                assert await asyncio.gather(*map(ask, range(60))) == [b"200", b"504"] * 30

    run(main)


def test_graceful_shutdown_gives_up_a_stuck_app(run):
    ends = []

    async def stuck(scope, receive, send):
        begun.set()
        try:
            await asyncio.sleep(LATE)
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    async def main():
        async with serving(stuck, timeout_graceful_shutdown=1) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
            await begun.wait()
        writer.close()
        assert ends == ["cancelled"]

    begun = asyncio.Event()
    with never_early(1):
        run(main)


PROGRAM = """
import asyncio
import json
import os

from loops import LOOPS, armed

Loop = LOOPS[os.environ["LOOP"]]


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for event in "startup", "shutdown":
            assert (await receive())["type"] == f"lifespan.{event}"
            await send({"type": f"lifespan.{event}.complete"})
        return
    said = []
    try:
        async with asyncio.timeout(0.2):
            await asyncio.sleep(60)
    except TimeoutError:
        said.append("fired")
    async with asyncio.timeout(60):
        said.append(await asyncio.wait_for(asyncio.sleep(0.01, "slept"), 60))
    said.append(armed(asyncio.get_running_loop()))
    body = json.dumps(said).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM)])
def test_program_that_is_told_its_loop(tmp_path, monkeypatch, loop, number, status):
    """`python -m uvicorn --loop MODULE:CLASS`, until a signal ends it."""
    monkeypatch.chdir(tmp_path)  # the path of a socket has to be short
    Path("program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "uvicorn", "program:app", "--loop", "program:Loop", "--uds", "socket"]
    path = os.pathsep.join([".", str(Path(__file__).parent)])
    env = os.environ | {"LOOP": loop, "PYTHONPATH": path}
    with open("log", "w+") as log, subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env
    ) as process:
        try:
            wait_until(lambda: process.poll() is not None or os.path.exists("socket"))
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(PATIENCE)
                with never_early(0.2):
                    client.connect("socket")
                    client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    head, _, body = client.makefile("rb").read().partition(b"\r\n\r\n")
            process.send_signal(number)
            assert process.wait(PATIENCE) == status
        finally:
            process.kill()
            log.seek(0)
            print(log.read())
    fired, slept, count = json.loads(body)
    assert (head.split()[1], fired, slept) == (b"200", "fired", "slept")
    assert count is None if loop == "stock" else count >= 4
