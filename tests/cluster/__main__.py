"""Commands: build, up, down, status, images, dockerfiles."""

from __future__ import annotations

import argparse
import sys
import time

from tests.cluster import Cluster, ClusterError
from tests.cluster.dockerfiles import write_dockerfiles

COMMANDS = {
    "build": "get and build the programs of the cluster; nothing is started",
    "up": "bring the cluster up; safe to repeat",
    "down": "take the cluster down and leave nothing behind",
    "status": "say what runs; exit code 1 when the cluster is not up",
    "images": "build and load the images that changed",
    "dockerfiles": "write the Dockerfiles anew from images.toml",
}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text, description=text)
    command = parser.parse_args(argv).command
    started = time.monotonic()
    try:
        return _run(command, started)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except PermissionError as error:
        print(f"error: {error}; choose a writable folder by WSGIAPP_CACHE", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nstopped; run `python -m tests.cluster {command}` again to go on", file=sys.stderr)
        return 130


def _run(command: str, started: float) -> int:
    if command == "dockerfiles":
        for path in write_dockerfiles():
            print(path)
        return 0
    cluster = Cluster.from_env()
    if command == "build":
        cluster.build()
    elif command == "up":
        cluster.up()
        print(_how_to_look(cluster, time.monotonic() - started))
    elif command == "down":
        cluster.down()
    elif command == "images":
        changed = cluster.load_images()
        print(
            f"loaded: {', '.join(changed) or 'nothing, all as it was'} ({time.monotonic() - started:.1f} s)"
        )
    else:
        return _status(cluster)
    return 0


def _status(cluster: Cluster) -> int:
    if not cluster.is_running():
        print("the cluster is not up; start it: make cluster")
        return 1
    print(cluster.run_kubectl("get", "nodes,pods", "-A", "-o", "wide"))
    return 0


def _how_to_look(cluster: Cluster, elapsed_s: float) -> str:
    return (
        f"the cluster is up after {elapsed_s:.0f} s; to look around:\n"
        f"  export KUBECONFIG={cluster.kubeconfig} PATH={cluster.paths.bin}:$PATH\n"
        f"  kubectl get pods -A\n"
        f"  curl -H 'Host: NAME' {cluster.ingress_url}\n"
        "and down again: make cluster-down"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
