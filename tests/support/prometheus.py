"""The real Prometheus as a process of its own on this machine, with a configuration that a test chooses."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml

from tests.support.ports import reserve_port
from tests.support.wait import NotYetError, wait_until

START_S = 60.0
Json = dict[str, Any]


class Prometheus:
    """Its HTTP API; every method asks anew."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def query(self, promql: str) -> list[Json]:
        """Return the result vector of an instant query, as `Cluster.prometheus_query` does."""
        found: list[Json] = self.ask("query", query=promql)["result"]
        return found

    def exemplars(self, series: str, *, start: float, end: float) -> list[Json]:
        """Return `{"seriesLabels": {…}, "exemplars": [{"labels", "value", "timestamp"}]}` of a query's series."""
        found: list[Json] = self.ask("query_exemplars", query=series, start=start, end=end)
        return found

    def targets(self) -> list[Json]:
        """Return the targets that are scraped, with their labels and health."""
        found: list[Json] = self.ask("targets", state="active")["activeTargets"]
        return found

    def ask(self, path: str, **parameters: str | float) -> Any:
        """Return `data` of an answer; NotYetError while nobody answers, RuntimeError for a refusal."""
        url = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=20) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            if error.code == HTTPStatus.SERVICE_UNAVAILABLE:
                raise NotYetError("Prometheus starts") from None
            raise RuntimeError(f"Prometheus refused {parameters}: {error.read()!r}") from None
        except OSError as error:
            raise NotYetError(str(error)) from None


@contextmanager
def running_prometheus(
    program: Path, scrapes: Sequence[Json], folder: Path, *options: str
) -> Iterator[Prometheus]:
    """Run `program` with these `scrape_configs`, every second; its data and log are in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    seconds = {"scrape_interval": "1s", "scrape_timeout": "1s"}
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump({"global": seconds, "scrape_configs": list(scrapes)}))
    port = reserve_port()
    command: list[str | Path] = [
        program,
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        *options,
    ]
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        prometheus = Prometheus(port)
        wait_until(
            lambda: prometheus.ask("status/buildinfo"),
            START_S,
            what="Prometheus does not answer",
            log=log.read_text,
        )
        yield prometheus
    finally:
        process.terminate()
        process.wait(30)
