"""A threaded TCP server that hangs up on peers who say nothing for a while.

Each connection has one timer, put off at each line: no system call, and no thread but one for all. Unlike a
socket's timeout it is not fooled by a peer who sends a line byte by byte.
"""

import socket
import socketserver
import threading
import time
from contextlib import suppress

from timerheap import AfterFunc


class Echo(socketserver.StreamRequestHandler):
    server: "IdleServer"

    def handle(self) -> None:
        timer = AfterFunc(self.server.idle, self.hang_up)
        try:
            for line in self.rfile:
                if not timer.postpone(self.server.idle):
                    break  # it is over already; reset() would revive it
                self.wfile.write(line)
        except OSError:
            pass  # the peer has gone, or the timer has hung up while we wrote
        finally:
            timer.stop()

    def hang_up(self) -> None:
        """On the heap's worker: the thread that reads finds the end of its input."""
        with suppress(OSError):  # closed meanwhile
            self.connection.shutdown(socket.SHUT_RDWR)


class IdleServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: tuple[str, int], idle: float) -> None:
        super().__init__(address, Echo)
        self.idle = idle


def main(idle: float = 1.0) -> None:
    with IdleServer(("127.0.0.1", 0), idle) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with socket.create_connection(("127.0.0.1", server.server_address[1])) as peer, peer.makefile("rb") as answers:
            for _ in range(3):
                peer.sendall(b"still here\n")
                print("answer:", answers.readline().decode().strip())
                time.sleep(idle / 10)
            silent = time.monotonic()
            assert answers.readline() == b""
            print(f"hung up after {time.monotonic() - silent:.1f} s more of silence")
        server.shutdown()


if __name__ == "__main__":
    main()
