"""anyio with the loop as its backend's `loop_factory`: cancel scopes, streams, threads and a portal."""

import threading

import anyio
import anyio.abc
import anyio.from_thread
import anyio.to_thread
import pytest
from programs import LATE, SOON, fires, never_early


@pytest.fixture
def run(loops):
    """`run(main)` runs a coroutine function by anyio on one of these loops."""
    return lambda main: anyio.run(main, backend_options={"loop_factory": loops})


def test_deadlines_of_cancel_scopes(run):
    async def main():
        with fires(SOON, TimeoutError):
            with anyio.fail_after(SOON):
                await anyio.sleep(LATE)
        with anyio.fail_after(LATE) as outer, never_early(SOON):
            with anyio.move_on_after(SOON) as inner:
                await anyio.sleep(LATE)
        assert inner.cancelled_caught
        assert not outer.cancelled_caught
        with anyio.move_on_after(LATE) as outer:
            with anyio.move_on_after(LATE / 2):
                await anyio.sleep(0.01)
        assert not outer.cancel_called

    run(main)


def test_deadline_that_is_moved(run):
    async def main():
        with anyio.move_on_after(SOON) as scope:
            scope.deadline = anyio.current_time() + LATE
            await anyio.sleep(2 * SOON)
        assert not scope.cancelled_caught
        with never_early(SOON), anyio.move_on_after(LATE) as scope:
            scope.deadline = anyio.current_time() + SOON
            await anyio.sleep(LATE)
        assert scope.cancelled_caught

    run(main)


def test_deadline_of_a_task_group(run):
    async def main():
        ends = []

        async def work(number):
            try:
                await anyio.sleep(0.01 if number % 2 else LATE)
            finally:
                ends.append(number % 2)

        with anyio.move_on_after(LATE) as scope, never_early(SOON):
            async with anyio.create_task_group() as group:
                for number in range(200):
                    group.start_soon(work, number)
                while len(ends) < 100:
                    await anyio.sleep(0.01)
                scope.deadline = anyio.current_time() + SOON
        assert scope.cancelled_caught
        assert ends == [1] * 100 + [0] * 100

    run(main)


def test_timeouts_around_streams(run):
    async def main():
        send, receive = anyio.create_memory_object_stream()
        async with send, receive, anyio.create_task_group() as group:
            with fires(SOON, TimeoutError):
                with anyio.fail_after(SOON):
                    await receive.receive()
            group.start_soon(send.send, "item")
            with anyio.fail_after(LATE):
                assert await receive.receive() == "item"

        async def echo(client):
            async with client:
                async for data in client:
                    await client.send(data)

        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        async with listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, echo)
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            with anyio.fail_after(LATE):
                async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                    with fires(SOON, TimeoutError):
                        with anyio.fail_after(SOON):
                            await stream.receive()
                    await stream.send(b"still there")
                    assert await stream.receive() == b"still there"
            group.cancel_scope.cancel()

    run(main)


def test_timeouts_around_locks_and_conditions(run):
    async def main():
        lock, condition, event = anyio.Lock(), anyio.Condition(), anyio.Event()
        async with lock:
            with fires(SOON, TimeoutError):
                with anyio.fail_after(SOON):
                    async with anyio.create_task_group() as group:
                        group.start_soon(lock.acquire)
        async with condition:
            with never_early(SOON), anyio.move_on_after(SOON):
                await condition.wait()
        async with anyio.create_task_group() as group:
            group.start_soon(event.wait)
            with anyio.fail_after(LATE):
                await anyio.sleep(0.01)
                event.set()
                await event.wait()

    run(main)


def test_timeout_of_a_thread(run):
    async def main():
        release = threading.Event()
        try:
            with fires(SOON, TimeoutError):
                with anyio.fail_after(SOON):
                    await anyio.to_thread.run_sync(release.wait, LATE, abandon_on_cancel=True)
        finally:
            release.set()
        with anyio.fail_after(LATE):
            assert await anyio.to_thread.run_sync(lambda: anyio.from_thread.run(anyio.sleep, 0.01)) is None

    run(main)


def test_portal_of_another_thread(loops):
    async def main(timeout, seconds):
        with anyio.move_on_after(timeout) as scope:
            await anyio.sleep(seconds)
        return scope.cancelled_caught

    with anyio.from_thread.start_blocking_portal(backend_options={"loop_factory": loops}) as portal:
        with never_early(SOON):
            futures = [
                portal.start_task_soon(main, *((SOON, LATE) if number % 2 else (LATE, 0.01))) for number in range(100)
            ]
            assert [future.result(LATE) for future in futures] == [False, True] * 50
