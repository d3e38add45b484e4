"""What runs in the agent.

One event loop, nothing that waits: the agent answers while every worker is busy, and while the
server boots, hangs or is gone.
"""

import asyncio
import errno
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import prefork
from prefork.agent.content import MountedContents, PinnedContents
from prefork.agent.content_key import ContentKey
from prefork.agent.control import ControlClient, Rejected, Unreachable
from prefork.agent.http import Response, listen
from prefork.agent.options import AgentOptions, parse_options
from prefork.agent.probe import Probe
from prefork.agent.readiness import Fault, Readiness, Reason, find_liveness_fault
from prefork.agent.reload_request import ReloadWatcher
from prefork.agent.table import TableFile
from prefork.agent.version_store import VersionStore
from prefork.base.addresses import explain, parse_address
from prefork.base.log import Log
from prefork.base.run_dir import CONTROL, STATS
from prefork.errors import Exit, StartupError

if TYPE_CHECKING:
    from prefork.agent.metrics import Metrics

# How often an agent that is a child looks whether its parent is still there.
PARENT_PERIOD_S = 1.0
# So long the agent of a killed server may still hold the address: it sees after a period that its parent is gone.
LAST_AGENT_S = 3 * PARENT_PERIOD_S
LISTEN_RETRY_S = 0.1
STATUS_TIMEOUT_S = 2.0
# How often it is noted whether the workers are complete; several times in SHORTFALL_MAX_S.
LOOK_PERIOD_S = 0.5


def main(arguments: Sequence[str]) -> int:
    """Run the agent until TERM; return the exit code. Raises StartupError."""
    options = parse_options(arguments, os.environ)
    extend_path_with_agent_site()
    try:
        # The only importer of prometheus_client, and only in this process.
        from prefork.agent.metrics import Metrics, TableCollector
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "prometheus_client":
            raise
        message = "the agent needs prometheus-client; install it with: pip install 'prefork[agent]'"
        raise StartupError(message, Exit.ENVIRONMENT) from None
    # One event loop, nothing that waits: not for a reader of the log either.
    log = Log(style=options.log_format, patience_s=0.0)
    if options.ignored:
        log.warning(
            "ignoring options that this version does not have", options=" ".join(options.ignored)
        )
    table = TableFile(options.run_dir / STATS, log)
    agent = Agent(options, table, log)
    agent.metrics = Metrics(
        TableCollector(table, agent.find_readiness_fault, version=prefork.__version__)
    )
    return asyncio.run(agent.run())


def extend_path_with_agent_site() -> None:
    """Make `agent-site` next to the package importable (the plain folder has one)."""
    site = Path(prefork.__file__).absolute().parent.parent / "agent-site"
    if site.is_dir():
        sys.path.append(str(site))


class Agent:
    """Answers on one port; follows the table, the probe and the reload request."""

    metrics: "Metrics"

    def __init__(self, options: AgentOptions, table: TableFile, log: Log) -> None:
        self.options = options
        self.table = table
        self.log = log
        self.control = ControlClient(options.run_dir / CONTROL)
        self.probe = Probe(options.probe, host=options.probe_host) if options.probe else None
        self.readiness = Readiness()
        self.pinned: PinnedContents | None = None
        if options.versions is not None:
            store = VersionStore(options.versions)
            key = ContentKey(options.secret, options.digest_key, store)
            self.pinned = PinnedContents(
                store, options.content, options.last_good, options.revision, key,
                self.control, table, log,
            )  # fmt: skip
        self.reloads: ReloadWatcher | None = None
        if options.reload_file is not None:
            contents = self.pinned or MountedContents(options.content)
            self.reloads = ReloadWatcher(options.reload_file, contents, self.control, table, log)

    async def run(self) -> int:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        if self.pinned is not None:
            # Before anything answers: the kubelet starts the app's container once the agent does.
            self.pinned.prepare()
        server = await self.listen(stop)
        self.log.info("agent listening", address=self.options.listen, run_dir=self.options.run_dir)
        tasks = [
            asyncio.create_task(self.watch_parent(stop)),
            asyncio.create_task(self.watch_workers()),
        ]
        if self.probe is not None:
            tasks.append(asyncio.create_task(self.probe.run(self.table)))
        if self.pinned is not None:
            tasks.append(asyncio.create_task(self.pinned.run()))
        if self.reloads is not None:
            tasks.append(asyncio.create_task(self.reloads.run()))
        # A task that ends has failed; its exception ends the agent, which is started again.
        ended, _ = await asyncio.wait(
            [asyncio.create_task(stop.wait()), *tasks], return_when=asyncio.FIRST_COMPLETED
        )
        server.close()
        for task in tasks:
            task.cancel()
        for finished in ended:
            finished.result()
        return Exit.OK

    async def listen(self, stop: asyncio.Event) -> asyncio.Server:
        """Listen; the agent of a server that was killed a moment ago is waited for. Raises StartupError."""
        address = parse_address(self.options.listen)
        give_up_at = time.monotonic() + (LAST_AGENT_S if self.options.parent else 0.0)
        while True:
            try:
                return await listen(address.host, address.port, self.answer)
            except OSError as error:
                is_over = stop.is_set() or time.monotonic() >= give_up_at
                if error.errno != errno.EADDRINUSE or is_over:
                    raise StartupError(explain(self.options.listen, error), Exit.LISTEN) from None
            await asyncio.sleep(LISTEN_RETRY_S)

    async def watch_parent(self, stop: asyncio.Event) -> None:
        """End with the server that started this agent, also when that was killed."""
        # Polled: another process's end sets no Event of ours.
        while not self.options.parent or os.getppid() == self.options.parent:
            self.log.sink.flush()
            await asyncio.sleep(PARENT_PERIOD_S)
        stop.set()
        await asyncio.Event().wait()

    async def watch_workers(self) -> None:
        """Note when the workers were last complete: probes may be further apart than a gap may be long."""
        while True:
            self.readiness.find_fault(self.table.get(), time.monotonic())
            await asyncio.sleep(LOOK_PERIOD_S)

    async def answer(self, path: str, accept: str) -> Response:
        match path:
            case "/metrics":
                content_type, body = self.metrics.render(accept)
                return Response(200, body, content_type)
            case "/livez":
                fault = find_liveness_fault(self.table.get(), time.monotonic())
                return Response.text(503 if fault else 200, fault or "alive")
            case "/readyz":
                unready = self.find_readiness_fault(time.monotonic())
                return Response.text(503 if unready else 200, unready.text if unready else "ready")
            case "/status":
                return await self.answer_status()
            case _:
                return Response.text(
                    404, "this is the prefork agent: /metrics /livez /readyz /status"
                )

    def find_readiness_fault(self, now: float) -> Fault | None:
        """Return why no requests should be sent here; None when they may be."""
        fault = self.readiness.find_fault(self.table.get(), now)
        if fault is None and self.probe is not None and self.probe.fault:
            return Fault(Reason.PROBE_FAILED, self.probe.fault)
        return fault

    async def answer_status(self) -> Response:
        """Return the server's status, and how far the newest reload request has got."""
        request = self.reloads.report() if self.reloads is not None else None
        table = self.table.get()
        queue = (
            {"depth": table.header("listen_depth"), "limit": table.header("listen_limit")}
            if table
            else None
        )
        try:
            async with asyncio.timeout(STATUS_TIMEOUT_S):
                status = await self.control.ask({"op": "status"})
        except (Unreachable, Rejected, TimeoutError) as error:
            why = str(error) or f"no answer within {STATUS_TIMEOUT_S:g} s"
            return Response.json(
                503, {"state": "unreachable", "error": why, "reload": request, "queue": queue}
            )
        status["queue"] = queue
        status["keyed"] = list(self.options.secret)
        if request is not None:
            status["reload"] = request
        return Response.json(200, status)
