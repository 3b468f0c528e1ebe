"""Archive names and rotation plans."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.rotation import ArchiveName, current_name, next_archive, parse_archive, plan_rotation, second_of

NOON = 1_769_860_800.0
"""2026-01-31 12:00:00 UTC."""


def test_an_archive_is_named_by_stream_and_utc_second() -> None:
    assert str(next_archive("stdout", NOON + 0.9, None)) == "sidecar-stdout-20260131-120000.log"


def test_further_archives_of_one_second_count_up() -> None:
    names = [next_archive("stderr", NOON, None)]
    for _ in range(11):
        names.append(next_archive("stderr", NOON, names[-1]))
    assert str(names[1]) == "sidecar-stderr-20260131-120000-1.log"
    assert str(names[11]) == "sidecar-stderr-20260131-120000-11.log"
    assert names == sorted(names)


def test_names_go_on_growing_when_the_clock_is_set_back() -> None:
    last = next_archive("stdout", NOON, None)
    assert next_archive("stdout", NOON - 3600, last) == ArchiveName("stdout", last.second, 1)


def test_a_number_that_would_grow_beyond_what_is_read_goes_on_in_the_next_second() -> None:
    last = ArchiveName("stdout", 20260131120000, 999_999_999)
    following = next_archive("stdout", NOON, last)
    assert following > last
    assert parse_archive(str(following)) == following


def test_no_other_name_is_an_archive() -> None:
    strangers = [
        current_name("stdout"),
        "sidecar-stdout-20260131-120000.log.gz",
        "sidecar-stdout-20260131-120000.idx",
        "sidecar-stdout-20260131-120000-0.log",
        "sidecar-stdout-20260131-120000-01.log",
        "sidecar-stdin-20260131-120000.log",
        "sidecar-stdout-20260131-1200000.log",
        "x-sidecar-stdout-20260131-120000.log",
    ]
    assert [name for name in strangers if parse_archive(name)] == []


def test_the_oldest_archives_beyond_max_files_are_deleted() -> None:
    existing = [ArchiveName("stdout", second_of(NOON - age)) for age in (30, 10, 20)]
    plan = plan_rotation("stdout", existing, None, NOON, max_files=2)
    assert plan.archive == ArchiveName("stdout", 20260131120000)
    assert [name.second for name in plan.delete] == [20260131115930, 20260131115940]


def test_the_other_streams_archives_do_not_count() -> None:
    plan = plan_rotation("stdout", [ArchiveName("stderr", 1)], None, NOON, max_files=1)
    assert plan.delete == ()


def test_with_max_files_zero_the_new_archive_itself_goes() -> None:
    plan = plan_rotation("stdout", [], None, NOON, max_files=0)
    assert plan.delete == (plan.archive,)


def test_a_deleted_archives_name_is_not_used_again() -> None:
    last = ArchiveName("stdout", second_of(NOON), 7)
    assert plan_rotation("stdout", [], last, NOON, 5).archive.suffix == 8


names = st.builds(
    ArchiveName,
    st.sampled_from(["stdout", "stderr"]),
    st.integers(0, 253402300799).map(second_of),
    st.integers(0, 999_999_999),
)


@given(names)
def test_names_can_be_read_back(name: ArchiveName) -> None:
    assert parse_archive(str(name)) == name


@given(st.lists(st.floats(-1e12, 1e12), max_size=20), st.integers(0, 5))
def test_whatever_the_clock_does_names_grow_and_retention_holds(times: list[float], max_files: int) -> None:
    kept: list[ArchiveName] = []
    last = None
    for now in times:
        plan = plan_rotation("stdout", kept, last, now, max_files)
        assert last is None or plan.archive > last
        last = plan.archive
        kept = [name for name in [*kept, plan.archive] if name not in plan.delete]
        assert len(kept) <= max_files
