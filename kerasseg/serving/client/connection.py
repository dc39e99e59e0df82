"""`Connection`: where a server is, and how to speak with it."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from kerasseg.errors import UserError


@dataclass(frozen=True)
class Connection:
    """A server's address and what protects the way to it.

    tls:         encrypt, and check the server's certificate
    authority:   PEM file of who signed it, instead of the system's
    certificate, key: PEM files of the client's own, for a server that asks
    deadline:    seconds for one request
    """

    host: str
    port: int
    tls: bool = False
    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    deadline: float = 600.0

    @property
    def local(self) -> bool:
        """Whether the server runs on this machine, where nothing is gained by compression."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def address(self) -> str:
        """HOST:PORT, an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_server(words: str) -> tuple[str, int]:
    """HOST:PORT or [IPv6]:PORT -> both. Raises `UserError`."""
    host, colon, port = words.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 2**16 or "/" in host:
        raise UserError(
            f"--server: {words!r} is no HOST:PORT, such as localhost:8500 (gRPC) or localhost:8501 "
            "(REST)."
        )
    return host, int(port)


def read_pem(path: Path | None, option: str) -> bytes | None:
    """The bytes of a PEM file. Raises `UserError` if it cannot be read."""
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{option}: {path} cannot be read: {error.strerror}.") from None
