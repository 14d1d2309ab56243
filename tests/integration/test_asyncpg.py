"""asyncpg and a real PostgreSQL: timeouts of a statement, a connect, a pool and what waits beside them."""

import asyncio

import asyncpg
import pytest
from programs import LATE, SOON, fires, mute_server


@pytest.fixture
def address(postgres_directory):
    """What asyncpg.connect and asyncpg.create_pool are told to reach the server."""
    return {"host": postgres_directory, "user": "timerheap", "database": "postgres"}


def test_timeout_of_a_statement(run, address):
    async def main():
        connection = await asyncpg.connect(**address, timeout=LATE)
        try:
            with fires(SOON, TimeoutError):
                await connection.execute(f"SELECT pg_sleep({LATE})", timeout=SOON)
            # The server was told to cancel it, and the connection goes on.
            assert await connection.fetchval("SELECT count(*) FROM generate_series(1, 1000)", timeout=LATE) == 1000
            with fires(SOON, TimeoutError):
                await connection.fetch(f"SELECT pg_sleep({LATE})", timeout=SOON)
            await connection.execute(f"SELECT pg_sleep({SOON})", timeout=LATE)
        finally:
            await connection.close(timeout=LATE)

    run(main)


@pytest.mark.parametrize("timeout", [SOON, LATE])
def test_command_timeout_of_a_connection(run, address, timeout):
    async def main():
        connection = await asyncpg.connect(**address, command_timeout=timeout)
        try:
            if timeout == SOON:
                with fires(SOON, TimeoutError):
                    await connection.execute(f"SELECT pg_sleep({LATE})")
            else:
                await connection.execute(f"SELECT pg_sleep({SOON})")
            assert await connection.fetchval("SELECT 1", timeout=LATE) == 1
        finally:
            await connection.close()

    run(main)


def test_connect_timeout(run):
    async def main():
        with mute_server() as port:
            with fires(SOON, TimeoutError):
                await asyncpg.connect(host="127.0.0.1", port=port, user="nobody", timeout=SOON)

    run(main)


def test_wait_for_cancels_the_statement_and_rolls_back(run, address):
    async def main():
        connection = await asyncpg.connect(**address)
        try:
            await connection.execute("CREATE TEMPORARY TABLE t (n int)")

            async def insert(seconds):
                async with connection.transaction():
                    await connection.execute("INSERT INTO t VALUES (1)")
                    await connection.execute(f"SELECT pg_sleep({seconds})")

            with fires(SOON, TimeoutError):
                await asyncio.wait_for(insert(LATE), SOON)
            assert await connection.fetchval("SELECT count(*) FROM t") == 0
            await asyncio.wait_for(insert(0.01), LATE)
            assert await connection.fetchval("SELECT count(*) FROM t") == 1
        finally:
            await connection.close()

    run(main)


def test_pool_that_is_exhausted(run, address):
    async def main():
        async with asyncpg.create_pool(**address, min_size=1, max_size=2) as pool:
            async with pool.acquire() as first, pool.acquire() as second:
                assert await first.fetchval("SELECT 1") == await second.fetchval("SELECT 1")
                with fires(SOON, TimeoutError):
                    await pool.acquire(timeout=SOON)
                third = asyncio.create_task(pool.fetchval("SELECT 2", timeout=LATE))
                await asyncio.sleep(0.05)
                assert not third.done()
            assert await third == 2

    run(main)


@pytest.mark.parametrize(("lifetime", "sessions"), [(SOON, 2), (LATE, 1)])
def test_idle_connection_of_a_pool_ends(run, address, lifetime, sessions):
    async def main():
        seen = set()
        async with asyncpg.create_pool(
            **address, min_size=0, max_size=1, max_inactive_connection_lifetime=lifetime
        ) as pool:
            for _ in range(2):
                seen.add(await pool.fetchval("SELECT pg_backend_pid()"))
                await asyncio.sleep(3 * SOON)
        assert len(seen) == sessions

    run(main)


def test_wait_for_a_notification(run, address):
    async def main():
        listener, sender = await asyncpg.connect(**address), await asyncpg.connect(**address)
        heard = asyncio.Queue()
        try:
            await listener.add_listener("channel", lambda *args: heard.put_nowait(args[-1]))
            with fires(SOON, TimeoutError):
                await asyncio.wait_for(heard.get(), SOON)
            for number in range(100):
                await sender.execute(f"NOTIFY channel, '{number}'")
            async with asyncio.timeout(LATE):
                assert [await heard.get() for _ in range(100)] == [str(number) for number in range(100)]
        finally:
            await sender.close()
            await listener.close()

    run(main)


def test_many_statements_some_of_which_time_out(run, address):
    async def main():
        async with asyncpg.create_pool(**address, min_size=10, max_size=10, command_timeout=LATE) as pool:
            async def work(number):
                if number % 10:
                    return await pool.fetchval("SELECT $1::int", number)
                with pytest.raises(TimeoutError):
                    await pool.execute(f"SELECT pg_sleep({LATE})", timeout=SOON)
                return number

            assert await asyncio.gather(*map(work, range(300))) == list(range(300))

    run(main)
