"""The agents in the pods, asked over HTTP.

What answers there runs next to an app's own code and is not trusted: an answer is bounded in size and
time, redirects are not followed, and its texts are cut before they reach a status. A pod that does not
answer is asked less and less often, so that it costs its own app only.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import aiohttp
from wsgiapp.names import AGENT_PORT

from wsgiapp_operator.pods import last_line
from wsgiapp_operator.state import AgentReload, AgentStatus, Pod

AGENT_TIMEOUT_S = 2.0
ANSWER_LIMIT_BYTES = 64 * 1024
TEXT_LIMIT = 1024  # as long as a condition's message
MOST_WORKERS = 100_000  # of one pod; the sum over all pods has to fit into the status, 32 bits
PARALLEL = 512  # answers that are waited for at a time, over all apps
FRESH_S = 5.0  # an answer of a pod at rest serves for as long
REST_S = 10.0  # a pod is at rest when it has answered the same for as long
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
REMEMBERED_PODS = 100_000


class Answer(NamedTuple):
    """What an agent said, when, and since when it has said the same of content and readiness."""

    at: float
    since: float
    agent: AgentStatus
    ready: bool


class Silence(NamedTuple):
    until: float  # when it is worth asking again
    pause_s: float
    ready: bool  # as the pod was: a change is worth asking at once


def open_session() -> aiohttp.ClientSession:
    """Return a session without a limit of its own: silent pods must not hold up others.

    Nothing is decompressed: a few kilobytes may become gigabytes.
    """
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False)


class Agents:
    """Asks the agents in the pods, many at once."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        port: int = AGENT_PORT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self._port = port
        self._clock = clock
        self._free = asyncio.Semaphore(PARALLEL)
        self._answers: dict[str, Answer] = {}  # by pod uid
        self._silences: dict[str, Silence] = {}

    async def ask_all(self, pods: Iterable[Pod]) -> list[Pod]:
        """Return the pods with what their agents report; None for one that does not answer."""
        return list(await asyncio.gather(*(self._ask(pod) for pod in pods)))

    def pause_s(self, pods: Iterable[Pod]) -> float:
        """Return after how long the next silent one among `pods` is asked again; 0: none is silent."""
        silences = [self._silences[pod.uid] for pod in pods if pod.uid in self._silences]
        return max(min((s.until for s in silences), default=0.0) - self._clock(), 0.0)

    async def _ask(self, pod: Pod) -> Pod:
        if pod.ip is None or pod.terminating:
            self._forget(pod)
            return pod
        now = self._clock()
        known = self._answers.get(pod.uid)
        if known is not None and now - known.at < FRESH_S and is_at_rest(pod, known, now):
            return replace(pod, agent=replace(known.agent, steady_s=now - known.since))
        silence = self._silences.get(pod.uid)
        if silence is not None and now < silence.until and silence.ready == pod.ready:
            return pod
        try:
            async with self._free:
                agent = await self._fetch_status(pod)
        except TimeoutError:
            self._note_silence(pod)
            return pod
        self._forget(pod)
        if agent is None:
            return pod
        return replace(pod, agent=self._remember(pod, known, agent))

    def _remember(self, pod: Pod, known: Answer | None, agent: AgentStatus) -> AgentStatus:
        """Keep the answer; return it with the time for which it has been the same."""
        if len(self._answers) >= REMEMBERED_PODS:
            self._answers.clear()
        now = self._clock()
        is_same = known is not None and known.ready == pod.ready and is_alike(known.agent, agent)
        since = known.since if known is not None and is_same else now
        self._answers[pod.uid] = Answer(now, since, agent, pod.ready)
        return replace(agent, steady_s=now - since)

    def _note_silence(self, pod: Pod) -> None:
        before = self._silences.get(pod.uid)
        pause_s = min(before.pause_s * 2, LONGEST_PAUSE_S) if before else FIRST_PAUSE_S
        self._answers.pop(pod.uid, None)
        if len(self._silences) >= REMEMBERED_PODS:
            self._silences.clear()
        self._silences[pod.uid] = Silence(self._clock() + pause_s, pause_s, pod.ready)

    def _forget(self, pod: Pod) -> None:
        self._answers.pop(pod.uid, None)
        self._silences.pop(pod.uid, None)

    async def _fetch_status(self, pod: Pod) -> AgentStatus | None:
        """Return what the agent reports; None where something else answers, or nothing at once.

        Raises TimeoutError for one that keeps the operator waiting: only that is worth asking less often.
        """
        host = f"[{pod.ip}]" if ":" in str(pod.ip) else pod.ip
        base = f"http://{host}:{self._port}"
        try:
            status = json.loads((await self._fetch(f"{base}/status"))[1])
            unready = ""
            if not pod.ready or pod.request is not None:
                code, text = await self._fetch(f"{base}/readyz")
                unready = "" if code == 200 else last_line(text)[:TEXT_LIMIT]
            return parse_agent_status(status, unready)
        except TimeoutError:
            raise  # behind a network policy, or hung; an OSError and so caught below otherwise
        except (aiohttp.ClientError, OSError):
            return None  # booting or gone: planning treats it as unknown
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None  # not an agent's answer

    async def _fetch(self, url: str) -> tuple[int, str]:
        timeout = aiohttp.ClientTimeout(total=AGENT_TIMEOUT_S)
        async with self._session.get(url, timeout=timeout, allow_redirects=False) as answer:
            body = bytearray()
            async for chunk in answer.content.iter_chunked(ANSWER_LIMIT_BYTES):
                body += chunk
                if len(body) > ANSWER_LIMIT_BYTES:
                    raise ValueError(f"the answer is longer than {ANSWER_LIMIT_BYTES} bytes")
            return answer.status, body.decode(errors="replace")


def is_at_rest(pod: Pod, known: Answer, now: float) -> bool:
    """Return whether nothing is under way in the pod that a new answer could tell of."""
    if not pod.ready or not known.ready or now - known.since < REST_S:
        return False
    reload = known.agent.reload
    if pod.request is None:
        return True
    return reload is not None and reload.id == pod.request.id and reload.is_finished


def is_alike(before: AgentStatus, after: AgentStatus) -> bool:
    """Return whether two answers say the same of content, reload and readiness."""
    return (before.content, before.reload, before.unready) == (
        after.content,
        after.reload,
        after.unready,
    )


def parse_agent_status(status: Mapping[str, Any], unready: str) -> AgentStatus:
    """Return an agent's `/status`; raises KeyError, TypeError or ValueError where it is not one."""
    workers, reload = status["workers"], status.get("reload")
    content = {
        str(name): str(digest)[:TEXT_LIMIT]
        for name, digest in dict(status.get("content") or {}).items()
    }
    return AgentStatus(
        state=str(status["state"])[:TEXT_LIMIT],
        content=content,
        workers_desired=parse_count(workers["desired"]),
        workers_ready=parse_count(workers["ready"]),
        workers_busy=parse_count(workers["busy"]),
        reload=parse_agent_reload(reload) if reload else None,
        is_keyed="keyed" in status,
        unready=unready,
    )


def parse_count(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value <= MOST_WORKERS:
        raise ValueError(f"{value} is no number of workers")
    return value


def parse_agent_reload(reload: Mapping[str, Any]) -> AgentReload:
    return AgentReload(
        id=str(reload["id"])[:TEXT_LIMIT],
        result=str(reload["result"])[:TEXT_LIMIT],
        message=str(reload.get("message") or "")[:TEXT_LIMIT],
    )
