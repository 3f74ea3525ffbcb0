"""The changelog keeps its form, and its newest version is the package's."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

from asgi_ratelimit import __version__

CHANGELOG = (Path(__file__).parent.parent / "CHANGELOG.md").read_text(encoding="utf-8")
HEADINGS = re.findall(r"^## (.*)$", CHANGELOG, flags=re.MULTILINE)
RELEASES = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - (\d{4}-\d{2}-\d{2})", heading) for heading in HEADINGS[1:]]
# https://keepachangelog.com/en/1.1.0/
SECTIONS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def test_the_newest_version_is_that_of_the_package() -> None:
    assert HEADINGS[1].startswith(f"[{__version__}] - ")


def test_unreleased_changes_stand_above_all_releases() -> None:
    assert HEADINGS[0] == "[Unreleased]"


def test_every_release_has_a_version_and_a_date_and_the_newest_is_first() -> None:
    releases = [release.groups() for release in RELEASES if release]
    assert len(releases) == len(RELEASES)
    versions = [tuple(map(int, release[:3])) for release in releases]
    dates = [date.fromisoformat(release[3]) for release in releases]
    assert versions == sorted(set(versions), reverse=True)
    assert dates == sorted(dates, reverse=True)


def test_sections_have_the_names_of_keep_a_changelog_and_are_not_empty() -> None:
    for release in re.split(r"^## ", CHANGELOG, flags=re.MULTILINE)[1:]:
        _, *sections = re.split(r"^### ", release, flags=re.MULTILINE)
        names = [section.partition("\n")[0] for section in sections]
        assert names == [name for name in SECTIONS if name in names]
        assert all(re.search(r"^- ", section, flags=re.MULTILINE) for section in sections)


def test_every_release_names_its_changes() -> None:
    for release in re.split(r"^## ", CHANGELOG, flags=re.MULTILINE)[2:]:
        assert "\n### " in release
