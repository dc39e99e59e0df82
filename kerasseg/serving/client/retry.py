"""Another try after a server went away."""

import time
from collections.abc import Callable
from typing import TypeVar

from kerasseg.serving.client.server_error import ServerError

Result = TypeVar("Result")
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 10.0


def retry(
    work: Callable[[], Result],
    retries: int,
    say: Callable[[str], None],
    pause: Callable[[float], None] = time.sleep,
) -> Result:
    """What `work` returns, tried again up to `retries` times while the server is gone.

    Between two tries are 1, 2, 4, 8 and then 10 seconds. A segmentation changes nothing on the
    server, so asking twice does no harm.

    say: is told of every try that failed

    Raises the last `ServerError`, and at once one that another try does not mend.
    """
    for attempt in range(retries):
        try:
            return work()
        except ServerError as error:
            if not error.gone:
                raise
            seconds = min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE)
            say(f"{error} Trying again in {seconds:g} s ({attempt + 1} of {retries}).")
            pause(seconds)
    return work()
