"""One parser for every URL that the hub connects to.

The parts that were checked are the parts that are connected to: nothing here is parsed
twice by two libraries that could disagree about where the host ends.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from app.core.domain.errors import InvalidInput

DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_URL_CHARACTERS = 2048

# Anything that a lenient reader may take for the end of the host, or that breaks a header.
_UNSAFE = re.compile(r"[\x00-\x20\x7f\\]")
_HOST_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*\.?")
# The C resolver reads 2130706433, 0x7f.1 and 0177.0.0.1 as addresses. Nobody needs that.
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")


@dataclass(frozen=True, slots=True)
class Url:
    """An http(s) URL in parts. `host` is lower case ASCII, an IPv6 one without brackets;
    `target` is the path and query as they go into the request line."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """`host` or `host:port`, as the Host header wants it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.authority}"

    def __str__(self) -> str:
        return self.origin + self.target


def parse_url(text: str, *, base: Url | None = None) -> Url:
    """Take an http(s) URL apart. With `base`, `text` may be relative to it.

    Raises InvalidInput for everything that is not a plain http(s) URL: other schemes, user
    names, bad ports, odd spellings of addresses.
    """
    if len(text) > MAX_URL_CHARACTERS:
        raise InvalidInput(f"The URL is longer than {MAX_URL_CHARACTERS} characters.")
    if _UNSAFE.search(text):
        raise InvalidInput("The URL holds a space, a backslash or a control character.")
    whole = urljoin(str(base), text) if base else text
    try:
        parts = urlsplit(whole)
        port = parts.port
    except ValueError as error:
        raise InvalidInput("The URL is not valid.") from error
    if parts.scheme not in DEFAULT_PORTS:
        raise InvalidInput("The URL must begin with http:// or https://.")
    if "@" in parts.netloc:
        raise InvalidInput("The URL may not hold a user name or a password.")
    if "[" in parts.netloc and ":" not in (parts.hostname or ""):
        raise InvalidInput("The URL's IPv6 address is not valid.")
    if port == 0 or parts.netloc.endswith(":"):
        raise InvalidInput("The URL's port must be between 1 and 65535.")
    return Url(
        scheme=parts.scheme,
        host=_host(parts.hostname or ""),
        port=port or DEFAULT_PORTS[parts.scheme],
        target=_target(parts.path, parts.query),
    )


def literal_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that `host` spells, or None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _host(host: str) -> str:
    if not host:
        raise InvalidInput("The URL has no host.")
    if "%" in host:
        raise InvalidInput("The URL's host may not hold a percent sign or an IPv6 zone.")
    if ":" in host:
        return _ipv6(host)
    name = _ascii_name(host)
    if _NUMERIC_LABEL.fullmatch(name.rstrip(".").rpartition(".")[2]):
        return _ipv4(name)
    return name


def _ipv6(host: str) -> str:
    try:
        return str(ipaddress.IPv6Address(host))
    except ValueError as error:
        raise InvalidInput("The URL's IPv6 address is not valid.") from error


def _ipv4(host: str) -> str:
    try:
        return str(ipaddress.IPv4Address(host))
    except ValueError as error:
        raise InvalidInput("The URL's address must be four decimal numbers.") from error


def _ascii_name(host: str) -> str:
    try:
        name = host.encode("idna").decode("ascii").lower()
    except UnicodeError as error:
        raise InvalidInput("The URL's host name is not valid.") from error
    if len(name) > 253 or not _HOST_NAME.fullmatch(name):
        raise InvalidInput("The URL's host name is not valid.")
    return name


def _target(path: str, query: str) -> str:
    target = (path or "/") + (f"?{query}" if query else "")
    if target.isascii():
        return target
    return "".join(
        character if character.isascii() else _percent(character) for character in target
    )


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "replace"))
