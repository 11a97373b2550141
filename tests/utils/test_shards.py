"""One command as several processes."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT
from utils.errors import UserError
from utils.lock import only_one
from utils.shards import Place, Shard, read_shard, take_part


@pytest.mark.parametrize("text", ["", "1", "0/3", "4/3", "a/b", "1/", "-1/3", "1/2/3"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="no share such as 2/3"):
        read_shard(text)


def test_the_shares_are_the_items() -> None:
    shares = [read_shard(f"{number}/3").of("abcdefg") for number in (1, 2, 3)]
    assert shares == [["a", "d", "g"], ["b", "e"], ["c", "f"]]


def place(folder: Path, key: str = "one") -> Place:
    return Place(folder, "run", "works there", key)


def test_the_last_to_end_does_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done: list[Shard | None] = []
    for number in (2, 1, 3):
        take_part(place(tmp_path), Shard(number, 3), done.append)
    assert done == [Shard(2, 3), Shard(1, 3), Shard(3, 3), None]
    assert "put together when 1/3, 3/3 are" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_one_that_failed_or_was_of_another_command_has_not_ended(tmp_path: Path) -> None:
    def fail(shard: Shard | None) -> None:
        raise UserError("broken")

    done: list[Shard | None] = []
    take_part(place(tmp_path, "another"), Shard(1, 2), done.append)
    take_part(place(tmp_path), Shard(2, 2), done.append)
    assert None not in done
    with pytest.raises(UserError, match="broken"):
        take_part(place(tmp_path), Shard(1, 2), fail)
    take_part(place(tmp_path), Shard(2, 2), done.append)
    assert None not in done
    take_part(place(tmp_path), Shard(1, 2), done.append)
    assert done[-1] is None


def test_nobody_works_at_the_whole_while_a_shard_does(tmp_path: Path) -> None:
    here = place(tmp_path)
    with only_one(here.lock(Shard(2, 3)), "works there"):
        with pytest.raises(UserError, match="wait for it"):
            take_part(here, None, lambda shard: pytest.fail("both work"))
        with pytest.raises(UserError, match="works there as shard 2/3"):
            take_part(here, Shard(2, 3), lambda shard: pytest.fail("both work"))
    take_part(here, None, lambda shard: None)


def test_two_that_end_at_the_same_time_put_the_results_together_once(tmp_path: Path) -> None:
    """Four processes, each of which waits for the others before it ends."""
    code = (
        "import sys, time; from pathlib import Path; from utils.shards import Place, Shard, take_part\n"
        "folder, number = Path(sys.argv[1]), int(sys.argv[2])\n"
        "def work(shard):\n"
        "    if shard is None:\n"
        "        (folder / f'whole_{number}').touch(); return\n"
        "    (folder / f'ready_{number}').touch()\n"
        "    while len(list(folder.glob('ready_*'))) < 4: time.sleep(0.01)\n"
        "take_part(Place(folder, 'run', 'works there', 'one'), Shard(number, 4), work)\n"
    )
    commands = [[sys.executable, "-c", code, str(tmp_path), str(number)] for number in (1, 2, 3, 4)]
    processes = [subprocess.Popen(command, cwd=ROOT) for command in commands]
    assert [process.wait(timeout=60) for process in processes] == [0] * 4
    assert len(list(tmp_path.glob("whole_*"))) == 1
    assert not list(tmp_path.glob(".run*"))
