"""A request as recording and replay see it: without secrets, names and noise."""

import os
from functools import cached_property

from mas.gateway.cassettes.conversation import Asked, asked, parsed, results
from mas.gateway.cassettes.normal import (
    Names,
    Placeholders,
    Secrets,
    spilled,
    without_noise,
)
from mas.gateway.exchange import Request


class SeenRequest:
    """One request, read once."""

    def __init__(self, request: Request, secrets: Secrets) -> None:
        self.request = request
        self.body = parsed(request.body)
        """Empty where the body is no object."""
        self.placeholders = Placeholders(_names(request, spilled(results(self.body))))
        self._secrets = secrets

    @cached_property
    def asked(self) -> Asked | None:
        """What it asks; None where its body is no object."""
        return asked(self.body, self.clean) if self.body else None

    def put(self, text: str) -> str:
        """Without secrets, and with placeholders for the names of this run."""
        return self.placeholders.put(self._secrets.mask(text))

    def clean(self, text: str) -> str:
        """The same without noise, for comparing."""
        return without_noise(self.put(text))


def _names(request: Request, files: tuple[str, ...]) -> Names:
    workspace = request.caller.workspace
    return Names(
        workspace=workspace,
        real_workspace=os.path.realpath(workspace) if workspace else "",
        task=request.caller.task_id,
        session=request.header(b"x-claude-code-session-id"),
        spilled=files,
    )
