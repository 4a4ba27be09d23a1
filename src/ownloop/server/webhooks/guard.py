"""Requests that leave the house: only to public addresses, checked at the connection itself (server-side request forgery)."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence

import httpx

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class Forbidden(httpx.TransportError):
    """The host has an address inside the house."""


class GuardedTransport(httpx.AsyncHTTPTransport):
    """Looks a host up once, refuses it if any of its addresses is not public, and connects to the address that was checked.

    Args:
        allowed: networks that may be reached although they are not public ("10.1.0.0/16").
    """

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        super().__init__()
        self._allowed: list[Network] = [ipaddress.ip_network(network) for network in allowed]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        address = await self._checked(host, request.url.port or (443 if request.url.scheme == "https" else 80))
        request.extensions = {**request.extensions, "sni_hostname": host}
        request.url = request.url.copy_with(host=str(address))  # the header Host stays what it was
        return await super().handle_async_request(request)

    async def _checked(self, host: str, port: int) -> Address:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpx.ConnectError(f"{host} cannot be looked up: {error}") from error
        addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
        for address in addresses:
            if not self._may_reach(address):
                raise Forbidden(f"{host} is {address}, which is not a public address; allow its network if this is meant (allow=['{address}'])")
        return addresses[0]

    def _may_reach(self, address: Address) -> bool:
        inner = _inner(address)
        if any(inner in network for network in self._allowed if network.version == inner.version):
            return True
        return bool(inner.is_global) and not inner.is_multicast


def _inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 address carries, where it carries one."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None) or address
