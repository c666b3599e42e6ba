# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Airflow's own log server, one process for all log folders of this host: logs.py ADDRESS PORT=FOLDER..."""

import asyncio
import errno
import ipaddress
import os
import socket
import sys

import uvicorn


def listen(address: str, port: int) -> socket.socket:
    """A socket on this host's address; on all of them where its name leads to loopback, as Debian's installer sets it up."""
    found = [info[4][0] for info in socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)]
    usable = [ip for ip in found if ip == address or not ipaddress.ip_address(ip).is_loopback]
    host = usable[0] if usable else "0.0.0.0"  # noqa: S104  (tokens guard it)
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        # Behind address translation the host does not have the address that others reach it by.
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        bound.bind(("", port))
    return bound


async def serve(address: str, folders: list) -> None:
    from airflow.utils.serve_logs.log_server import create_app

    servers, sockets = [], []
    for entry in folders:
        port, folder = entry.split("=", 1)
        # create_app reads the folder from the configuration, once.
        os.environ["AIRFLOW__LOGGING__BASE_LOG_FOLDER"] = folder
        servers.append(uvicorn.Server(uvicorn.Config(create_app(), log_level="warning", access_log=False)))
        sockets.append(listen(address, int(port)))
    running = [asyncio.ensure_future(one.serve(sockets=[bound])) for one, bound in zip(servers, sockets)]
    # Each server takes the signal handlers from the one before: when one ends, so do all.
    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    for one in servers:
        one.should_exit = True
    await asyncio.gather(*running)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2:]))
