"""Results → docs/benchmarks.md and the table on the terminal; pure text, no measuring.

States every target of the design that this run can judge beside its figure, met or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tests.bench import scenarios
from tests.bench.instructions import N1, N2
from tests.bench.load import CONNECTIONS
from tests.bench.peers import FLOOR, GREENLET_SERVERS, OURS, SERVERS
from tests.bench.results import Results, Spread

CASE_TITLES = {"bare": "bare head", "browser": "browser headers", "flask": "Flask hello"}
_NONE = "-"
_ROWS = (*SERVERS, FLOOR)


def build_page(results: Results) -> str:
    """The whole page as Markdown."""
    sections = (
        _opening(results),
        _targets(results),
        _cost_section(results),
        _instruction_section(results),
        _scenario_section(results),
        _greenlet_section(results),
        _conditions_section(results),
    )
    return "\n\n".join(sections) + "\n"


def build_table(results: Results) -> str:
    """The cost and instruction figures as plain text for a terminal."""
    rows = [("CPU µs per request", *CASE_TITLES.values(), "instructions bare / browser")]
    for name in _names(results.cost, results.instructions):
        cells = [_spread(results.cost_us(name, case)) for case in CASE_TITLES]
        rows.append((name, *cells, _instructions(results, name)))
    return _columns(rows)


def build_scenarios(results: Results) -> str:
    """The scenario figures as plain text for a terminal."""
    return _columns([("", *_SCENARIO_TITLES), *_scenario_rows(results)])


def build_greenlets(results: Results) -> str:
    """The figures of worker class gevent as plain text for a terminal."""
    return _columns([("worker class gevent", *_GREENLET_TITLES), *_greenlet_rows(results)])


def _opening(results: Results) -> str:
    return f"""# Benchmarks

This page is written by `make bench` (`python -m tests.bench`); do not edit it. All figures come from
one run on {results.conditions["date"]}, every server on the same Python, one worker, one application
thread, on a core of its own, the load generator on another, keep-alive, {CONNECTIONS} connections.
{_busy(results)}
Compare CPU time and instructions, which others disturb little; requests per second only say what
was left of two cores."""


def _busy(results: Results) -> str:
    foreign = results.foreign()
    if foreign is None:
        return "Who else used the machine was not observed."
    return (
        f"The machine was shared: others used {foreign.median:.0%} of the servers' core (median over"
        f" all samples, {foreign.high:.0%} at worst)."
    )


# -- targets ---------------------------------------------------------------------------------------


def _targets(results: Results) -> str:
    rows: list[tuple[str, str, str, str]] = [
        _ratio_target(results, "bare", 1.2),
        _ratio_target(results, "browser", 1.5),
        _ratio_target(results, "flask", 1.0),
        _instruction_target(results, "bare", 8.0),
        _instruction_target(results, "browser", 18.0),
        _figure_target(
            "1,000 stalled clients: throughput loss",
            "< 5 %",
            results.stalled.get(OURS),
            lambda stalled: stalled["loss"] < 0.05,
            lambda stalled: f"{stalled['loss']:.1%}",
        ),
        _figure_target(
            f"reload with a {scenarios.RELOAD_IMPORT_S} s import: failed requests",
            "0",
            results.reload.get(OURS),
            lambda reload: reload["failed"] == 0 and reload["reloaded"],
            _failed,
        ),
        _figure_target(
            "worker killed -9: replacement answers, median",
            "< 50 ms",
            results.killed.get(OURS),
            lambda killed: killed["ms"] < 50,
            lambda killed: f"{killed['ms']:.0f} ms",
        ),
    ]
    return "## Targets\n\n" + _markdown(("what", "target", "prefork in this run", ""), rows)


def _ratio_target(results: Results, case: str, target: float) -> tuple[str, str, str, str]:
    what = f"{CASE_TITLES[case]}: requests per CPU second, times the best peer's"
    ours = results.cost_us(OURS, case)
    peers = {
        name: cost.median
        for name in results.cost
        if name not in (OURS, FLOOR.name) and (cost := results.cost_us(name, case))
    }
    if ours is None or not peers:
        return what, f"≥ {target}", _NONE, "not measured"
    best = min(peers, key=lambda name: peers[name])
    ratio = peers[best] / ours.median
    return what, f"≥ {target}", f"{ratio:.2f} ({best})", _verdict(ratio >= target)


def _instruction_target(results: Results, case: str, target_k: float) -> tuple[str, str, str, str]:
    what = f"{CASE_TITLES[case]}: user instructions per request"
    count = results.instructions.get(OURS, {}).get(case)
    if count is None:
        return what, f"≤ {target_k:.0f} k", _NONE, "not measured"
    return what, f"≤ {target_k:.0f} k", f"{_k(count)} k", _verdict(count <= target_k * 1000)


def _figure_target(
    what: str,
    target: str,
    figures: dict[str, Any] | None,
    is_met: Callable[[dict[str, Any]], bool],
    text: Callable[[dict[str, Any]], str],
) -> tuple[str, str, str, str]:
    if not figures or "reason" in figures:
        return what, target, _NONE, (figures or {}).get("reason", "not measured")
    return what, target, text(figures), _verdict(is_met(figures))


def _verdict(is_met: bool) -> str:
    return "met" if is_met else "**missed**"


# -- tables ----------------------------------------------------------------------------------------


def _cost_section(results: Results) -> str:
    rounds = results.conditions["rounds"]
    rows = [
        (
            name,
            *(_spread(results.cost_us(name, case)) for case in CASE_TITLES),
            _medians(results, name, "user_us", ".1f"),
            _medians(results, name, "per_s", ",.0f"),
        )
        for name in _names(results.cost)
    ]
    header = (
        "server",
        *(f"{title}, µs" for title in CASE_TITLES.values()),
        "of it user, µs",
        "requests/s",
    )
    client = results.cost.get(OURS, {}).get("bare", {}).get("client_us")
    lines = [
        "## CPU time per request",
        f"User and system time of the server's whole process tree over the requests answered in"
        f" {results.conditions['seconds']} s; median of {rounds} interleaved rounds, in brackets the"
        " lowest and the highest. The last two columns are medians in the order of the cases;"
        " the kernel splits user from system time by samples, so the user part is rough. The last"
        " row is no WSGI server: `tests/bench/floor.c` answers without looking at the request, so its"
        " figure is the kernel's TCP, which every server pays; only what lies above it differs.",
        "![CPU time per request](img/bench-cpu.svg)",
        _markdown(header, rows),
    ]
    if client:
        lines.append(
            f"The load generator (`tests/bench/load.c`) itself took {Spread.of(client).median:.1f} µs"
            " a request against prefork, nine tenths of it in the kernel's TCP. So the fastest"
            " servers, with less than that per request, were not kept busy all the time and slept"
            " and woke more often than under full load: their CPU time is rather too high than too low."
        )
    lines += [f"No figures for {name}: {reason}." for name, reason in results.cost_failed.items()]
    lines += [f"Left out, {name}: {reason}." for name, reason in results.left_out.items()]
    return "\n\n".join(lines)


def _instruction_section(results: Results) -> str:
    rows = [
        (name, *(f"{_k(count)} k" for count in results.instructions[name].values()))
        for name in _names(results.instructions)
    ]
    lines = [
        "## User instructions per request",
        "Counted by callgrind, the same load: the count for"
        f" {N2} requests less the count for {N1}, over {N2 - N1}, all processes that serve. No kernel work in it, and no noise from"
        " other programs: the figure to compare across machines and commits.",
        "![User instructions per request](img/bench-instructions.svg)",
        _markdown(("server", CASE_TITLES["bare"], CASE_TITLES["browser"]), rows),
    ]
    lines += [f"No count for {n}: {reason}." for n, reason in results.instructions_failed.items()]
    return "\n\n".join([*lines, *_logging_lines(results)])


def _logging_lines(results: Results) -> list[str]:
    """What an access log adds, beside the figures above."""
    rows = []
    for name in _names(results.logging):
        without, counts = results.instructions.get(name, {}), results.logging[name]
        added = [_k(counts[case] - without[case]) if case in without else _NONE for case in counts]
        rows.append((name, *(f"{_k(count)} k" for count in counts.values()), " / ".join(added)))
    header = ("server", CASE_TITLES["bare"], CASE_TITLES["browser"], "added, k")
    lines = [
        "With an access log to a file, in each server's own format:",
        _markdown(header, rows),
    ]
    lines += [f"No count for {n}: {reason}." for n, reason in results.logging_failed.items()]
    return lines if rows or results.logging_failed else []


_SCENARIO_TITLES = (
    "reload: failed",
    "reload: worst",
    "stalled: loss",
    "stalled: memory",
    "kill -9: back after",
)


def _scenario_section(results: Results) -> str:
    return "\n\n".join(
        (
            "## When things happen",
            f"- **Reload**: new code by HUP, {scenarios.RELOAD_IMPORT_S} s to import, under"
            f" {scenarios.RELOAD_RATE} requests/s, a quarter of them on new connections; latency counts"
            " from the moment a request was due. A GET on a reused connection that was closed before"
            " the first byte of its answer is sent once more, as browsers do, and shown as *retried*.\n"
            f"- **Stalled**: throughput lost and memory grown while {scenarios.STALLED_CLIENTS:,} clients"
            " have sent half a head, half a body of 2 MB, or such a head with `Expect`, or do not read 2 MB from a"
            " list, a generator, a file (a sixth each).\n"
            "- **Kill -9** of the only worker of a Flask app: until a new connection is answered by its"
            " replacement; median (lowest to highest) of "
            f"{results.conditions['kills']}, each on a fresh server.",
            _markdown(("server", *_SCENARIO_TITLES), _scenario_rows(results)),
            _notes(results),
        )
    ).strip()


def _scenario_rows(results: Results) -> list[tuple[str, ...]]:
    return [
        (
            name,
            _cell(results.reload.get(name), _failed),
            _cell(results.reload.get(name), lambda f: f"{f['worst_ms']:.0f} ms"),
            _cell(results.stalled.get(name), lambda f: f"{f['loss']:.0%}"),
            _cell(results.stalled.get(name), lambda f: f"+{f['grown_mib']:.0f} MiB"),
            _cell(results.killed.get(name), _killed),
        )
        for name in _names(results.reload, results.stalled, results.killed)
    ]


_GREENLET_TITLES = ("hello, requests/s", "CPU µs", "10 ms asleep, requests/s", "CPU µs")


def _greenlet_section(results: Results) -> str:
    return "\n\n".join(
        (
            "## Greenlets",
            "One worker of class gevent, requests per second and CPU time per request, the best of three samples: hello as above, and an app"
            f" that waits 10 ms in each request, with {scenarios.GREENLET_CONNECTIONS} connections.",
            _markdown(("server", *_GREENLET_TITLES), _greenlet_rows(results)),
            *(
                f"No figures for {name}: {figures['reason']}."
                for name, figures in results.greenlets.items()
                if "reason" in figures
            ),
        )
    )


def _greenlet_rows(results: Results) -> list[tuple[str, ...]]:
    return [
        (
            name,
            _cell(figures, lambda f: f"{f['hello_per_s']:,.0f}"),
            _cell(figures, lambda f: f"{f['hello_us']:.0f}"),
            _cell(figures, lambda f: f"{f['sleep_per_s']:,.0f}"),
            _cell(figures, lambda f: f"{f['sleep_us']:.0f}"),
        )
        for name, figures in results.greenlets.items()
    ]


def _failed(figures: dict[str, Any]) -> str:
    text = f"{figures['failed']} of {figures['sent']}"
    if figures["retried"]:
        text += f", {figures['retried']} retried"
    return text if figures["reloaded"] else f"{text}, new code never served"


def _killed(figures: dict[str, Any]) -> str:
    return f"{figures['ms']:.0f} ms ({figures['low']:.0f} to {figures['high']:.0f})"


def _cell(figures: dict[str, Any] | None, text: Callable[[dict[str, Any]], str]) -> str:
    return _NONE if not figures or "reason" in figures else text(figures)


def _notes(results: Results) -> str:
    found = []
    for title, by_server in (
        ("Reload", results.reload),
        ("Stalled", results.stalled),
        ("Kill -9", results.killed),
    ):
        reasons: dict[str, list[str]] = {}
        for name, figures in by_server.items():
            if "reason" in figures:
                reasons.setdefault(figures["reason"], []).append(name)
        found += [f"- {title}, {', '.join(names)}: {why}." for why, names in reasons.items()]
    return "\n".join(found)


def _conditions_section(results: Results) -> str:
    facts = results.conditions
    rows = [
        ("command", f"`{facts['command']}`"),
        ("machine", facts["machine"]),
        ("kernel", facts["kernel"]),
        ("network", facts["network"]),
        ("load average", f"{facts['load_before']} before, {facts['load_after']} after"),
        ("took", f"{facts['took_s'] / 60:.1f} min"),
        ("Python", facts["python"]),
        ("versions", ", ".join(f"{k} {v}" for k, v in facts["versions"].items())),
    ]
    commands = "\n".join(
        f"{server.name:<17} {_shown(server.command)}" for server in (*SERVERS, *GREENLET_SERVERS)
    )
    return "\n\n".join(
        (
            "## Conditions",
            _markdown(("", ""), rows),
            "How each server was started (`{port}` and `{app}` filled in; `serve.py` calls the"
            " server's own `run` with its defaults):",
            f"```text\n{commands}\n```",
            "Choices that matter: gunicorn is what `pip install gunicorn` gives, without its optional"
            " C parser. uWSGI runs behind its own HTTP router; `--http11-socket` costs less, but then"
            " one kept-alive connection holds the only worker and all others wait. waitress accepts"
            " 100 connections at most by default. gunicorn could fork workers from an imported app"
            " (`--preload`) and so replace them sooner, but then HUP does not load new code. A server that reads a request's body only when the"
            " application asks for it waits for a stalled body in its only application thread.",
        )
    )


def _shown(command: str) -> str:
    return " ".join(
        word.rpartition("/")[2] if word.startswith("/") else word for word in command.split()
    )


# -- text ------------------------------------------------------------------------------------------


def _names(*tables: dict[str, Any]) -> list[str]:
    """Servers that are in any of the tables, the floor last."""
    return [server.name for server in _ROWS if any(server.name in table for table in tables)]


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return _NONE
    return f"{spread.median:.1f} ({spread.low:.1f} to {spread.high:.1f})"


def _medians(results: Results, server: str, figure: str, form: str) -> str:
    cases = results.cost[server]
    return " / ".join(format(Spread.of(cases[c][figure]).median, form) for c in cases)


def _instructions(results: Results, server: str) -> str:
    counts = results.instructions.get(server)
    return " / ".join(f"{_k(count)} k" for count in counts.values()) if counts else _NONE


def _k(count: float) -> str:
    return f"{count / 1000:.1f}"


def _markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    titles = tuple(header)
    lines = [titles, ("---",) * len(titles), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _columns(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
