"""The agents of one supervisor: started together, started again when one is lost."""

import time
from collections.abc import Callable, Sequence
from functools import partial

import anyio

from mas.config import Config
from mas.core.events import AgentLost, AgentReady
from mas.core.policy import RestartIntensity
from mas.errors import MasError
from mas.model import AgentSpec
from mas.supervisor.handles import AgentHandle
from mas.supervisor.processes import agent_marker
from mas.wire.messages import Configure, FromAgent, ToAgent

AGENT_MODULE = "mas.agent"
_MAX_UNREADY_STARTS = 2


class AgentPool:
    """Keeps one process per roster entry; says what happens through two callbacks.

    ``changed`` gets AgentReady and AgentLost, ``received`` every message of an agent.
    An agent lost more than ``max_restarts`` times within the window is retired; so is
    one that twice in a row does not get through its handshake: its command is wrong.
    """

    def __init__(
        self,
        config: Config,
        supervisor_id: str,
        configure: Callable[[AgentSpec], Configure],
        changed: Callable[[AgentReady | AgentLost], None],
        received: Callable[[str, FromAgent], None],
        *,
        module: str = AGENT_MODULE,
    ) -> None:
        self._config = config
        self._supervisor_id = supervisor_id
        self._configure = configure
        self._changed = changed
        self._received = received
        self._module = module
        self._handles: dict[str, AgentHandle] = {}
        self._greeted: set[str] = set()
        self._stopping = anyio.Event()
        self._ended = anyio.Event()

    async def run(self, roster: Sequence[AgentSpec]) -> None:
        """Run every agent of the roster until ``stop``, or until all are retired."""
        try:
            async with anyio.create_task_group() as tasks:
                for spec in roster:
                    tasks.start_soon(self._keep, spec, name=f"agent {spec.id}")
        finally:
            self._ended.set()

    def send(self, agent_id: str, message: ToAgent) -> None:
        """Send to the agent if it is there; its loss is reported otherwise."""
        if handle := self._handles.get(agent_id):
            handle.send(message)

    def kill(self, agent_id: str, reason: str) -> None:
        """End one agent at once; it is started again."""
        if handle := self._handles.get(agent_id):
            handle.kill(reason)

    def ask_to_end(self) -> None:
        """Ask every agent to end, and start none again; asking twice does nothing."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        for handle in self._handles.values():
            handle.stop()

    async def stop(self) -> None:
        """Ask every agent to end, and wait until all are gone."""
        self.ask_to_end()
        await self._ended.wait()

    async def _keep(self, spec: AgentSpec) -> None:
        settings = self._config.supervisor
        intensity = RestartIntensity(settings.max_restarts, settings.restart_window_s)
        unready = 0
        while not self._stopping.is_set():
            error = await self._run_once(spec)
            if error is None or self._stopping.is_set():
                return
            unready = 0 if spec.id in self._greeted else unready + 1
            self._greeted.discard(spec.id)
            delay_s = intensity.record(time.monotonic())
            if unready == _MAX_UNREADY_STARTS:
                delay_s = None
            lost = AgentLost(
                agent_id=spec.id, error=_told(error), retired=delay_s is None
            )
            self._changed(lost)
            if delay_s is None:
                return
            with anyio.move_on_after(delay_s):
                await self._stopping.wait()

    async def _run_once(self, spec: AgentSpec) -> MasError | None:
        settings = self._config.supervisor
        handle = AgentHandle(
            spec,
            module=self._module,
            marker=agent_marker(self._supervisor_id, spec.id),
            handshake_timeout_s=settings.handshake_timeout_s,
            silence_timeout_s=settings.agent_ttl_s,
            shutdown_grace_s=settings.shutdown_grace_s,
        )
        self._handles[spec.id] = handle
        try:
            return await handle.run(
                self._configure(spec),
                ready=partial(self._ready, handle),
                received=partial(self._received, spec.id),
            )
        finally:
            del self._handles[spec.id]

    def _ready(self, handle: AgentHandle) -> None:
        spec = handle.spec
        self._greeted.add(spec.id)
        self._changed(
            AgentReady(agent_id=spec.id, pid=handle.pid, capabilities=spec.capabilities)
        )


def _told(error: MasError) -> str:
    """The error with the end of its evidence, as one text."""
    tail = error.evidence.strip()[-600:]
    return f"{error.message}\n{tail}" if tail else error.message
