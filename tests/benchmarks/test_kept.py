"""A comparison goes on where it was stopped, and never with the results of other settings."""

from pathlib import Path
from typing import Any

from benchmarks.kept import folder_of, kept


def test_a_result_is_made_once(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> dict[str, Any]:
        made.append(1)
        return {"error": 0.5}

    results = [kept(tmp_path / "deep" / "arm-1.json", make) for _ in range(2)]
    assert results == [{"error": 0.5}] * 2
    assert len(made) == 1


def test_other_settings_have_another_folder() -> None:
    assert folder_of("claim", {"epochs": 3}, "data") == folder_of("claim", {"epochs": 3}, "data")
    assert folder_of("claim", {"epochs": 3}, "data") != folder_of("claim", {"epochs": 4}, "data")
    assert folder_of("claim", {"epochs": 3}).parent == Path("runs/claim")
