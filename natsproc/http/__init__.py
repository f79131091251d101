"""The mesh over HTTP, as an ASGI application: `natsproc.asgi`. Nothing here needs a framework, or uvicorn.

app.py       the application: its mesh, and from a request to a response
request.py   what came, typed; its body, and whether its client is still there
routes.py    from a path to a process and what is asked of it
access.py    may this request do that, and as whom
events.py    what a process says, as Server-Sent Events, NDJSON or JSON; formats.py: how each is written
shared.py    what one client is shown, and one live tail for all who watch the same
a2a.py       a process as an A2A agent; a2a_task.py: what its tasks look like, a2a_params.py and rpc.py: what is asked
agui.py      a process as an AG-UI agent; agui_run.py: the events of its runs
exchange.py  what becomes of a message, for both; following.py: the log from where that begins
verbs.py     messages and commands; records.py: lists and records
problems.py  errors as problem+json
openapi.py   all of it, described
bearer.py    tokens, and cors.py pages of other sites, for `natsproc serve-http`
"""

from .access import Authorize
from .app import Application, asgi
from .request import Request
from .routes import Right

__all__ = ["Application", "Authorize", "Request", "Right", "asgi"]
