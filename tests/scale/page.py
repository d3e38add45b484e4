"""Figures of all sizes → docs/scale.md; pure text, no measuring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

Figures = Mapping[str, float]


class Row(NamedTuple):
    """One row of the table: its title, the figure, how it is shown, and the most that is allowed at 5,000 apps."""

    title: str
    name: str
    shown: str = "{:.0f}"
    most: float | None = None


ROWS = (
    Row(
        "from nothing to all apps ready and their last good contents kept, s", "settled_s", most=120
    ),
    Row("CPU time of the operator for that, s", "settled_cpu_s"),
    Row("CPU time of everything else for that, s", "plane_cpu_s"),
    Row("memory at rest, MiB (RSS)", "memory", most=150),
    Row("memory at its highest, MiB", "memory_highest", most=150),
    Row("CPU at rest, % of a core", "rest_cpu", "{:.2f}", 1.0),
    Row("writes at rest", "rest_writes", most=0),
    Row("change → Deployment, p50, ms", "change_p50", most=100),
    Row("change → Deployment, p99, ms", "change_p99", most=500),
    Row("the same at two changes a second, p50, ms", "slower_p50"),
    Row("the same at two changes a second, p99, ms", "slower_p99"),
    Row("CPU time of the operator for each change, ms", "change_cpu_ms"),
    Row("CPU time of everything else for each change, ms", "change_plane_cpu_ms"),
    Row("restart → every app looked at and calm, s", "restart_s", most=60),
    Row("writes after a restart", "restart_writes"),
    Row("further apps that are never ready", "unready"),
    Row("CPU at rest with these, % of a core", "unready_cpu", "{:.2f}", 2.0),
    Row("memory with these, MiB", "unready_memory"),
)


def build_page(sizes: Sequence[Figures], *, machine: str, date: str) -> str:
    """Return the page; `sizes` ascending, each as campaign.Figures has it."""
    return "\n".join(
        (
            "# Scale",
            "",
            f"Written by `make scale`; do not edit it. {date}, {machine}.",
            "",
            "The operator as a process of its own, with one replica per app, on a real control plane that is started for",
            "each size: etcd, API server, controllers and scheduler. Nodes and pods are kwok's: the API says that they",
            "run, and one stand-in answers for all agents. All of them share the machine with what is measured, so",
            "times in seconds are mostly the control plane's; CPU and memory are the operator's alone.",
            "",
            "![CPU and memory of the operator by the number of apps](img/scale.svg)",
            "",
            *table(sizes),
            "",
            f"At rest: {sizes[-1]['rest_s']:.0f} s at the largest size, {sizes[0]['rest_s']:.0f} s at the smallest, in",
            "which nothing changes. Changes: ten a second, each of another app's `spec.env`, from the request to the watch event",
            "of the changed Deployment. With its rollout a change costs the control plane as much CPU time as the table says:",
            "where ten of them are more than the machine has, they queue in the API server, and the times say little about the",
            "operator. Missed targets are in bold.",
            "",
        )
    )


def table(sizes: Sequence[Figures]) -> list[str]:
    titles = [f"{figures['apps']:,.0f} apps" for figures in sizes]
    return [
        "| what | " + " | ".join(titles) + " | target |",
        "| --- |" + " ---: |" * (len(sizes) + 1),
        *(
            f"| {row.title} | {' | '.join(show(row, figures) for figures in sizes)} | {target(row)} |"
            for row in ROWS
        ),
    ]


def show(row: Row, figures: Figures) -> str:
    value = figures[row.name]
    text = row.shown.format(value)
    return f"**{text}**" if row.most is not None and value > row.most else text


def target(row: Row) -> str:
    if row.most is None:
        return ""
    return "0" if row.most == 0 else f"≤ {row.most:g}"
