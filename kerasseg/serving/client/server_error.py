"""`ServerError`: what a server answered instead of a segmentation."""

from kerasseg.errors import UserError


class ServerError(UserError):
    """A request without an answer.

    gone:  whether the server could not be reached or was too busy, so that another try may help
    """

    def __init__(self, sentence: str, *, gone: bool = False) -> None:
        super().__init__(sentence)
        self.gone = gone
