"""How many connections a worker may hold under the limit of open files (setrlimit(2), RLIMIT_NOFILE)."""

import resource

# What is left to the app: its own files, sockets to databases.
FILES_OF_THE_APP = 256


def allow_open_files(connections: int) -> None:
    """Raise this process's and its children's soft limit of open files so that each worker can hold its connections, and
    for each a file that is sent or spooled.

    Where the hard limit is lower, that is the limit (setrlimit(2)); `most_connections` then holds fewer.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + FILES_OF_THE_APP
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def most_connections(wanted: int) -> int:
    """Connections one worker may hold: `wanted`, or what the limit of open files leaves besides the app's own files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, max(soft - FILES_OF_THE_APP, soft // 2)))
