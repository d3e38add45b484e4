"""workers=auto from quotas and limits, on machines laid out as files."""

from pathlib import Path

import pytest
from prefork.config.capacity import (
    Capacity,
    MemoryUse,
    observe_capacity,
    observe_memory,
    plan_workers,
)

GIB = 1 << 30


@pytest.fixture
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))


def machine(root: Path, cgroup: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    return root


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.usefixtures("eight_cpus")
def test_cgroup_v2_of_a_container(tmp_path: Path):
    root = machine(tmp_path, "0::/\n")
    write(root, {"cpu.max": "150000 100000\n", "memory.max": f"{GIB}\n"})
    assert observe_capacity(root) == Capacity(1.5, GIB)


@pytest.mark.usefixtures("eight_cpus")
def test_cgroup_v2_takes_the_tightest_ancestor(tmp_path: Path):
    root = machine(tmp_path, "0::/kubepods/pod1/c1\n")
    write(
        root,
        {
            "kubepods/pod1/c1/cpu.max": "max 100000\n",
            "kubepods/pod1/c1/memory.max": "max\n",
            "kubepods/pod1/cpu.max": "300000 100000\n",
            "kubepods/memory.max": f"{2 * GIB}\n",
        },
    )
    assert observe_capacity(root) == Capacity(3.0, 2 * GIB)


@pytest.mark.usefixtures("eight_cpus")
def test_cgroup_v1_with_the_controllers_mounted_together(tmp_path: Path):
    root = machine(tmp_path, "4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n0::/\n")
    write(
        root,
        {
            "cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
            "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            "memory/memory.limit_in_bytes": f"{512 << 20}\n",
        },
    )
    assert observe_capacity(root) == Capacity(0.5, 512 << 20)


@pytest.mark.usefixtures("eight_cpus")
def test_cgroup_v1_without_limits(tmp_path: Path):
    root = machine(tmp_path, "4:memory:/\n1:cpu:/\n")
    write(
        root,
        {
            "cpu/cpu.cfs_quota_us": "-1\n",
            "cpu/cpu.cfs_period_us": "100000\n",
            "memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )
    assert observe_capacity(root) == Capacity(8.0, None)


@pytest.mark.usefixtures("eight_cpus")
def test_machine_without_cgroups(tmp_path: Path):
    assert observe_capacity(tmp_path) == Capacity(8.0, None)


@pytest.mark.parametrize(
    ("capacity", "workers"),
    [
        (Capacity(0.2, None), 2),
        (Capacity(1.5, None), 3),
        (Capacity(4, None), 8),
        (Capacity(4, 256 << 20), 2),
        (Capacity(4, 64 << 20), 1),
        (Capacity(1000, None), 512),
    ],
)
def test_two_workers_per_cpu_as_far_as_memory_allows(capacity: Capacity, workers: int):
    assert plan_workers(capacity) == workers


def test_memory_in_use_leaves_out_file_pages_that_can_be_taken_back_in_cgroup_v2(tmp_path: Path):
    root = machine(tmp_path, "0::/\n")
    write(
        root,
        {
            "memory.max": "1000\n",
            "memory.current": "700\n",
            "memory.stat": "anon 400\ninactive_file 250\nactive_file 50\n",
        },
    )
    assert observe_memory(root) == MemoryUse(limit=1000, used=450)


def test_memory_in_use_is_that_of_the_ancestor_nearest_to_its_limit_in_cgroup_v1(tmp_path: Path):
    root = machine(tmp_path, "4:memory:/pod/app\n")
    for folder, limit, usage in (("pod/app", 900, 300), ("pod", 1000, 800)):
        write(
            root,
            {
                f"memory/{folder}/memory.limit_in_bytes": f"{limit}\n",
                f"memory/{folder}/memory.usage_in_bytes": f"{usage}\n",
                f"memory/{folder}/memory.stat": "inactive_file 1\ntotal_inactive_file 100\n",
            },
        )
    write(root, {"memory/memory.limit_in_bytes": f"{(1 << 63) - 4096}\n"})
    assert observe_memory(root) == MemoryUse(limit=1000, used=700)


def test_without_a_memory_limit_there_is_nothing_to_observe(tmp_path: Path):
    root = machine(tmp_path, "0::/\n")
    write(root, {"memory.max": "max\n", "memory.current": "700\n"})
    assert observe_memory(root) is None
