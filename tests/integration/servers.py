"""Servers from Debian that the programs of the tests talk to: one process each, in a directory of its own.

They listen on sockets in that directory, so nothing has to choose a port, and what the machine itself runs is neither
found nor disturbed. Run as a script it says which packages are missing, with exit status 1.
"""

import glob
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager

STARTS_WITHIN = 60.0
"""Seconds that a server may take until it answers: generous, for a busy machine."""


def postgres_binary(name):
    """A program of PostgreSQL's server, which Debian keeps out of PATH; None if there is none."""
    beside = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), key=lambda path: int(path.split("/")[4]))
    return shutil.which(name) or (beside[-1] if beside else None)


def missing_packages():
    """What is not here, by the names of Debian's packages."""
    missing = []
    if shutil.which("redis-server") is None:
        missing.append("redis-server")
    if not all(map(postgres_binary, ["initdb", "postgres", "pg_isready"])):
        missing.append("postgresql")
    if shutil.which("setpriv") is None:
        missing.append("util-linux")
    return missing


@contextmanager
def redis():
    """A redis-server that keeps nothing on disk; the path of its socket."""
    binary = _needed(shutil.which("redis-server"), "redis-server")
    with _directory() as directory, open(f"{directory}/log", "w+b") as log:
        path = f"{directory}/redis.sock"
        with _server(
            [binary, "--port", "0", "--unixsocket", path, "--dir", directory, "--save", "", "--appendonly", "no"],
            ready=[shutil.which("redis-cli"), "-s", path, "ping"], log=log,
        ):
            yield path


@contextmanager
def postgres():
    """A PostgreSQL server with an empty cluster, whose superuser is "timerheap"; the directory of its socket."""
    initdb, binary, ready = (
        _needed(postgres_binary(name), "postgresql") for name in ("initdb", "postgres", "pg_isready")
    )
    with _directory() as directory, open(f"{directory}/log", "w+b") as log:
        cluster, unprivileged = f"{directory}/cluster", _unprivileged(directory)
        try:
            subprocess.run(
                ["setpriv", *unprivileged, initdb, "-D", cluster, "-U", "timerheap", "--auth", "trust", "--no-locale",
                 "-E", "UTF8", "--no-sync"],
                check=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory,
            )
        except subprocess.CalledProcessError as exc:
            raise RuntimeError(f"initdb failed:\n{_text(log)}") from exc
        with _server(
            [*unprivileged, binary, "-D", cluster, "-k", directory, "-c", "listen_addresses=",
             "-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "max_connections=20"],
            ready=[ready, "-q", "-h", directory], log=log,
        ):
            yield directory


def _needed(binary, package):
    if binary is None:
        raise RuntimeError(f"missing, by the name of Debian's package: {package}")
    return binary


def _unprivileged(directory):
    """For setpriv: not to run a command as root, which PostgreSQL refuses. The directory is its own then."""
    if os.geteuid() != 0:
        return []
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = names.get("postgres") or names["nobody"]
    os.chown(directory, entry.pw_uid, entry.pw_gid)
    return ["--reuid", str(entry.pw_uid), "--regid", str(entry.pw_gid), "--clear-groups"]


@contextmanager
def _directory():
    """A directory of the server's own; its path is short, for a socket's may have 107 bytes only."""
    path = tempfile.mkdtemp(prefix="timerheap-", dir="/tmp")
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextmanager
def _server(command, *, ready, log):
    """The command, of setpriv, runs within the block, and no longer than this process, however that may end."""
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "INT", *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + STARTS_WITHIN
        while subprocess.run(ready, stdin=subprocess.DEVNULL, stdout=log, stderr=log).returncode != 0:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command} does not answer:\n{_text(log)}")
            time.sleep(0.02)
        yield
        assert process.poll() is None, f"{command} ended before it was told to:\n{_text(log)}"
    finally:
        process.send_signal(signal.SIGINT)  # to PostgreSQL too: end at once, and in good order
        try:
            process.wait(STARTS_WITHIN)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _text(log):
    log.seek(0)
    return log.read().decode(errors="replace")[-4000:]


if __name__ == "__main__":
    if missing := missing_packages():
        sys.exit(f"missing, by the names of Debian's packages: {' '.join(missing)}")
