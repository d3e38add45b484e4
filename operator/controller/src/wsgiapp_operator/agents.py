"""The agents in the pods, asked over HTTP."""

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import aiohttp
from wsgiapp.names import AGENT_PORT

from wsgiapp_operator.pods import last_line
from wsgiapp_operator.state import AgentReload, AgentStatus, Pod

AGENT_TIMEOUT_S = 2.0


class Agents:
    """Asks the agents in the pods, several at once."""

    def __init__(self, session: aiohttp.ClientSession, *, parallel: int = 64) -> None:
        self._session = session
        self._free = asyncio.Semaphore(parallel)

    async def ask_all(self, pods: Iterable[Pod]) -> list[Pod]:
        """Return the pods with what their agents say; None for one that does not answer."""
        return list(await asyncio.gather(*(self._ask(pod) for pod in pods)))

    async def _ask(self, pod: Pod) -> Pod:
        if pod.ip is None:
            return pod
        host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
        base = f"http://{host}:{AGENT_PORT}"
        try:
            async with self._free:
                status = json.loads((await self._fetch(f"{base}/status"))[1])
                unready = ""
                if not pod.ready:
                    code, text = await self._fetch(f"{base}/readyz")
                    unready = "" if code == 200 else last_line(text)
            agent = parse_agent_status(status, unready)
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError):
            return pod  # booting, gone, or behind a network policy: planning treats it as unknown
        return replace(pod, agent=agent)

    async def _fetch(self, url: str) -> tuple[int, str]:
        timeout = aiohttp.ClientTimeout(total=AGENT_TIMEOUT_S)
        async with self._session.get(url, timeout=timeout) as answer:
            return answer.status, await answer.text()


def parse_agent_status(status: Mapping[str, Any], unready: str) -> AgentStatus:
    workers, reload = status["workers"], status.get("reload")
    return AgentStatus(
        state=str(status["state"]),
        content=dict(status.get("content") or {}),
        workers_desired=int(workers["desired"]),
        workers_ready=int(workers["ready"]),
        workers_busy=int(workers["busy"]),
        reload=AgentReload(
            str(reload["id"]), str(reload["result"]), str(reload.get("message") or "")
        )
        if reload
        else None,
        unready=unready,
    )
