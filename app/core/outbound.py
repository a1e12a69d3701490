"""The one way out: which addresses the hub may connect to, and a client that obeys.

Every URL that somebody else gave is fetched or called through here. A name is resolved once,
all of its addresses are checked, and the connection goes to a checked address: there is no
second look-up that could answer differently.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

from app.core.domain.errors import InvalidInput, TooLarge, Unavailable
from app.core.engines.http import (
    BadResponse,
    ConnectFailed,
    HttpClient,
    HttpFailure,
    Request,
    Response,
    TimedOut,
)
from app.core.urls import Url, literal_address, parse_url

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolver = Callable[[str, int], Sequence[str]]

MAX_REDIRECTS = 3

# What is not the public internet, by the IANA special-purpose registries, and Azure's
# metadata service, which lives at a public address.
_CLOSED_V4 = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "168.63.129.16/32",
    )
)
# Of IPv6 only global unicast is open. That leaves out loopback, link-local, unique local,
# multicast, mapped IPv4 and NAT64 (64:ff9b::/96); the rest are the special parts inside it:
# Teredo and its neighbours, 6to4, documentation.
_OPEN_V6 = ipaddress.IPv6Network("2000::/3")
_CLOSED_V6 = tuple(
    ipaddress.IPv6Network(text)
    for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)


class AddressNotAllowed(InvalidInput):
    """The hub may not connect to that address."""


def resolve_with_system(host: str, port: int) -> list[str]:
    """All addresses of `host`, as the system resolves it. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True)
class OutboundPolicy:
    """Which addresses may be connected to: the public internet and `allowed_networks`."""

    allowed_networks: tuple[Network, ...] = ()
    resolver: Resolver = field(default=resolve_with_system)

    def allows(self, address: Address) -> bool:
        """Whether that address may be connected to."""
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            return self._is_listed(address) or self._is_listed(address.ipv4_mapped)
        return self._is_listed(address) or _is_public(address)

    def check_url(self, url: str) -> Url:
        """Parse a URL and refuse addresses in it that are not allowed; names are not looked up.

        Raises InvalidInput.
        """
        parsed = parse_url(url)
        address = literal_address(parsed.host)
        if address is not None and not self.allows(address):
            raise AddressNotAllowed(_not_allowed(parsed.host))
        return parsed

    def check_url_resolved(self, url: str) -> Url:
        """As `check_url`, and look the name up and check all of its addresses.

        Raises InvalidInput, also when the name cannot be resolved.
        """
        parsed = self.check_url(url)
        try:
            self.resolve_checked(parsed.host, parsed.port)
        except Unavailable as error:
            raise InvalidInput(error.message) from error
        return parsed

    def resolve_checked(self, host: str, port: int) -> list[Address]:
        """All addresses of `host`, every one of them allowed.

        Raises AddressNotAllowed when one is not, Unavailable when there is none.
        """
        try:
            return self._resolve(host, port)
        except OSError as error:
            raise Unavailable(f"The host name {host} cannot be resolved.") from error

    def connect(self, host: str, port: int, timeout: float) -> socket.socket:
        """A TCP connection to one of the checked addresses of `host`.

        Raises AddressNotAllowed, and OSError when the name or all of its addresses fail.
        """
        deadline = monotonic() + timeout
        failure: OSError = TimeoutError("timed out")
        for address in self._resolve(host, port):
            left = deadline - monotonic()
            if left <= 0:
                break
            try:
                return _open_socket(address, port, left)
            except OSError as error:
                failure = error
        raise failure

    def _resolve(self, host: str, port: int) -> list[Address]:
        literal = literal_address(host)
        try:
            texts = [str(literal)] if literal else self.resolver(host, port)
        except UnicodeError as error:  # the codec of host names, for a label too long
            raise OSError("the name is not valid") from error
        addresses = [ipaddress.ip_address(text) for text in texts]
        if not addresses:
            raise OSError("the name has no address")
        if not all(self.allows(address) for address in addresses):
            raise AddressNotAllowed(_not_allowed(host))
        return addresses

    def _is_listed(self, address: Address) -> bool:
        return any(address in network for network in self.allowed_networks)


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a fetch brought: the URL that answered after redirects, and its body.

    `headers` have lower-case names.
    """

    url: str
    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Download:
    """A body under way. `total_bytes` is what the server announced, None if it did not."""

    url: str
    content_type: str
    total_bytes: int | None
    blocks: Iterator[bytes]
    headers: Mapping[str, str] = field(default_factory=dict)


def fetch(
    policy: OutboundPolicy,
    url: str,
    *,
    max_bytes: int,
    timeout_seconds: float,
    accept: Sequence[str] = (),
    headers: Sequence[tuple[str, str]] = (),
) -> Fetched:
    """GET a small thing whole.

    `accept` lists the media types that are taken (`image/` for all of a kind), any when empty.
    `headers` go to the URL's own origin only, not to where it redirects. `timeout_seconds`
    is for everything together. Raises InvalidInput (the URL, or where it leads, is not
    allowed), TooLarge, Unavailable (it failed, in time or in any other way).
    """
    with download(
        policy,
        url,
        max_bytes=max_bytes,
        timeout_seconds=timeout_seconds,
        accept=accept,
        headers=headers,
    ) as answer:
        body = b"".join(answer.blocks)
        return Fetched(answer.url, answer.content_type, body, answer.headers)


@contextmanager
def download(
    policy: OutboundPolicy,
    url: str,
    *,
    max_bytes: int,
    timeout_seconds: float,
    accept: Sequence[str] = (),
    headers: Sequence[tuple[str, str]] = (),
) -> Iterator[Download]:
    """GET a large thing block by block; otherwise as `fetch`, with the same errors.

    The errors also come out of the iteration over `blocks`.
    """
    start = policy.check_url(url)
    deadline = monotonic() + timeout_seconds
    client = HttpClient(policy.connect)
    try:
        final, response = _follow(client, start, deadline, _Wishes(max_bytes, accept, headers))
        try:
            _check_answer(final, response, accept)
            length = response.headers.get("content-length", "")
            total = int(length) if length.isdigit() else None
            if total is not None and total > max_bytes:
                raise TooLarge(f"{final.origin} answered with {total} bytes, more than fit.")
            yield Download(
                url=str(final),
                content_type=response.content_type,
                total_bytes=total,
                blocks=_limited_blocks(final, response, max_bytes),
                headers=response.headers,
            )
        finally:
            response.close()
    finally:
        client.close()


@dataclass(frozen=True, slots=True)
class _Wishes:
    max_bytes: int
    accept: Sequence[str]
    headers: Sequence[tuple[str, str]]


def _follow(
    client: HttpClient, start: Url, deadline: float, wishes: _Wishes
) -> tuple[Url, Response]:
    url = start
    for _ in range(MAX_REDIRECTS + 1):
        own = wishes.headers if url.origin == start.origin else ()
        response = _get(client, url, deadline, wishes, own)
        location = response.headers.get("location")
        if response.status not in (301, 302, 303, 307, 308) or location is None:
            return url, response
        response.close()
        following = parse_url(location, base=url)
        if url.scheme == "https" and following.scheme == "http":
            raise InvalidInput(f"{url.origin} redirects from https to http.")
        url = following
    raise InvalidInput(f"{start.origin} redirects more than {MAX_REDIRECTS} times.")


def _get(
    client: HttpClient,
    url: Url,
    deadline: float,
    wishes: _Wishes,
    own_headers: Sequence[tuple[str, str]],
) -> Response:
    left = deadline - monotonic()
    accept = ", ".join(f"{kind}*" if kind.endswith("/") else kind for kind in wishes.accept)
    request = Request(
        url=url,
        headers=(
            ("Accept", accept or "*/*"),
            ("User-Agent", "weft"),
            ("Connection", "close"),
            *own_headers,
        ),
        connect_timeout_seconds=max(min(left, 10.0), 0.001),
        response_timeout_seconds=left,
        max_body_bytes=2 * wishes.max_bytes + 128 * 1024,  # with header and chunk sizes
    )
    try:
        return client.send(request)
    except HttpFailure as error:
        raise _unavailable(url, error) from error


def _check_answer(url: Url, response: Response, accept: Sequence[str]) -> None:
    if response.status != 200:
        raise Unavailable(f"{url.origin} answered with status {response.status}.")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise Unavailable(f"{url.origin} answered in a compressed form, unasked.")
    kind = response.content_type
    taken = (kind.startswith(want) if want.endswith("/") else kind == want for want in accept)
    if accept and not any(taken):
        raise InvalidInput(f"{url.origin} answered with the type {kind[:60]!r}.")


def _limited_blocks(url: Url, response: Response, max_bytes: int) -> Iterator[bytes]:
    size = 0
    try:
        for block in response.blocks():
            size += len(block)
            if size > max_bytes:
                raise TooLarge(f"{url.origin} answered with more than {max_bytes} bytes.")
            yield block
    except HttpFailure as error:
        raise _unavailable(url, error) from error


def _unavailable(url: Url, error: HttpFailure) -> Unavailable:
    if isinstance(error, TimedOut):
        return Unavailable(f"{url.origin} did not answer in time.")
    if isinstance(error, ConnectFailed):
        return Unavailable(f"{url.origin} cannot be reached.")
    if isinstance(error, BadResponse):
        return Unavailable(f"{url.origin} did not answer as a web server does.")
    return Unavailable(f"{url.origin} broke off its answer.")


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _CLOSED_V4)
    return address in _OPEN_V6 and not any(address in network for network in _CLOSED_V6)


def _not_allowed(host: str) -> str:
    return f"{host} is in a network that this hub does not connect to."


def _open_socket(address: Address, port: int, timeout: float) -> socket.socket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect((str(address), port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock
