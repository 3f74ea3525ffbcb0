"""Builds the distribution, checks its contents, imports it with each extra alone, and tests the installed wheel."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from tests.packaging.contents import check_contents
from tests.packaging.distribution import build
from tests.packaging.environments import check_extras, run_tests

ROOT = Path(__file__).parent.parent.parent


def main() -> None:
    with TemporaryDirectory(prefix="wheel-test-") as folder:
        distribution = build(ROOT, Path(folder, "dist"))
        check_contents(ROOT, distribution)
        check_extras(distribution, Path(folder))
        run_tests(distribution, Path(folder))


if __name__ == "__main__":
    main()
