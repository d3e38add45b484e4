"""`python -m tests.support.fuzz --seconds 30`: fuzz heads, chunked bodies and responses of the engine's core.

The inputs to begin with are committed, a line each, escaped: server/engine/fuzz/corpus/TARGET.txt. `--keep` adds what was
found to reach new code. libFuzzer's instrumentation is given as compiler options, so a stable Rust does.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FUZZ = ROOT / "server/engine/fuzz"
BUILD = ROOT / "build/fuzz"
TARGETS = ("head", "chunked", "response")
MAX_BYTES = 400
# What `cargo fuzz` gives as well, without the sanitizers that need a nightly compiler: the code is safe Rust.
COVERAGE = (
    "--cfg=fuzzing", "-Cpasses=sancov-module", "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters", "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares", "-Ccodegen-units=1",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.support.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=30, help="for all targets together")
    parser.add_argument("--keep", action="store_true", help="add what was found to the corpus")
    arguments = parser.parse_args()
    folder = build()
    for target in TARGETS:
        seconds = max(1, arguments.seconds // len(TARGETS))
        if not fuzz(folder / target, target, seconds):
            return 1
        if arguments.keep:
            keep(folder / target, target)
    return 0


def build() -> Path:
    """Build the targets; return the folder of the programs."""
    lock = [sys.executable, str(ROOT / "server/lock_engine.py"), "--folder", str(FUZZ)]
    subprocess.run(lock, check=True)
    shown = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    host = re.search(r"^host: (.*)$", shown, re.MULTILINE)[1]  # type: ignore[index]
    cache = os.environ.get("WSGIAPP_CACHE") or str(Path.home() / ".cache/wsgiapp")
    target = Path(cache) / "cargo" / "fuzz"
    # With --target, or the flags would reach build scripts as well.
    command = ["cargo", "build", "-q", "--release", "--locked", "--manifest-path", str(FUZZ / "Cargo.toml")]  # fmt: skip
    command += ["--target", host, "--target-dir", str(target)]
    flags = {"CARGO_ENCODED_RUSTFLAGS": "\x1f".join(COVERAGE)}
    subprocess.run(command, check=True, env={**os.environ, **flags})
    return target / host / "release"


def fuzz(program: Path, target: str, seconds: int) -> bool:
    """Fuzz one target; say what came of it."""
    corpus, found = BUILD / "corpus" / target, BUILD / "found" / target
    shutil.rmtree(corpus, ignore_errors=True)
    for folder in (corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    lines = (FUZZ / "corpus" / f"{target}.txt").read_text().splitlines()
    for number, line in enumerate(lines):
        (corpus / f"{number:04}").write_bytes(unescape(line))
    log = BUILD / f"{target}.log"
    command = [
        str(program), f"-max_total_time={seconds}", f"-max_len={MAX_BYTES}", "-timeout=10", "-rss_limit_mb=1024",
        "-print_final_stats=1", f"-artifact_prefix={BUILD}/failed-{target}-", str(found), str(corpus),
    ]  # fmt: skip
    with log.open("wb") as out:
        failed = subprocess.run(command, stdout=out, stderr=out, check=False).returncode
    text = log.read_text(errors="replace")
    if failed:
        print("\n".join(text.splitlines()[-30:]))
        print(f"fuzz {target}: FAILED; input {BUILD}/failed-{target}-*, whole output {log}")
        return False
    units = re.search(r"number_of_executed_units: *(\d+)", text)
    print(f"fuzz {target}: {int(units[1]) if units else 0:,} inputs, nothing wrong")
    return True


def keep(program: Path, target: str) -> None:
    """Write the smallest set of inputs that reaches all code reached so far."""
    merged = BUILD / "merged" / target
    shutil.rmtree(merged, ignore_errors=True)
    merged.mkdir(parents=True)
    sources = [str(BUILD / "corpus" / target), str(BUILD / "found" / target)]
    command = [
        str(program),
        "-set_cover_merge=1",
        f"-max_len={MAX_BYTES}",
        str(merged),
        *sources,
    ]
    subprocess.run(command, check=True, capture_output=True)
    inputs = sorted(path.read_bytes() for path in merged.iterdir())
    text = "".join(f"{escape(data)}\n" for data in inputs)
    (FUZZ / "corpus" / f"{target}.txt").write_text(text)


def escape(data: bytes) -> str:
    """One line of plain text for any bytes."""
    return data.decode("latin-1").encode("unicode_escape").decode("ascii")


def unescape(line: str) -> bytes:
    return line.encode("ascii").decode("unicode_escape").encode("latin-1")


if __name__ == "__main__":
    sys.exit(main())
