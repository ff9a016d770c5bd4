"""Short versions of the torture suite: disks, power, shares, clients, floods. `make torture` runs all of it."""

from pathlib import Path

import pytest

from torture.clients import deliver_by_clients
from torture.flood import flood_inbox
from torture.frozen_server import Place, freeze_server
from torture.full import fill_disks
from torture.inbox_away import take_inbox_away
from torture.power import cut_power
from torture.table import Row
from torture.two_daemons import share_inbox


def accept(row: Row) -> None:
    if row.skipped:
        pytest.skip(row.skipped)
    assert row.faults == []


def test_disks_that_are_full_or_read_only_lose_nothing_and_work_goes_on_by_itself(tmp_path: Path) -> None:
    accept(fill_disks(tmp_path, jobs=8, seconds=1.5))


@pytest.mark.parametrize("spool_only", [False, True])
def test_power_cuts_lose_double_and_tear_nothing(tmp_path: Path, *, spool_only: bool) -> None:
    accept(cut_power(tmp_path, cuts=2, spool_only=spool_only, pause=0.5))


def test_an_inbox_that_goes_away_and_comes_back_loses_nothing(tmp_path: Path) -> None:
    accept(take_inbox_away(tmp_path, jobs=6, seconds=2.0))


@pytest.mark.parametrize("place", ["inbox", "outbox"])
def test_a_file_server_that_stops_answering_stops_neither_rendering_nor_status(
    tmp_path: Path, place: Place
) -> None:
    accept(freeze_server(tmp_path, place=place, queued=4, seconds=4.0))


def test_files_of_all_clients_are_taken_whole(tmp_path: Path) -> None:
    accept(deliver_by_clients(tmp_path, jobs=1))


def test_two_daemons_on_one_inbox_do_no_job_twice(tmp_path: Path) -> None:
    accept(share_inbox(tmp_path, jobs=40))


def test_a_flood_is_taken_in_the_order_of_the_names(tmp_path: Path) -> None:
    accept(flood_inbox(tmp_path, jobs=150))
