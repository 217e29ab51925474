"""Files are written whole or not at all."""

from pathlib import Path

import pytest

from contract.files import replaced, write_text


def test_a_file_takes_the_place_of_the_one_before_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "said.txt"
    write_text(path, "before")
    with replaced(path) as part:
        part.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_was_not_finished_leaves_the_one_before_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "said.txt"
    write_text(path, "before")

    def interrupted() -> None:
        with replaced(path) as part:
            part.write_text("aft")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
