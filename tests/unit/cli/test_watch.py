"""Changed files are noticed once, when they have come to rest."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from wsgiapp_cli.run.watch import Watch, python_files, take_snapshot

WITHIN_S = 60.0
# Several looks: a change that counted would have been told in this time.
QUIET_S = 0.4


async def is_quiet(watch: Watch) -> bool:
    try:
        await asyncio.wait_for(watch.changed(), QUIET_S)
    except TimeoutError:
        return True
    return False


async def test_written_replaced_and_deleted_files_are_told_once(tmp_path: Path) -> None:
    file = tmp_path / "app.yaml"
    file.write_text("1")
    watch = Watch([file])

    def replace() -> None:
        fresh = tmp_path / "fresh"
        fresh.write_text("2")
        fresh.replace(file)

    for change in (lambda: file.write_text("longer"), replace, file.unlink, file.touch):
        change()
        await asyncio.wait_for(watch.changed(), WITHIN_S)
        assert await is_quiet(watch)


async def test_code_counts_only_when_it_is_watched(tmp_path: Path) -> None:
    watch = Watch([])
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "views.py").write_text("")
    assert await is_quiet(watch)
    watch.watch_code(tmp_path)
    assert list(watch.code) == [tmp_path / "shop" / "views.py"]
    assert await is_quiet(watch)
    (tmp_path / "shop" / "urls.py").write_text("")
    await asyncio.wait_for(watch.changed(), WITHIN_S)
    assert len(watch.code) == 2


@pytest.mark.parametrize("folder", [".git", "__pycache__", "node_modules", "venv/lib"])
def test_what_is_not_the_apps_own_code_is_left_alone(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "x.py").write_text("")
    (tmp_path / folder.partition("/")[0] / "pyvenv.cfg").write_text("")
    (tmp_path / "app.py").write_text("")
    (tmp_path / "notes.txt").write_text("")
    assert list(take_snapshot(python_files(tmp_path))) == [tmp_path / "app.py"]
