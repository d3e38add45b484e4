"""The operator process: settings, leadership, watching, and the loop that handles what is due."""

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import aiohttp
from wsgiapp.names import GROUP, KIND
from wsgiapp.resources import Platform

from wsgiapp_operator.agents import Agents, open_session
from wsgiapp_operator.apply import Writer
from wsgiapp_operator.cache import AppKey, Cache
from wsgiapp_operator.claims import Claims
from wsgiapp_operator.client import ApiError, Cluster
from wsgiapp_operator.ingress_classes import IngressClasses
from wsgiapp_operator.last_good import has_other_content
from wsgiapp_operator.leader_election import LeadershipLost
from wsgiapp_operator.logs import make_formatter
from wsgiapp_operator.metrics import Heartbeat, Metrics, start_server
from wsgiapp_operator.named_secrets import NamedSecrets
from wsgiapp_operator.reconcile import Reconciler
from wsgiapp_operator.resync import list_everything, read_contents
from wsgiapp_operator.settings import Settings, read_settings
from wsgiapp_operator.slots import Slots
from wsgiapp_operator.upgrade import Upgrades
from wsgiapp_operator.watch import choose_pause_s, watch
from wsgiapp_operator.workqueue import FIRST, KeyedQueue

logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")

PARALLEL = 256  # apps at a time; all but a few of them only wait for agents
TRANSIENT = (ApiError, aiohttp.ClientError, TimeoutError)  # passes by itself
RELIST_S = 3600.0
FIRST_PAUSE_S = 1.0  # of an operator that starts, between two tries; each is twice as long
LONGEST_PAUSE_S = 5.0
CALM_S = 15.0  # after a watch began anew with a list, in which what was deleted before is not seen
HEARTBEAT_S = 1.0
IMAGE_VOLUMES_SINCE = (1, 35)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run until stopped; the exit code is 1 when the connection was lost."""
    settings = read_settings(arguments)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(make_formatter(settings.log_format))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    if settings.log_level != "debug":
        logging.getLogger("kopf").setLevel(logging.WARNING)
    try:
        asyncio.run(run(settings))
    except (*TRANSIENT, OSError) as error:
        logger.error("cannot run: error=%s", error)
        sys.exit(1)


async def run(settings: Settings) -> None:
    """Wait for leadership, then operate; give leadership up at the end, whatever the end is."""
    metrics, heartbeat, stop = Metrics(), Heartbeat(), asyncio.Event()
    server = start_server(settings.listen, metrics, heartbeat)
    handle_signals(stop)
    cluster = await Cluster.connect()
    claims = Claims(
        cluster, settings.lease_namespace, settings.identity, settings.installation,
        settings.namespaces, heartbeat.wait_for, settings.lease_role,
    )  # fmt: skip
    try:
        async with background(beat(heartbeat)):
            while await finish_first(claims.acquire(), stop):
                metrics.leader.set(1)
                try:
                    await operate(settings, cluster, claims, metrics, stop, heartbeat.set_ready)
                    return
                except LeadershipLost as lost:
                    metrics.leader.set(0)
                    metrics.drop_all_apps()
                    logger.warning("leadership lost, waiting for it again: reason=%s", lost)
    finally:
        await claims.release()
        await cluster.close()
        server.shutdown()


async def operate(
    settings: Settings,
    cluster: Cluster,
    claims: Claims,
    metrics: Metrics,
    stop: asyncio.Event,
    on_ready: Callable[[], None],
) -> None:
    """Watch and reconcile until `stop`; `on_ready` is called when everything there has been seen.

    Raises LeadershipLost when that ends it.
    """
    cache: Cache = Cache()
    slots = Slots()
    queue: KeyedQueue[AppKey] = KeyedQueue(TRANSIENT, slots.put_first)
    listed = asyncio.Event()
    end = asyncio.Event()  # of this term of leadership: the stop of the process, or a loss
    async with (
        open_session() as session,
        background(pass_on(stop, end)),
        background(keep(claims, end)) as keeping,
    ):
        async with background(read_everything(settings, cluster, cache, queue)) as reading:
            if not await finish_first(asyncio.wait((reading,)), end):
                await raise_if_failed(keeping)
                return
            platform = await reading
        upgrades = Upgrades(settings.upgrades_at_a_time, queue.add, metrics, cluster.now)
        named_secrets = NamedSecrets(cluster, cache, is_permitted=settings.reads_secrets)
        reconciler = Reconciler(
            cluster=cluster,
            cache=cache,
            agents=Agents(session),
            writer=Writer(cluster, cache, metrics),
            secrets=named_secrets,
            ingress_classes=IngressClasses(cluster),
            metrics=metrics,
            platform=platform,
            upgrades=upgrades,
            now=cluster.now,
            slots=slots,
        )
        on_ready()
        upgrades.see_all(cache)  # before any app may ask: who is on the way counts
        async with background(
            watch(
                settings.namespaces,
                cache,
                queue,
                end,
                lambda: handle_signals(stop),
                listed.set,
                ssl_context=cluster.ssl_context,
            )
        ) as watching:
            works = (
                queue.run(reconciler.reconcile, parallel=PARALLEL),
                show_depth(queue, metrics),
                relist_forever(cluster, cache, queue, settings.namespaces, listed),
                named_secrets.poll_forever(lambda app: queue.add(app, FIRST)),
            )
            await run_beside((watching, keeping), works, end)
            # Nothing writes any more. Watching takes seconds to end; a successor need not wait for it.
            await claims.release()
            await raise_if_failed(watching)
        await raise_if_failed(keeping)


async def read_everything(
    settings: Settings, cluster: Cluster, cache: Cache, queue: KeyedQueue[AppKey]
) -> Platform:
    """Return what the cluster can do, once all that is in it is in the cache. Raises ApiError where that is refused."""
    platform = await until_answered("asking for versions", lambda: read_platform(settings, cluster))
    await wait_for_listing(cluster, cache, queue, settings.namespaces)
    return platform


async def until_answered(what: str, ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """Return the answer of an API server that may be busy, away for a moment, or not know this operator yet.

    Raises ApiError where it refuses.
    """
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            return await ask()
        except TRANSIENT as error:
            if isinstance(error, ApiError) and error.is_refusal:
                raise
            logger.warning(
                "%s failed, will be repeated: after_s=%.0f %s", what, pause_s, explain(error)
            )
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


async def read_platform(settings: Settings, cluster: Cluster) -> Platform:
    version = await cluster.read_version()
    image_volumes = settings.delivery == "image"
    if settings.delivery == "auto":
        image_volumes = await have_image_volumes(cluster, version)
    platform = Platform(
        prefork_image=settings.prefork_image,
        prefork_pull_policy=settings.prefork_pull_policy,
        prefork_pull_secrets=settings.prefork_pull_secrets,
        image_volumes=image_volumes,
        any_address=settings.any_address,
        pod_id=settings.pod_id,
        ingress_annotations=settings.ingress_annotations,
    )
    logger.info(
        "operating: kubernetes=%d.%d namespaces=%s platform=%s",
        *version, ",".join(settings.namespaces) or "all", platform,
    )  # fmt: skip
    return platform


async def have_image_volumes(cluster: Cluster, version: tuple[int, int]) -> bool:
    """Return whether every node can mount an image: control planes are upgraded before their kubelets.

    An operator that may not look at nodes, as one for some namespaces only, has the server copied.
    """
    if version < IMAGE_VOLUMES_SINCE:
        return False
    try:
        kubelets = await cluster.list_kubelet_versions()
    except ApiError as error:
        if error.status != 403:
            raise
        logger.info("nodes cannot be listed, so pods copy the server: error=%s", error)
        return False
    return all(kubelet >= IMAGE_VOLUMES_SINCE for kubelet in kubelets)


# -- listing and watching ---------------------------------------------------------------------


async def wait_for_listing(
    cluster: Cluster, cache: Cache, queue: KeyedQueue[AppKey], namespaces: Sequence[str]
) -> None:
    """Fill the cache and mark every app as due, first those that declare something new or whose content is another;
    wait for the CRD where it is not there yet. Raises ApiError where the API server refuses."""

    async def list_all() -> None:
        await list_everything(cluster, cache, namespaces)
        await read_contents(cluster, cache, namespaces)

    await until_answered("listing", list_all)
    for app in cache.apps():
        manifest = cache.get(KIND, *app)
        if manifest is not None:
            is_other = has_other_content(manifest, cache)
            queue.add(app, FIRST if is_other else choose_pause_s(manifest))


def explain(error: Exception) -> str:
    if isinstance(error, ApiError) and error.status == 404:
        return f"the CRD wsgiapps.{GROUP} is not installed; apply manifests/crd/wsgiapps.yaml"
    return f"error={error!r}"


async def relist_forever(
    cluster: Cluster,
    cache: Cache,
    queue: KeyedQueue[AppKey],
    namespaces: Sequence[str],
    listed: asyncio.Event,
) -> None:
    """List everything soon after a watch has begun with a list, as at the start, and from time to time."""
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RELIST_S):
                await listed.wait()
        await asyncio.sleep(CALM_S)
        listed.clear()
        changed: set[AppKey] = set()
        try:
            await list_everything(cluster, cache, namespaces, changed)
        except TRANSIENT as error:
            logger.warning("listing failed, will be repeated: %s", explain(error))
            listed.set()
        for app in changed:
            queue.add(app)


# -- tasks ------------------------------------------------------------------------------------


def handle_signals(stop: asyncio.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


async def beat(heartbeat: Heartbeat) -> None:
    while True:
        heartbeat.beat()
        await asyncio.sleep(HEARTBEAT_S)


async def show_depth(queue: KeyedQueue[AppKey], metrics: Metrics) -> None:
    while True:
        metrics.queue_depth.set(len(queue))
        await asyncio.sleep(HEARTBEAT_S)


async def keep(claims: Claims, end: asyncio.Event) -> None:
    """Keep the leases; when one is lost, end what needs them."""
    try:
        await claims.keep()
    finally:
        end.set()


async def pass_on(stop: asyncio.Event, end: asyncio.Event) -> None:
    await stop.wait()
    end.set()


@contextlib.asynccontextmanager
async def background(work: Coroutine[Any, Any, Answer]) -> AsyncIterator["asyncio.Task[Answer]"]:
    """Run `work` next to the body, and end it with the body."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, LeadershipLost):
            await task


async def run_beside(
    others: Sequence["asyncio.Task[None]"], works: Sequence[Any], end: asyncio.Event
) -> None:
    """Run `works`, none of which ends by itself, until `end`, or until one of them or of `others` has ended.

    Raises what one of `works` has raised: an operator in which one is missing looks healthy, and sees or does
    nothing of what that was for.
    """
    async with contextlib.AsyncExitStack() as stack:
        running = [await stack.enter_async_context(background(work)) for work in works]
        await finish_first(
            asyncio.wait((*running, *others), return_when=asyncio.FIRST_COMPLETED), end
        )


async def raise_if_failed(task: "asyncio.Task[None]") -> None:
    if task.done():
        await task


async def finish_first(work: Any, stop: asyncio.Event) -> bool:
    """Return True when `work` ended, False when `stop` came first."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working
            return True
        return False
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)


if __name__ == "__main__":
    main()
