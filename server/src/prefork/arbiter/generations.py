"""What each generation is booted with: settings, hooks, digests of its content.

The config file is read again for each reload, here and nowhere else. The settings of the serving
generation are the server's.
"""

import dataclasses
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from prefork.arbiter.fleet import Policy
from prefork.arbiter.resources import Resources
from prefork.base.digest import digest_directory, parse_content
from prefork.config.options import FIXED_AT_START, Options
from prefork.config.sources import Configuration
from prefork.worker.hooks import Hooks


@dataclass(frozen=True)
class GenerationConfig:
    """What a generation was booted with."""

    options: Options
    hooks: Hooks
    content: dict[str, str]


class Generations:
    """The configurations of the generations there are; `options` and `hooks` are the serving one's."""

    def __init__(
        self, configuration: Configuration, own: Resources, reread: Callable[[], Configuration]
    ) -> None:
        self.options = configuration.options
        self.hooks = Hooks(configuration.hooks, own.log)
        self.own = own
        self.log = own.log
        self.reread = reread
        self.configs: dict[int, GenerationConfig] = {}
        # What the newest import was found to hold that processes must not share; "": the next one may be tried.
        self.unsafe_import = ""
        self.judged = 0  # the generation of that import

    def load(self, number: int) -> GenerationConfig:
        """Return what the generation is booted with; raises StartupError for a config file that is bad.

        The first generation and a mold that is booted again take the settings they had.
        """
        self.configs[number] = self._load(number)
        return self.configs[number]

    def commit(self, number: int) -> GenerationConfig:
        """Let the settings of a generation hold from now on."""
        config = self.configs[number]
        self.options, self.hooks = config.options, config.hooks
        self.own.server.cfg = config.options
        return config

    def note_import(self, number: int, *, unsafe: str) -> None:
        """Remember whether the import of a generation could be shared; an older one's word counts no more."""
        if number >= self.judged:
            self.judged, self.unsafe_import = number, unsafe

    def keep_only(self, numbers: Collection[int]) -> None:
        """Forget all other generations."""
        for old in [number for number in self.configs if number not in numbers]:
            del self.configs[old]

    def policy(self) -> Policy:
        """Return the settings that decide."""
        return Policy(
            graceful_timeout=self.options.graceful_timeout,
            boot_timeout=self.options.boot_timeout,
            preload=self.options.preload_app == "always"
            or (self.options.preload_app == "auto" and not self.unsafe_import),
        )

    def _load(self, number: int) -> GenerationConfig:
        known = self.configs.get(number)
        content = self._digest_content()
        if known is not None:
            if known.content != content:
                self.log.warning(
                    "content changed since this generation was loaded; reload", generation=number
                )
            return dataclasses.replace(known, content=content)
        if not self.configs:
            return GenerationConfig(self.options, self.hooks, content)
        self.hooks.call("on_reload", self.own.server)
        self.own.notifier.reloading()
        fresh = self.reread()
        for warning in fresh.warnings:
            self.log.warning("setting ignored", what=warning)
        for pair in fresh.options.raw_env:
            name, _, value = pair.partition("=")
            os.environ[name] = value
        return GenerationConfig(
            self._keep_fixed(fresh.options), Hooks(fresh.hooks, self.log), content
        )

    def _keep_fixed(self, fresh: Options) -> Options:
        """Return the new settings with the old values of those that need a restart."""
        kept: dict[str, Any] = {}
        for name in FIXED_AT_START:
            old = getattr(self.options, name)
            if getattr(fresh, name) != old:
                self.log.warning("setting changes with a restart only", name=name, kept=old)
                kept[name] = old
        if fresh.worker_count() > self.own.workers_max:
            self.log.warning(
                "more workers need a restart", workers=fresh.workers, kept=self.own.workers_max
            )
            kept["workers"] = self.own.workers_max
        return dataclasses.replace(fresh, **kept)

    def _digest_content(self) -> dict[str, str]:
        digests = {}
        for name, folder in parse_content(self.options.content).items():
            try:
                digests[name] = digest_directory(folder)
            except OSError as error:
                self.log.error(
                    "content cannot be read", name=name, folder=folder, why=error.strerror
                )
        return digests
