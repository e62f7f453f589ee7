"""Addresses of DCUs: what a user may write, and whether two of them are one DCU."""

import ipaddress
import socket
from urllib.parse import urlsplit

from ophyd_eiger.errors import AddressError

_PORTS = {"http": 80, "https": 443}


def base_url(address: str) -> str:
    """Return the address of a DCU as a URL without a trailing slash.

    Parameters
    ----------
    address : str
        "dcu", "dcu:8080", "http://dcu/", "10.42.42.20", "::1", "[::1]:8080", ...

    Raises
    ------
    AddressError
        If it has no host, a port that is none, or a scheme other than http and https.
    """
    text = address.strip()
    if "://" not in text:
        text = f"http://[{text}]" if _is_bare_ipv6(text) else f"http://{text}"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
        # Its labels: none empty, none of more than 63 characters.
        host.encode("idna")
    except ValueError as error:
        raise AddressError(f"{address!r} is not the address of a DCU: {error}") from error
    no_host = not host or any(c.isspace() or c == "*" for c in host)
    if parts.scheme not in ("http", "https") or no_host:
        raise AddressError(
            f"{address!r} is not the address of a DCU; give a host ('dcu', '10.42.42.20', '::1'), "
            "a host with a port ('dcu:8080') or a URL ('http://dcu/')"
        )
    if ":" in host:
        host = f"[{host}]"
    netloc = host if port is None else f"{host}:{port}"
    return f"{parts.scheme}://{netloc}{parts.path.rstrip('/')}"


def _is_bare_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


def same_dcu(one: str, other: str) -> bool:
    """Return whether two URLs, as `base_url` gives them, lead to one server.

    A host's name and its address, as in "localhost" and "127.0.0.1", are one where the name is
    known here.
    """
    if one == other:
        return True
    parts, of_other = urlsplit(one), urlsplit(other)
    if (parts.scheme, _port(one), parts.path) != (of_other.scheme, _port(other), of_other.path):
        return False
    return not _hosts(parts.hostname or "").isdisjoint(_hosts(of_other.hostname or ""))


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or _PORTS[parts.scheme]


def _hosts(name: str) -> set[str]:
    """Return a host's addresses; its name alone where nobody knows it."""
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(name, None)}
    except OSError:
        return {name}
