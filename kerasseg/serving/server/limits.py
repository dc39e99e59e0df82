"""`Limits`: how much a server takes on."""

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """What bounds the memory and the patience of a server.

    request_bytes: of one request as it comes over the wire, and of the JSON text in it
    volume_bytes:  of one tensor, after its shape or its compression is unfolded
    queue:         requests of one model that wait for the one that is running
    seconds:       for one request, its waiting included; a gRPC deadline may be shorter
    """

    request_bytes: int = 256 * MIB
    volume_bytes: int = 1024 * MIB
    queue: int = 8
    seconds: float = 600.0

    @property
    def at_once(self) -> int:
        """Requests in memory, whatever becomes of them."""
        return self.queue + 8

    @property
    def json_values(self) -> int:
        """Numbers in a request's JSON, 32 bytes each in Python."""
        return self.request_bytes // 4

    @property
    def json_lists(self) -> int:
        """Brackets in a request's JSON; a list of Python weighs 56 bytes without its members."""
        return self.request_bytes // 16
