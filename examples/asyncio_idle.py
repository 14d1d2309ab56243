"""An asyncio server that hangs up on peers who say nothing for a while.

The handler is plain asyncio: one timeout for the whole connection, rescheduled at each line. Only the last line knows
of timerheap; on its event loop a cancelled timer is gone at once, however many connections there are.
"""

import asyncio
import time
from contextlib import suppress
from functools import partial

import timerheap.asyncio


async def echo(idle: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(idle) as deadline:
            while line := await reader.readline():
                deadline.reschedule(loop.time() + idle)
                writer.write(line)
                await writer.drain()
    except TimeoutError:
        pass
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def main(idle: float = 1.0) -> None:
    server = await asyncio.start_server(partial(echo, idle), "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for _ in range(3):
            writer.write(b"still here\n")
            print("answer:", (await reader.readline()).decode().strip())
            await asyncio.sleep(idle / 10)
        silent = time.monotonic()
        assert await reader.readline() == b""
        print(f"hung up after {time.monotonic() - silent:.1f} s more of silence")
        writer.close()
        await writer.wait_closed()


if __name__ == "__main__":
    timerheap.asyncio.run(main())
