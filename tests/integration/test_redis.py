"""redis-py's asyncio client and a real redis-server: timeouts of a read, a connect, a lock, a pool, a subscription."""

import asyncio
from contextlib import asynccontextmanager

import pytest
import redis.asyncio
import redis.exceptions
from programs import LATE, SOON, fires, full_server, never_early


@pytest.fixture
def connected(redis_socket):
    @asynccontextmanager
    async def connected(**options):
        """A client of an empty database, without retries, which would multiply each timeout."""
        client = redis.asyncio.Redis(unix_socket_path=redis_socket, retry=None, decode_responses=True, **options)
        async with client:
            await client.flushdb()
            yield client

    return connected


def test_read_timeout(run, connected):
    async def main():
        async with connected(socket_timeout=SOON) as client, connected(socket_timeout=LATE) as patient:
            await client.set("key", "value")
            assert await client.get("key") == "value"
            with fires(SOON, redis.exceptions.TimeoutError):
                await client.blpop("queue", 0)
            # The connection that timed out is dropped, and the next command has another.
            assert await client.get("key") == "value"
            popped = asyncio.create_task(patient.blpop("queue", 0))
            await asyncio.sleep(2 * SOON)
            assert await client.rpush("queue", "item") == 1
            assert list(await popped) == ["queue", "item"]

    run(main)


def test_connect_timeout(run):
    async def main():
        with full_server() as port:
            client = redis.asyncio.Redis(
                host="127.0.0.1", port=port, retry=None, socket_timeout=LATE, socket_connect_timeout=SOON
            )
            async with client:
                with fires(SOON, redis.exceptions.TimeoutError):
                    await client.ping()

    run(main)


def test_wait_for_a_command(run, connected):
    async def main():
        async with connected() as client:
            with fires(SOON, TimeoutError):
                await asyncio.wait_for(client.blpop("queue", 0), SOON)
            await client.rpush("queue", *range(100))
            popped = await asyncio.gather(*(asyncio.wait_for(client.blpop("queue", 0), LATE) for _ in range(100)))
            assert sorted(int(item) for _, item in popped) == list(range(100))

    run(main)


def test_a_key_that_expires_while_the_client_sleeps(run, connected):
    async def main():
        async with connected() as client:
            await client.set("key", "value", px=int(1000 * SOON))
            await asyncio.sleep(1.5 * SOON)
            assert await client.get("key") is None

    run(main)


def test_get_message_returns_none_when_its_timeout_is_over(run, connected):
    async def main():
        async with connected() as client, client.pubsub(ignore_subscribe_messages=True) as pubsub:
            await pubsub.subscribe("channel")
            while not await client.publish("channel", "first"):
                await asyncio.sleep(0.01)
            while (message := await pubsub.get_message(timeout=LATE)) is None:
                pass
            assert message["data"] == "first"
            with never_early(SOON):
                assert await pubsub.get_message(timeout=SOON) is None
            assert await client.publish("channel", "second") == 1
            assert (await pubsub.get_message(timeout=LATE))["data"] == "second"

    run(main)


def test_lock_that_is_not_to_be_had_in_time(run, connected):
    async def main():
        async with connected() as client:
            held = client.lock("lock", timeout=LATE)
            assert await held.acquire()
            other = client.lock("lock", timeout=LATE, blocking_timeout=SOON, sleep=0.01)
            start = asyncio.get_running_loop().time()
            assert not await other.acquire()
            assert asyncio.get_running_loop().time() - start < LATE / 2
            waiting = asyncio.create_task(client.lock("lock", blocking_timeout=LATE, sleep=0.01).acquire())
            await asyncio.sleep(0.05)
            await held.release()
            assert await waiting

    run(main)


def test_pool_that_is_exhausted(run, redis_socket):
    async def main():
        async def pinging(timeout):
            pool = redis.asyncio.BlockingConnectionPool(
                connection_class=redis.asyncio.UnixDomainSocketConnection, path=redis_socket,
                max_connections=1, timeout=timeout,
            )
            async with redis.asyncio.Redis.from_pool(pool) as client:
                held = await pool.get_connection()
                ping = asyncio.create_task(client.ping())
                await asyncio.sleep(2 * SOON)
                await pool.release(held)
                return await ping

        with fires(SOON, redis.exceptions.ConnectionError):
            await pinging(SOON)
        assert await pinging(LATE) is True

    run(main)


def test_many_commands_each_with_a_timeout(run, connected):
    async def main():
        async with connected(socket_timeout=LATE, max_connections=20) as client:
            async def count(worker):
                for _ in range(50):
                    async with asyncio.timeout(LATE):
                        await client.incr("counter")

            await asyncio.gather(*map(count, range(20)))
            assert await client.get("counter") == "1000"

    run(main)
