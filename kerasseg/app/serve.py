"""`kerasseg app`: start the page on this machine, until Ctrl-C."""

import asyncio
import contextlib
import os
import re
import signal
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kerasseg.errors import UserError
from kerasseg.serving.protocol import missing_extra
from kerasseg.serving.server.limits import Limits
from kerasseg.serving.server.serve import LOCAL, listen

_GRACE_SECONDS = 5
_SITE = re.compile(r"https://[A-Za-z0-9*.-]+(:\d+)?")


@dataclass(frozen=True)
class PageAddress:
    """Where the page is, and who may see it.

    Attributes:
        host: A name or an IP address of this machine.
        port: 0 for any free port.
        token: What visitors must know, or None.
        public: Whether anybody may come without a token.
        embedded_in: The sites, such as https://huggingface.co, that may show the page in a frame.
            Its cookies then only travel over HTTPS.
    """

    host: str = "127.0.0.1"
    port: int = 8600
    token: str | None = None
    public: bool = False
    embedded_in: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise `UserError` if others could reach the page without being asked who they are."""
        for site in self.embedded_in:
            if not _SITE.fullmatch(site):
                raise UserError(f"--embed-in {site}: expected a site as in https://huggingface.co.")
        if self.host in LOCAL or self.token or self.public:
            return
        raise UserError(
            f"--host {self.host} lets everybody who reaches this machine send scans and use its "
            "processor: set a secret with --token, which visitors need once, or say with --public "
            "that everybody may."
        )

    @property
    def hosts(self) -> frozenset[str] | None:
        """Return the names by which a browser may ask.

        A page of somebody else's could make a browser ask this machine by a name of its own (DNS
        rebinding). Where the token or `public` decides, any name will do.
        """
        return frozenset((*LOCAL, self.host)) if self.host in LOCAL else None


def serve_app(
    folders: Sequence[Path],
    address: PageAddress,
    limits: Limits,
    say: Callable[[str], None],
    wrap: Callable[[Any], Any] = lambda app: app,
) -> None:
    """Serve the page until SIGTERM or Ctrl-C; files of visitors are removed at the end.

    Raises `UserError` for a run that cannot be read, a port that is taken, an address that is open
    to others without `token` or `public`, and a missing extra.

    Args:
        say: Called with each line for the person who watches the server.
        wrap: Called with the page's FastAPI application; returns the one that is served.
    """
    address.check()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        import uvicorn

        from kerasseg.app.routes import Page, page_app
        from kerasseg.app.runs import Runs
        from kerasseg.app.sessions import Sessions
        from kerasseg.serving.server.connections import limited
        from kerasseg.serving.server.models import WorkQueue
    except ImportError as error:
        raise missing_extra(error) from error
    runs = Runs(folders)
    listener = listen(address.host, address.port, "--port")
    queue = WorkQueue("page", limits.queue)
    with tempfile.TemporaryDirectory(prefix="kerasseg-app-") as folder:
        sessions = Sessions(Path(folder))
        page = Page(
            runs, sessions, queue, limits, address.token, address.hosts, address.embedded_in
        )
        config = uvicorn.Config(
            wrap(page_app(page)),
            http=limited(limits),
            ws="none",
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        host = f"[{address.host}]" if ":" in address.host else address.host
        listener.listen()  # whoever reads the address may come at once, and waits
        secret = f"?token={quote(address.token)}" if address.token else ""
        url = f"http://{host}:{listener.getsockname()[1]}/{secret}"
        say(f"{url} (research use only). Ctrl-C stops.")
        server = uvicorn.Server(config)
        # uvicorn's own handlers raise the signal again at the end, in the middle of its clean-up.
        server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, server.handle_exit)
        asyncio.run(_serve_then_load(server, listener, queue, runs, say))
        say("Stopped.")


async def _serve_then_load(server: Any, listener: Any, queue: Any, runs: Any, say: Any) -> None:
    """Serve the page; networks are loaded once it answers, as that would hold it up."""
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not (server.started or serving.done()):
        await asyncio.sleep(0.01)
    queue.put(runs.load_all).add_done_callback(
        lambda done: say(
            f"The networks cannot be loaded: {done.exception()}"
            if done.exception()
            else f"{len(runs.offered)} model(s) are ready."
        )
    )
    await serving
