"""A record says what was measured, on what, and from which inputs; every benchmark that is named exists."""

import ast
import importlib.util
import json
import os
from pathlib import Path

import pytest

from benchmarks.record import Finding, write_record
from benchmarks.run import BENCHMARKS


def test_a_record_tells_the_machine_the_load_the_versions_and_the_seeds(tmp_path: Path) -> None:
    finding = Finding({"ratio": 1.23456789, "rows": [{"ms": 2.0}]}, "\na\nnote\n", seeds=[3], digests={"data": "ab"})
    record = json.loads(write_record("a_test", finding, 1.26, tmp_path).read_text())
    assert record["values"] == {"ratio": 1.2346, "rows": [{"ms": 2.0}]}
    assert record["machine"]["logical_cores"] == os.cpu_count()
    assert len(record["machine"]["load_average_1_5_15_min"]) == 3
    assert {"python", "numpy", "torch"} <= record["versions"].keys()
    assert (record["seeds"], record["digests"], record["notes"], record["seconds"]) == (
        [3],
        {"data": "ab"},
        "a note",
        1.3,
    )


def test_plain_values_make_a_record_too(tmp_path: Path) -> None:
    path = write_record("a_test", {"ms": 1.0}, 0.1, tmp_path / "new")
    assert path == tmp_path / "new" / "a_test.json"
    assert json.loads(path.read_text())["values"] == {"ms": 1.0}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_on_the_list_exists(name: str) -> None:
    module, _, function = BENCHMARKS[name].function.partition(":")
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text())
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert BENCHMARKS[name].kind in {"speed", "claims"}
