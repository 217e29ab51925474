import hashlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from training.data.errors import HashMismatch, UnknownDataset, Unreachable
from training.data.fetch import CACHE_VARIABLE, cache_folder, cached, fetch, public_data
from training.data.registry import REGISTRY

CONTENT = b"1\n0.0\nH 0 0 0\n"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Say nothing: the test's output is read by people."""


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[str]:
    """A server on this machine that offers h.xyz."""
    folder = tmp_path / "origin"
    folder.mkdir()
    (folder / "h.xyz").write_bytes(CONTENT)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def hydrogen(origin: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a public data set that this server has."""
    entry = replace(
        REGISTRY["qm22-malonaldehyde"],
        url=f"{origin}/h.xyz",
        filename="h.xyz",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
    )
    monkeypatch.setitem(REGISTRY, "hydrogen", entry)
    return "hydrogen"


def test_a_file_is_downloaded_checked_and_kept(hydrogen: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert cached(hydrogen, cache) is None
    path = fetch(hydrogen, cache)
    assert path == cache / "h.xyz" == cached(hydrogen, cache)
    assert path.read_bytes() == CONTENT


def test_a_file_in_the_cache_needs_no_network(hydrogen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "h.xyz").write_bytes(CONTENT)
    monkeypatch.setitem(REGISTRY, hydrogen, replace(REGISTRY[hydrogen], url="http://127.0.0.1:9/h.xyz"))
    assert fetch(hydrogen, tmp_path) == tmp_path / "h.xyz"


def test_a_download_with_another_hash_is_refused_and_not_kept(
    hydrogen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(REGISTRY, hydrogen, replace(REGISTRY[hydrogen], sha256="1" * 64))
    with pytest.raises(HashMismatch, match="did not give the pinned file"):
        fetch(hydrogen, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_changed_file_in_the_cache_is_refused(hydrogen: str, tmp_path: Path) -> None:
    (tmp_path / "h.xyz").write_bytes(CONTENT + b"\n")
    with pytest.raises(HashMismatch, match=r"h\.xyz has sha256 .* Delete it and fetch it again"):
        fetch(hydrogen, tmp_path)


def test_offline_the_error_says_what_to_download_and_where_to_put_it(
    hydrogen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "http://127.0.0.1:9/h.xyz"
    monkeypatch.setitem(REGISTRY, hydrogen, replace(REGISTRY[hydrogen], url=url))
    with pytest.raises(Unreachable) as caught:
        fetch(hydrogen, tmp_path)
    message = str(caught.value)
    assert "could not be downloaded" in message
    assert f"download {url}" in message
    assert REGISTRY[hydrogen].sha256 in message
    assert f"save it as {tmp_path / 'h.xyz'}" in message


def test_a_file_that_its_origin_lost_is_reported_with_the_status(
    hydrogen: str, origin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(REGISTRY, hydrogen, replace(REGISTRY[hydrogen], url=f"{origin}/lost.xyz"))
    with pytest.raises(Unreachable, match=r"lost\.xyz answered 404"):
        fetch(hydrogen, tmp_path)
    assert list(tmp_path.glob("*.xyz")) == []


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownDataset, match=r"no public data set is called 'benzene'\. There are: .*qm22-ethanol"):
        public_data("benzene")


def test_the_cache_folder_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv(CACHE_VARIABLE)
    assert cache_folder().name == "understudy"


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_public_file_is_pinned_to_a_commit_and_a_hash(name: str) -> None:
    data = public_data(name)
    assert data.url.startswith("https://raw.githubusercontent.com/")
    assert len(data.url.split("/")[5]) == 40
    assert data.url.endswith(data.filename)
    assert len(data.sha256) == 64
