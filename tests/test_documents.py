"""What the documents point at exists: links and their anchors, files and benchmarks that they name."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.run import BENCHMARKS

PROJECT = Path(__file__).parents[1]
FOLDERS = "benchmarks|clients|contract|deploy|docs|examples|model_repo|service|tests|training"
DOCUMENTS = [
    path for pattern in ("*.md", "docs/*.md", "clients/**/*.md", "model_repo/**/*.md") for path in PROJECT.glob(pattern)
]

LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
FILE = re.compile(rf"(?<![\w./-])(?:{FOLDERS})/[\w./-]*\.(?:py|ya?ml|json|toml|npz|xyz|md|svg|png)\b")
BENCHMARK_RUNS = re.compile(r"python -m\s+benchmarks\.run((?:\s+[a-z][a-z0-9_]+)+)")


@pytest.fixture(params=DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def document(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


def test_every_relative_link_leads_to_a_file_and_to_a_heading_in_it(document: Path) -> None:
    links = [link for link in LINK.findall(FENCE.sub("", document.read_text())) if "://" not in link]
    assert [link for link in links if not _leads_somewhere(document, link)] == []


def test_every_file_that_is_named_exists(document: Path) -> None:
    named = {name for name in FILE.findall(document.read_text()) if "NAME" not in name}
    assert sorted(name for name in named if not (PROJECT / name).exists()) == []


def test_every_benchmark_that_is_named_can_be_run(document: Path) -> None:
    named = {name for names in BENCHMARK_RUNS.findall(document.read_text()) for name in names.split()}
    assert sorted(named - {"speed", "claims", *BENCHMARKS}) == []


def _leads_somewhere(document: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = document.parent / name if name else document
    return target.exists() and (not anchor or anchor in set(_anchors(target)))


def _anchors(document: Path) -> Iterator[str]:
    """The anchors that GitHub gives the headings of a document: lower case, no punctuation, hyphens for spaces."""
    for heading in re.findall(r"^#+ +(.+)$", FENCE.sub("", document.read_text()), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
