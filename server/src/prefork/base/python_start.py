"""What was imported before the app, by the start of Python (`sitecustomize`) or the config file, and does not bear the server's forks."""

from collections.abc import Container

# ddtrace 4.16: its native exporter hangs, with the GIL held, at its end in 9 of 24 forks of a fork, in none of a process' own.
DDTRACE = (
    "ddtrace was imported before the app, so its tracer may hang in workers, which are forks of a fork:"
    " begin the app's module with `import ddtrace.auto`, and leave ddtrace-run out"
)


def explain_unsuited(modules: Container[str]) -> str:
    """Return what to do about a module among those imported, "" for nothing; pure."""
    return DDTRACE if "ddtrace" in modules else ""
