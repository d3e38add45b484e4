"""What each generation is booted with: settings, hooks, environment, and the version of each content.

The config file is read again for each reload, here and nowhere else. A generation has its settings
and its environment for itself, for as long as it lives; those of the serving one are the arbiter's
as well, for hooks such as `child_exit`. So nothing of a generation that never served stays.
"""

import dataclasses
import time
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefork.arbiter.fleet import Policy
from prefork.arbiter.resources import Resources
from prefork.base.digest import digest_directory, parse_content
from prefork.base.systemd import own_variables
from prefork.base.time_limit import time_limit
from prefork.base.versions import boot_version, follow, is_pinned, version_with
from prefork.base.working_directory import current_directory
from prefork.config.config_file import Move
from prefork.config.environment import replace_environment
from prefork.config.exit_guard import exit_refused
from prefork.config.options import FIXED_AT_START, Options
from prefork.config.sources import Configuration
from prefork.errors import StartupError, TimeLimitError
from prefork.worker.hooks import Hooks

# Also where requests are not waited for (graceful_timeout 0), a worker needs a moment: idle connections are handed
# over, hooks run.
LEAVE_MIN_S = 0.1
# What a config file of a reload, or a hook, may occupy the arbiter for: no worker is replaced meanwhile. Less than
# `prefork status` waits.
FOREIGN_CODE_MAX_S = 10.0


@dataclass(frozen=True)
class GenerationConfig:
    """What a generation was booted with."""

    options: Options
    hooks: Hooks
    environment: Mapping[str, str]
    content: dict[str, str]  # digests by name
    versions: dict[Path, Path]  # real paths by the content's folder; they stay the generation's own
    directory: Path  # to work in; its real path, which stays the generation's own as well


class Generations:
    """The configurations of the generations there are; `options` and `hooks` are the serving one's."""

    def __init__(
        self,
        configuration: Configuration,
        own: Resources,
        reread: Callable[[Move], Configuration],
        is_stopping: Callable[[], bool],
    ) -> None:
        self.options = configuration.options
        self.hooks = Hooks(configuration.hooks, own.log, configuration.imports)
        self.environment = own_variables(configuration.environment)
        self.folder = configuration.folder
        self.started_in = Path.cwd()
        self.own = own
        self.log = own.log
        self.reread = reread
        self.is_stopping = is_stopping
        self.configs: dict[int, GenerationConfig] = {}
        self.serving = 0  # 0: none has served yet
        # What the newest import was found to hold that processes must not share; "": the next one may be tried.
        self.unsafe_import = ""
        self.judged = 0  # the generation of that import

    def load(self, number: int, wanted: Mapping[str, str]) -> None:
        """Read what a new generation is booted with; `wanted` has the digests of contents that change.

        The first generation takes the settings that the server was started with. One that is loaded stays as it is.
        Raises StartupError for a config file that is bad, and for a content or a working directory that is not there.
        """
        if number in self.configs:
            return
        folders = parse_content(self.options.content)
        versions = self._choose_versions(folders, wanted)
        content = self._digest(folders, versions)
        directory = current_directory(self.folder / self.options.chdir)
        if why := find_difference(wanted, content):
            raise StartupError(why)
        if self.configs:
            config = self._reread(content, versions, directory)
        else:
            environment = pin_variables(self.environment, folders, versions)
            config = GenerationConfig(
                self.options, self.hooks, environment, content, versions, directory
            )
        self.configs[number] = config

    def content_of(self, number: int) -> dict[str, str]:
        """Return the digests of what a generation has loaded; none of a generation that is not there."""
        return self.configs[number].content if number in self.configs else {}

    def again(self, number: int) -> GenerationConfig:
        """Return what a generation whose mold is booted again was loaded with, and warn of new content."""
        known = self.configs[number]
        content = self._digest(parse_content(self.options.content), known.versions)
        if known.content != content:
            self.log.warning(
                "content changed since this generation was loaded; reload", generation=number
            )
        self.configs[number] = dataclasses.replace(known, content=content)
        return self.configs[number]

    def commit(self, number: int) -> GenerationConfig:
        """Let the settings of a generation hold from now on."""
        config, self.serving = self.configs[number], number
        self.options, self.hooks = config.options, config.hooks
        self.own.server.set_cfg(config.options)
        self.log.set_level(config.options.loglevel)
        replace_environment(config.environment)
        return config

    def call_hook(self, name: str, *arguments: Any, generation: int | None = None) -> None:
        """Call a hook of a generation, the serving one if none is named, where the arbiter cannot wait for long."""
        hooks = self.hooks if generation is None else self.configs[generation].hooks
        try:
            with time_limit(FOREIGN_CODE_MAX_S, self._show_alive):
                hooks.call(name, *arguments)
        except TimeLimitError:
            self.log.error("hook failed", hook=name, traceback=traceback.format_exc())

    def note_import(self, number: int, *, unsafe: str) -> None:
        """Remember whether the import of a generation could be shared; an older one's word counts no more."""
        if number >= self.judged:
            self.judged, self.unsafe_import = number, unsafe

    def keep_only(self, numbers: Collection[int]) -> None:
        """Forget all other generations."""
        for old in [number for number in self.configs if number not in numbers]:
            del self.configs[old]

    def policy(self, number: int) -> Policy:
        """Return the settings of a generation that decide."""
        options = self.configs[number].options
        return Policy(
            graceful_timeout=max(LEAVE_MIN_S, options.graceful_timeout),
            boot_timeout=options.boot_timeout,
            preload=options.preload_app == "always"
            or (options.preload_app == "auto" and not self.unsafe_import),
            checks_health=bool(options.health_path),
        )

    def _reread(
        self, content: dict[str, str], versions: dict[Path, Path], directory: Path
    ) -> GenerationConfig:
        with exit_refused():
            self.call_hook("on_reload", self.own.server)
            self.own.notifier.reloading()
            with time_limit(FOREIGN_CODE_MAX_S, self._end_if_stopping):
                fresh = self.reread(lambda folder: Path(follow(str(folder), versions)))
        for source in fresh.sources:
            self.log.info("settings read", source=source)
        for warning in fresh.warnings:
            self.log.warning("ignoring setting", what=warning)
        return GenerationConfig(
            self._keep_fixed(fresh.options),
            Hooks(fresh.hooks, self.log, fresh.imports),
            pin_variables(
                own_variables(fresh.environment), parse_content(self.options.content), versions
            ),
            content,
            versions,
            directory,
        )

    def _show_alive(self) -> str:
        self.own.table.beat(time.monotonic())
        self.own.notifier.alive()
        return ""

    def _end_if_stopping(self) -> str:
        return "the server is to stop" if self.is_stopping() else self._show_alive()

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

    def _choose_versions(
        self, folders: Mapping[str, Path], wanted: Mapping[str, str]
    ) -> dict[Path, Path]:
        """Return the version that a new generation loads of each content, by the content's folder.

        Of a pinned content: the wanted one, or else the serving generation's, or else the one for a start.
        """
        serving = self.configs[self.serving].versions if self.serving in self.configs else {}
        return {
            folder: version_with(folder, wanted[name])
            if name in wanted
            else (serving.get(folder) if is_pinned(folder) else None) or boot_version(folder)
            for name, folder in folders.items()
        }

    def _digest(self, folders: Mapping[str, Path], versions: Mapping[Path, Path]) -> dict[str, str]:
        digests = {}
        for name, folder in folders.items():
            try:
                digests[name] = digest_directory(versions[folder])
            except OSError as error:
                self.log.error(
                    "content cannot be read", name=name, folder=versions[folder], why=error.strerror
                )
        return digests


def find_difference(wanted: Mapping[str, str], found: Mapping[str, str]) -> str:
    """Return what of the wanted content is not there; empty when all is. Pure."""
    for name, digest in wanted.items():
        if found.get(name) != digest:
            there = f"has digest {found[name][:12]}" if name in found else "cannot be read"
            return f"content {name} {there}, {digest[:12]} is requested"
    return ""


def pin_variables(
    environment: Mapping[str, str], folders: Mapping[str, Path], versions: Mapping[Path, Path]
) -> Mapping[str, str]:
    """Return the environment with WSGIAPP_CONFIG_<NAME> leading to the version of that content."""
    pinned = dict(environment)
    for content in folders:
        name = "WSGIAPP_CONFIG_" + content.upper().replace("-", "_")
        if name in pinned:
            pinned[name] = follow(pinned[name], versions)
    return pinned
