"""`make demo`: the main job, step by step, in the words of a terminal.

First the manifest without a cluster, while the cluster is being built and started; then the same
on the cluster. Leaves the cluster up. With `--without-cluster` the first part alone. Exit code 1 when a promise was not met, 2 when the story
could not be told to its end.
"""

from __future__ import annotations

import sys
import time

from tests.cluster import Cluster
from tests.demo.cluster_part import ClusterStart, ClusterStory, say_how_to_look_around
from tests.demo.dashboards import show_dashboards
from tests.demo.local_part import serve_without_cluster
from tests.demo.screen import Screen
from tests.support.kube import Kube
from tests.support.load_report import LoadReport

_HEADINGS = ("step", "requests", "failed", "wrong", "GET retried", "p99", "worst")


def main() -> int:
    """Tell the story; return the exit code."""
    screen = Screen()
    screen.title("WsgiApp: from a manifest to pods that reload without a failed request")
    try:
        if "--without-cluster" in sys.argv[1:]:
            with screen.step("The manifest without any cluster"):
                serve_without_cluster(screen)
        else:
            _tell(screen)
    except KeyboardInterrupt:
        print("\nstopped; `make cluster-down` takes down what has been started of the cluster")
        return 130
    except Exception as error:
        screen.check(False, f"the demo ended early: {type(error).__name__}: {error}")
        return 2
    if screen.broken:
        screen.title(f"{len(screen.broken)} promises were not met")
        for text in screen.broken:
            screen.say(text)
        return 1
    minutes, seconds = divmod(int(screen.elapsed_s), 60)
    screen.title(f"Every promise was met, in {minutes} min {seconds} s")
    return 0


def _tell(screen: Screen) -> None:
    cluster = Cluster.from_env()
    with ClusterStart() as start:
        with screen.step("The manifest without any cluster (which is being built meanwhile)"):
            figures = serve_without_cluster(screen)
        with screen.step("A Kubernetes on this machine"):
            start.wait(screen)
    with Kube(cluster.kubectl, cluster.kubeconfig) as kube:
        began_s = time.monotonic()
        story = ClusterStory(screen, cluster, kube)
        try:
            story.tell()
            with screen.step("All requests"):
                _show_figures(screen, figures + story.figures)
        finally:
            with screen.step("What now"):
                show_dashboards(screen, cluster, (time.monotonic() - began_s) / 60 + 0.5)
                say_how_to_look_around(screen, cluster)


def _show_figures(screen: Screen, figures: list[tuple[str, LoadReport]]) -> None:
    screen.text(to_table(figures))
    total = sum(report.sent for _, report in figures)
    bad = sum(report.failed + report.wrong for _, report in figures)
    screen.check(bad == 0 and total > 0, f"{bad} of {total} requests failed")


def to_table(figures: list[tuple[str, LoadReport]]) -> str:
    """Return the figures of all loads as lines."""
    rows = [_HEADINGS, *(_row(name, report) for name, report in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _row(name: str, report: LoadReport) -> tuple[str, ...]:
    counts = (report.sent, report.failed, report.wrong, report.retried_reused_get)
    times = (report.p99_s, report.max_s)
    return (
        name,
        *(str(count) for count in counts),
        *(f"{seconds * 1000:.1f} ms" for seconds in times),
    )


if __name__ == "__main__":
    sys.exit(main())
