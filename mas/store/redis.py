"""What mas keeps in Redis: who the agents are, what they share. The home of redis.

Everything here may be lost without harm, and every key has a TTL.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self
from urllib.parse import urlsplit

import anyio
import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import RedisError

from mas.errors import MasError, NotReadyError, StoreError, UsageError
from mas.model import AgentStatus
from mas.store.sql import one_line

DEFAULT_EXPIRE_S = 24 * 3600
MAX_EXPIRE_S = 7 * 24 * 3600

_ACTIVE_AGENTS = "active_agents"
# Longer than any agent's: a supervisor with a short TTL must not hide the others.
_ACTIVE_AGENTS_TTL_S = 24 * 3600

# A pooled connection notices that the server was restarted only when it is used: one
# more try, after the time that a supervised server takes to come back.
_RETRY_AFTER_S = 0.2
_CLOSE_TIMEOUT_S = 2

# Only where the status is gone: it may have been published again since it was read.
_DROP_STALE = """
    if redis.call('EXISTS', KEYS[2]) == 0 then
        return redis.call('SREM', KEYS[1], ARGV[1])
    end
    return 0
    """


class MissingKeyError(MasError, LookupError):
    """Nothing is shared under this key, or no longer."""


class _Client:
    """A connection to Redis that says StoreError where it does not work."""

    def __init__(self, redis: Redis, where: str) -> None:
        self._redis = redis
        self._where = where

    @classmethod
    async def connect(cls, url: str, *, timeout_s: float = 10) -> Self:
        """Connect, or raise NotReadyError with the place and the reason."""
        where = _where(url)
        try:
            redis = Redis.from_url(
                url,
                protocol=3,
                decode_responses=True,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                retry=Retry(ConstantBackoff(_RETRY_AFTER_S), 1),
            )
        except ValueError as error:
            raise NotReadyError(
                "the address of Redis cannot be understood",
                hint="write [redis] url or REDIS_URL as redis://host:6379/0",
            ) from error
        client = cls(redis, where)
        try:
            with anyio.fail_after(timeout_s):
                await redis.ping()
        except (RedisError, OSError) as error:
            await client.close()
            raise NotReadyError(
                f"Redis at {where} cannot be used: {_reason(error, timeout_s)}",
                hint="start it or correct [redis] url; without one, mas runs its own",
            ) from error
        except BaseException:
            await client.close()
            raise
        return client

    async def server_version(self) -> str:
        """The server's name and version, for people: ``Valkey 9.1.2``."""
        with self._translated():
            info = await self._redis.info("server")
        if "valkey_version" in info:
            return f"Valkey {info['valkey_version']}"
        return f"Redis {info['redis_version']}"

    async def close(self) -> None:
        with anyio.move_on_after(_CLOSE_TIMEOUT_S, shield=True):
            await self._redis.aclose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (RedisError, OSError) as error:
            raise StoreError(
                f"Redis at {self._where} failed: {one_line(str(error))}",
                hint="see whether the server runs: mas doctor",
                evidence=repr(error),
            ) from error


class AgentBoard(_Client):
    """The agents' statuses and what they do right now, for anybody to see."""

    async def publish(self, status: AgentStatus, ttl_s: float) -> None:
        """Show the status for ``ttl_s`` seconds from now."""
        member = _member(status.supervisor, status.agent_id)
        key = _agent_key(member)
        with self._translated():
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hset(key, mapping=_to_hash(status))
                pipeline.pexpire(key, max(1, round(ttl_s * 1000)))
                pipeline.sadd(_ACTIVE_AGENTS, member)
                pipeline.expire(_ACTIVE_AGENTS, _ACTIVE_AGENTS_TTL_S)
                await pipeline.execute()

    async def remove(self, supervisor: str, agent_id: str) -> None:
        """The agent is gone: show it no longer."""
        member = _member(supervisor, agent_id)
        with self._translated():
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.delete(_agent_key(member))
                pipeline.srem(_ACTIVE_AGENTS, member)
                await pipeline.execute()

    async def remove_all_of(self, supervisor: str) -> None:
        """A supervisor is gone, and with it its agents."""
        for status in await self.agents():
            if status.supervisor == supervisor:
                await self.remove(supervisor, status.agent_id)

    async def agents(self) -> list[AgentStatus]:
        """Every agent whose status has not run out, by supervisor and id."""
        with self._translated():
            members = sorted(map(str, await self._redis.smembers(_ACTIVE_AGENTS)))
            async with self._redis.pipeline(transaction=False) as pipeline:
                for member in members:
                    pipeline.hgetall(_agent_key(member))
                hashes = await pipeline.execute()
            for member, fields in zip(members, hashes, strict=True):
                if not fields:
                    keys = (_ACTIVE_AGENTS, _agent_key(member))
                    await self._redis.eval(_DROP_STALE, 2, *keys, member)
        return [_from_hash(fields) for fields in hashes if fields]

    async def publish_progress(self, task_id: str, payload: bytes) -> None:
        """Tell whoever listens to ``progress:{task_id}``; nobody may."""
        with self._translated():
            await self._redis.publish(f"progress:{task_id}", payload)


class SharedState(_Client):
    """What the agents of a task share: JSON values by key, each for a time."""

    async def share(
        self, task_id: str, key: str, value: Any, expire_s: int = DEFAULT_EXPIRE_S
    ) -> None:
        """Keep ``value`` for ``expire_s`` seconds; it replaces what was there."""
        if not 1 <= expire_s <= MAX_EXPIRE_S:
            raise UsageError(
                f"expire_s is {expire_s}; it must be from 1 to {MAX_EXPIRE_S} seconds"
            )
        if not key:
            raise UsageError("the key is empty")
        try:
            name = _state_key(task_id, key).encode()
            payload = msgspec.json.encode(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise UsageError(
                f"the value or its key cannot be shared: {one_line(str(error))}",
                hint="share what JSON can hold",
            ) from error
        with self._translated():
            await self._redis.set(name, payload, ex=expire_s)

    async def get(self, task_id: str, key: str) -> Any:
        """What was shared under ``key``; MissingKeyError where nothing is."""
        with self._translated():
            payload = await self._redis.get(_state_key(task_id, key))
        if payload is None:
            raise MissingKeyError(
                f"nothing is shared under the key {key!r}",
                hint="it was never shared in this task, or its time ran out",
            )
        return msgspec.json.decode(payload)

    async def keys(self, task_id: str) -> list[str]:
        """The keys under which something is shared in this task, sorted."""
        prefix = _state_key(task_id, "")
        with self._translated():
            found = [
                name.removeprefix(prefix)
                async for name in self._redis.scan_iter(
                    match=_glob_literal(prefix) + "*", count=1000
                )
            ]
        return sorted(set(found))  # a scan may name a key twice


def _member(supervisor: str, agent_id: str) -> str:
    return f"{supervisor}:{agent_id}"


def _agent_key(member: str) -> str:
    return f"agent:{member}"


def _state_key(task_id: str, key: str) -> str:
    return f"state:{task_id}:{key}"


def _glob_literal(text: str) -> str:
    return "".join(f"\\{char}" if char in "*?[]^-\\" else char for char in text)


def _to_hash(status: AgentStatus) -> dict[Any, Any]:
    """Texts as they are, the rest as JSON; no current task is the empty text."""
    return {
        "agent_id": status.agent_id,
        "supervisor": status.supervisor,
        "pid": str(status.pid),
        "is_available": "true" if status.is_available else "false",
        "current_task": status.current_task or "",
        "capabilities": msgspec.json.encode(status.capabilities).decode(),
        "cpu_usage": str(status.cpu_usage),
        "memory_usage": str(status.memory_usage),
        "tasks_completed": str(status.tasks_completed),
        "last_heartbeat": status.last_heartbeat.isoformat(),
    }


def _from_hash(fields: dict[str, str]) -> AgentStatus:
    try:
        typed: dict[str, Any] = dict(fields)
        typed["capabilities"] = msgspec.json.decode(fields["capabilities"])
        typed["current_task"] = fields["current_task"] or None
        return msgspec.convert(typed, AgentStatus, strict=False)
    except (KeyError, msgspec.MsgspecError) as error:
        raise StoreError(
            "an agent's status in Redis is not in mas's form",
            hint="another program or another version of mas uses this Redis",
            evidence=f"{fields!r}: {error!r}",
        ) from error


def _where(url: str) -> str:
    """The server's place, without the password."""
    try:
        parts = urlsplit(url)
        place = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "that address"
    return parts.path if parts.scheme == "unix" else place


def _reason(error: Exception, timeout_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:g} s"
    return one_line(str(error)) or type(error).__name__
