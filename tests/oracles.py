"""Caches that others wrote, in front of an origin on loopback: squid, varnish and nginx, where they are installed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PATIENCE = 30.0
"""Seconds for a cache to start, or to stop, on a busy machine."""

SQUID = """
http_port 127.0.0.1:{port} accel defaultsite=origin.test
cache_peer 127.0.0.1 parent {origin} 0 no-query no-digest originserver
http_access allow all
cache_mem 16 MB
memory_cache_shared off
# As RFC 9111 §4.2.2 suggests; without the last line nothing fresh for less than a minute is kept.
refresh_pattern . 0 10% 1440
minimum_expiry_time 0 seconds
shutdown_lifetime 0 seconds
visible_hostname oracle.test
pid_filename none
access_log none
cache_log /dev/null
cache_store_log none
netdb_filename none
coredump_dir none
pinger_enable off
"""

VARNISH = """
vcl 4.1;
backend default { .host = "127.0.0.1"; .port = "{origin}"; }
"""

NGINX = """
daemon off;
master_process off;
pid {directory}/pid;
error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path {directory}/bodies;
    proxy_temp_path {directory}/temporary;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    proxy_cache_path {directory}/cache keys_zone=all:1m;
    server {
        listen 127.0.0.1:{port};
        location / {
            proxy_pass http://127.0.0.1:{origin};
            proxy_http_version 1.1;
            proxy_cache all;
            proxy_cache_key $request_uri;
        }
    }
}
"""

WATCHED = 'trap : TERM; { trap : TERM; "$@"; kill -HUP $$; } & read -r _; kill 0; wait'
"""A shell that ends when the program it is given does, and ends it when its own input does: when we are no more."""


class UnavailableError(Exception):
    """A cache that is not installed, or does not start here."""


def _squid(directory: Path, port: int, origin: int) -> list[str]:
    return ["squid", "-N", "-d", "1", "-f", _written(directory / "squid.conf", SQUID, directory, port, origin)]


def _varnish(directory: Path, port: int, origin: int) -> list[str]:
    program = _written(directory / "default.vcl", VARNISH, directory, port, origin)
    # Out of the box it guesses a lifetime of two minutes, and serves what is stale for ten seconds more.
    parameters = ["-p", "default_ttl=0", "-p", "default_grace=0", "-p", "default_keep=3600"]
    working = str(directory / "working")
    listen = f"127.0.0.1:{port}"
    return ["varnishd", "-F", "-j", "none", "-n", working, "-a", listen, "-f", program, "-s", "malloc,16m", *parameters]


def _nginx(directory: Path, port: int, origin: int) -> list[str]:
    configuration = _written(directory / "nginx.conf", NGINX, directory, port, origin)
    return ["nginx", "-p", str(directory), "-c", configuration]


COMMANDS: dict[str, Callable[[Path, int, int], list[str]]] = {"squid": _squid, "varnish": _varnish, "nginx": _nginx}
"""How each is started: with a directory, its port and the origin's."""


@contextmanager
def running(name: str, directory: Path, origin: int) -> Iterator[str]:
    """
    Give the URL of the cache called *name*, which runs in front of the origin at port *origin* until the end.

    Raises:
        UnavailableError: It is not there, or stops at once, as it may where users are not allowed to run it.
    """
    port = _free_port()
    command = COMMANDS[name](directory, port, origin)
    program = shutil.which(command[0], path=f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin")
    if program is None:
        raise UnavailableError(f"{command[0]} is not installed")
    log = directory / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            ["sh", "-c", WATCHED, "sh", program, *command[1:]],
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=stream,
            start_new_session=True,  # all that is started can be ended together
        )
    try:
        _wait_until_it_listens(process, port, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        _stop(process)


def _written(path: Path, text: str, directory: Path, port: int, origin: int) -> str:
    for name, value in {"directory": directory, "port": port, "origin": origin}.items():
        text = text.replace(f"{{{name}}}", str(value))
    path.write_text(text)
    return str(path)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise UnavailableError(f"it does not start: {log.read_text(errors='replace')[-500:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # whatever is left
    process.wait(PATIENCE)
