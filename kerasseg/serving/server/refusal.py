"""`Refusal`: why a request gets no answer, in the words of both protocols."""

from enum import Enum


class Reason(Enum):
    """Name of the gRPC status code, HTTP status."""

    BAD_INPUT = ("INVALID_ARGUMENT", 400)
    NOT_FOUND = ("NOT_FOUND", 404)
    TOO_LARGE = ("RESOURCE_EXHAUSTED", 413)
    TOO_MANY = ("RESOURCE_EXHAUSTED", 429)
    FAILED = ("INTERNAL", 500)
    UNAVAILABLE = ("UNAVAILABLE", 503)
    TOO_LATE = ("DEADLINE_EXCEEDED", 504)

    @property
    def grpc_code(self) -> str:
        """A name of `grpc.StatusCode`."""
        return self.value[0]

    @property
    def http_status(self) -> int:
        """As TensorFlow Serving has it, and 413 for what is too large."""
        return self.value[1]


class Refusal(Exception):
    """A request that is not answered: the reason, and a sentence for whoever sent it."""

    def __init__(self, reason: Reason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.sentence = sentence
