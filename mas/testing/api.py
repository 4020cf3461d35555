"""The Messages API as an ASGI application that plays a script."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio
from anyio import to_thread
from starlette.requests import Request as HttpRequest
from starlette.types import Receive, Scope, Send

from mas.gateway import sse
from mas.testing.message import count_tokens, message
from mas.testing.request import Request
from mas.testing.script import Cue, Player, Script, ScriptError
from mas.testing.turns import Fault, Turn, as_turn

_NO_FAULT = Fault()


class MessagesApi:
    """Answers requests from the script, and keeps them in ``requests``.

    ``errors`` says, each once, what the script had no answer for and which of its
    functions failed. ``on_change`` is called after each request and each answer.
    """

    def __init__(
        self,
        script: Script,
        *,
        require_key: str | None = None,
        latency_s: float = 0.0,
        tokens_per_second: float | None = None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.requests: list[Request] = []
        self.errors: list[str] = []
        self._player = Player(script)
        self._require_key = require_key
        self._latency_s = latency_s
        self._tokens_per_second = tokens_per_second
        self._on_change = on_change
        self._open: set[anyio.CancelScope] = set()
        self._closed = False

    def open(self) -> None:
        """Answer from now on."""
        self._closed = False

    def close(self) -> None:
        """End every answer under way, in the middle of whatever it sends."""
        self._closed = True
        for scope in self._open:
            scope.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        http = HttpRequest(scope, receive)
        raw = await http.body()
        request, fault = _read(http, raw)
        self.requests.append(request)
        self._on_change()
        wire = _Wire(send, request, f"req_{len(self.requests):024}")
        async with anyio.create_task_group() as group:
            self._open.add(group.cancel_scope)
            if self._closed:  # it came while the server ends
                group.cancel_scope.cancel()
            group.start_soon(_cancel_when_client_leaves, receive, group.cancel_scope)
            try:
                await self._answer(request, fault, wire)
            finally:
                self._open.discard(group.cancel_scope)
                request.is_open = False
                self._on_change()
                group.cancel_scope.cancel()

    async def _answer(self, request: Request, fault: str, wire: "_Wire") -> None:
        if request.path == "/" and request.method in ("GET", "HEAD"):
            await wire.json(200, {"service": "scripted Claude"})
        elif self._require_key not in (None, request.key):
            await wire.json(401, sse.error(401, "invalid x-api-key"))
        elif fault:
            await wire.json(400, sse.error(400, fault))
        elif (request.method, request.path) == ("POST", "/v1/messages"):
            await self._play(request, wire)
        elif (request.method, request.path) == ("POST", "/v1/messages/count_tokens"):
            await wire.json(200, {"input_tokens": count_tokens(request.size)})
        else:
            await wire.json(404, sse.error(404, f"{request.path} is not scripted"))

    async def _play(self, request: Request, wire: "_Wire") -> None:
        try:
            cue = self._player.cue(request)
            turn = await _made(cue, request)
            answer = message(
                turn, model=request.model, ids=cue.ids, request_size=request.size
            )
        except ScriptError as error:
            self._note(f"{error.message}; {error.hint}")
            await wire.give_up(400, error.message)
        except Exception as error:  # noqa: BLE001 - the script's functions are its user's
            self._note(f"{type(error).__name__}: {error}, at {request!r}")
            await wire.give_up(500, f"{type(error).__name__}: {error}")
        else:
            fault = cue.fault or _NO_FAULT
            delay_s = self._latency_s if turn.delay_s is None else turn.delay_s
            speed = turn.tokens_per_second or self._tokens_per_second
            await anyio.sleep(fault.before_s + delay_s)
            await wire.play(answer, fault, speed)

    def _note(self, error: str) -> None:
        # The CLI asks six times where it is answered 400.
        if error not in self.errors:
            self.errors.append(error)


async def _made(cue: Cue, request: Request) -> Turn:
    """The turn itself; an empty one where a fault leaves nothing of it."""
    if cue.turn is None or (cue.fault and cue.fault.is_http_error):
        return Turn([], delay_s=0.0)
    if not callable(cue.turn):
        return as_turn(cue.turn)
    # In a thread: a function that waits for its test must not hold up other clients.
    answer = await to_thread.run_sync(cue.turn, request, abandon_on_cancel=True)
    return as_turn(answer)


def _read(http: HttpRequest, raw: bytes) -> tuple[Request, str]:
    """The request, and what is wrong with its body."""
    request = Request(
        method=http.method,
        path=http.url.path,
        headers=dict(http.headers),
        at=time.monotonic(),
        size=len(raw),
    )
    try:
        body = json.loads(raw or b"{}")
    except ValueError as error:
        return request, f"the body is not JSON: {error}"
    if not isinstance(body, dict) or not isinstance(body.get("messages", []), list):
        return request, "the body must be an object, and its messages a list"
    request.body = body
    return request, ""


async def _cancel_when_client_leaves(
    receive: Receive, scope: anyio.CancelScope
) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


class _Wire:
    """Sends one response; returning from it early makes the server cut the line."""

    def __init__(self, send: Send, request: Request, request_id: str) -> None:
        self._send = send
        self._request = request
        self._request_id = request_id

    async def _start(self, status: int, headers: Mapping[str, str]) -> None:
        self._request.status = status
        named = {"request-id": self._request_id, **headers}
        pairs = [(k.lower().encode(), v.encode()) for k, v in named.items()]
        start = {"type": "http.response.start", "status": status, "headers": pairs}
        await self._send(start)

    async def _body(self, data: bytes, *, more: bool = True) -> None:
        part = {"type": "http.response.body", "body": data, "more_body": more}
        await self._send(part)

    async def _respond(
        self, status: int, data: bytes, headers: Mapping[str, str]
    ) -> None:
        await self._start(status, {"content-length": str(len(data)), **headers})
        await self._body(data, more=False)

    async def json(self, status: int, content: Mapping[str, object]) -> None:
        kind = {"content-type": "application/json"}
        await self._respond(status, json.dumps(content).encode(), kind)

    async def give_up(self, status: int, reason: str) -> None:
        """Answer that the script is at fault, and that asking again is no use."""
        content = sse.error(status, f"scripted Claude: {reason}")
        await self.refuse(
            Fault(code=status, body=content, headers={"x-should-retry": "false"})
        )

    async def refuse(self, fault: Fault) -> None:
        """Answer with the fault's HTTP error."""
        if isinstance(fault.body, str):
            kind, data = "text/html; charset=utf-8", fault.body.encode()
        else:
            content = fault.body or sse.error(fault.code, fault.message)
            kind, data = "application/json", json.dumps(content).encode()
        headers = {"content-type": kind, **fault.headers}
        await self._respond(fault.code, data, headers)

    async def play(
        self, message: Mapping[str, Any], fault: Fault, tokens_per_second: float | None
    ) -> None:
        """Send the message, or what the fault makes of it."""
        if fault.is_http_error:
            await self.refuse(fault)
        elif fault.ending == "hang" and fault.after_events is None:
            await anyio.sleep_forever()
        elif self._request.stream:
            await self._stream(list(sse.events(message)), fault, tokens_per_second)
        else:
            await self._whole(message, fault)

    async def _stream(
        self, events: list[sse.Event], fault: Fault, tokens_per_second: float | None
    ) -> None:
        await self._start(200, {"content-type": "text/event-stream; charset=utf-8"})
        at = len(events) if fault.after_events is None else fault.after_events
        pace_s = 1 / tokens_per_second if tokens_per_second else 0.0
        await self._events(events[:at], fault.between_s, pace_s)
        if await self._breaks(fault):
            return
        await self._events(events[at:], fault.between_s, pace_s)
        await self._body(b"", more=False)

    async def _events(
        self, events: Sequence[sse.Event], between_s: float, pace_s: float
    ) -> None:
        for event in events:
            await anyio.sleep(between_s + event.tokens * pace_s)
            await self._body(sse.encode(event))

    async def _breaks(self, fault: Fault) -> bool:
        """Do what the fault says in the middle of a stream; True: nothing follows."""
        match fault.ending:
            case "hang":
                await anyio.sleep_forever()
            case "garbage":
                await self._body(sse.GARBAGE)
            case "error":
                failure = sse.error(fault.code, fault.message)
                await self._body(sse.encode(sse.Event("error", failure)), more=False)
                return True
            case "end":
                await self._body(b"", more=False)
                return True
            case "cut":
                return True
            case "answer":
                pass
        return False

    async def _whole(self, message: Mapping[str, Any], fault: Fault) -> None:
        data = json.dumps(message).encode()
        half = data[: len(data) // 2]
        length = {"content-type": "application/json", "content-length": str(len(data))}
        match fault.ending:
            case "answer":
                await self.json(200, message)
            case "garbage" | "end":
                await self._respond(200, half, {"content-type": "application/json"})
            case "error":
                await self.refuse(fault)
            case "cut" | "hang":
                await self._start(200, length)
                await self._body(half)
                if fault.ending == "hang":
                    await anyio.sleep_forever()
