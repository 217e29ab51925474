"""The two-speed surrogate: a student that answers, and its teacher that checks, is asked, or takes over."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tiny import AMPLITUDES, publish_tiny
from understudy import Client
from understudy.framing import HEADER_LENGTH, MEDIA_TYPE, decode, encode
from understudy.inprocess import InProcess
from wires import malonaldehyde, tensors_of

from contract.card import TeacherGap
from contract.repository import ModelRepository
from service.app import create_app
from service.settings import Settings
from service.teachers import BURST_S, ENOUGH, Gap, Ledger

M = malonaldehyde()
CO: dict[str, Any] = {"numbers": [6, 8], "positions": [[0.0, 0.0, 0.0], [0.0, 0.0, 1.2]]}
BOUND = {"energy_ev_per_atom": 1e-4, "forces_ev_angstrom": 1e-3, "count": 10}
TIGHT = {**BOUND, "energy_bound_ev_per_atom": 1e-4, "forces_bound_ev_angstrom": 1e-3}


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student one percent off its teacher, an orphan whose teacher is not served, and the teacher."""
    root = tmp_path_factory.mktemp("school") / "model_repo"
    publish_tiny(root, "teacher")
    taught = {"name": "teacher", "version": "1", "digest": ModelRepository(root).load("teacher").digest}
    close = tuple(1.01 * amplitude for amplitude in AMPLITUDES)
    publish_tiny(root, "student", amplitudes=close, teacher={**taught, "gap": TIGHT})
    publish_tiny(root, "orphan", teacher={**taught, "name": "nobody"})
    return root


def gateway_of(school: Path, **settings: Any) -> httpx.Client:
    app = create_app(Settings(model_repo=school, workers=2, canary_fraction=0.0, **settings))
    return httpx.Client(transport=InProcess(app), base_url="http://127.0.0.1", timeout=60.0)


@pytest.fixture(scope="module")
def asked(school: Path) -> Iterator[httpx.Client]:
    """A gateway whose teachers speak only when they are asked."""
    with gateway_of(school, teacher_fraction=0.0) as client:
        yield client


def ask(gateway: httpx.Client, *structures: Any, model: str = "student", **options: Any) -> list[dict[str, Any]]:
    response = gateway.post(f"/v1/predict/{model}", json={"structures": list(structures), **options})
    assert response.status_code == 200, response.text
    return list(response.json()["results"])


def on_live_traffic(gateway: httpx.Client, checks: int = 0) -> dict[str, Any]:
    """What is known of the student's gap, once so many checks are entered."""
    for _ in range(500):
        said = gateway.get("/v1/models/student").json()["on_live_traffic"]["teacher"]
        if sum(said["checks"].values()) >= checks:
            return dict(said)
        time.sleep(0.01)
    raise AssertionError(said)


def test_check_gives_the_teachers_values_and_the_gap_in_the_same_answer(asked: httpx.Client) -> None:
    student, teacher = (ask(asked, M, CO, model=model) for model in ("student", "teacher"))
    for index, result in enumerate(ask(asked, M, CO, check="teacher")):
        assert result["energy"] == pytest.approx(student[index]["energy"])
        assert result["teacher"]["energy"] == pytest.approx(teacher[index]["energy"])
        np.testing.assert_allclose(result["teacher"]["forces"], teacher[index]["forces"], atol=1e-6)
        atoms = len(result["forces"])
        difference = np.array(student[index]["forces"]) - teacher[index]["forces"]
        assert result["teacher"]["gap"] == pytest.approx(
            {
                "energy_ev_per_atom": (student[index]["energy"] - teacher[index]["energy"]) / atoms,
                "forces_rms_ev_angstrom": np.sqrt((difference**2).mean()),
                "forces_max_ev_angstrom": np.linalg.norm(difference, axis=1).max(),
            },
            rel=1e-4,
            abs=1e-7,
        )


def test_an_answer_that_was_not_checked_says_nothing_of_a_teacher(asked: httpx.Client) -> None:
    assert not {"teacher", "answered_by"} & ask(asked, M)[0].keys()


def test_escalation_lets_the_teacher_answer_what_is_flagged(asked: httpx.Client) -> None:
    student, teacher = (ask(asked, M, CO, model=model) for model in ("student", "teacher"))
    flagged = [result["flags"] for result in student]
    assert flagged == [[], ["out_of_domain"]]
    answers = ask(asked, M, CO, escalate="flagged")
    assert [answer["answered_by"]["model"] for answer in answers] == ["student", "teacher"]
    assert [answer["energy"] for answer in answers] == pytest.approx([student[0]["energy"], teacher[1]["energy"]])
    np.testing.assert_allclose(answers[1]["forces"], teacher[1]["forces"], atol=1e-6)
    assert [answer["flags"] for answer in answers] == flagged
    assert "teacher" not in answers[0]
    assert answers[1]["teacher"]["gap"]["energy_ev_per_atom"] != 0.0
    every = ask(asked, M, CO, escalate="always")
    assert [answer["energy"] for answer in every] == pytest.approx([answer["energy"] for answer in teacher])


def test_the_receipt_names_the_teacher_that_was_asked(asked: httpx.Client) -> None:
    answer = asked.post("/v1/predict/student", json={"structures": [M], "escalate": "always"}).json()
    teacher = asked.get("/v1/models/teacher").json()
    assert answer["receipt"]["teacher"] == {"model": "teacher", "version": "1", "digest": teacher["digest"]}
    assert answer["receipt"]["options"]["escalate"] == "always"
    assert answer["receipt"]["model"] == "student"


@pytest.mark.parametrize("wanted", [{"check": "teacher"}, {"escalate": "flagged"}, {"escalate": "always"}])
@pytest.mark.parametrize("model", ["teacher", "orphan"])
def test_without_a_teacher_to_ask_the_request_is_refused(asked: httpx.Client, model: str, wanted: Any) -> None:
    refused = asked.post(f"/v1/predict/{model}", json={"structures": [M], **wanted})
    assert (refused.status_code, refused.json()["code"]) == (400, "no_teacher")


@pytest.mark.parametrize("wrong", [{"check": "oracle"}, {"escalate": "sometimes"}, {"check": None}, {"escalate": True}])
def test_other_words_are_refused(asked: httpx.Client, wrong: dict[str, Any]) -> None:
    refused = asked.post("/v1/predict/student", json={"structures": [M], **wrong})
    assert (refused.status_code, refused.json()["field"]) == (400, next(iter(wrong)))


def test_the_binary_answer_and_the_client_carry_the_teacher(school: Path) -> None:
    with Client(transport=InProcess(create_app(Settings(model_repo=school, workers=1)))) as client:
        plain, taught = client.predict("student", M), client.predict("teacher", M)
        checked = client.predict("student", [M, M], check="teacher")[1]
        assert checked.teacher is not None
        assert checked.teacher.weights.model == "teacher"
        assert checked.teacher.energy == pytest.approx(taught.energy)
        np.testing.assert_allclose(checked.teacher.forces, taught.forces, atol=1e-6)
        assert checked.teacher.gap.energy_ev_per_atom == pytest.approx((plain.energy - taught.energy) / 9)
        assert (plain.teacher, plain.answered_by, plain.flags) == (None, None, ())
        escalated = client.predict("student", CO, escalate="flagged")
        assert escalated.answered_by is not None
        assert (escalated.answered_by.model, escalated.flags) == ("teacher", ("out_of_domain",))
        assert escalated.to_dict()["teacher"]["gap"] == escalated.teacher.gap.model_dump()  # type: ignore[union-attr]


@pytest.mark.parametrize("named", [True, False])
def test_kserve_gives_the_teacher_as_tensors(asked: httpx.Client, named: bool) -> None:
    head: dict[str, Any] = {"parameters": {"binary_data_output": True, "us_escalate": "flagged"}}
    if named:
        head["outputs"] = [{"name": name} for name in ("energy", "teacher_gap", "teacher_energy", "teacher_forces")]
    else:
        head["parameters"]["us_check"] = "teacher"
    body, length = encode(head, tensors_of([M, CO]))
    headers = {"Content-Type": MEDIA_TYPE, HEADER_LENGTH: str(length)}
    response = asked.post("/v2/models/student/infer", content=body, headers=headers)
    said, tensors = decode(response.content, int(response.headers[HEADER_LENGTH]), field="outputs")
    teacher = ask(asked, M, CO, model="teacher")
    np.testing.assert_allclose(tensors["teacher_energy"], [result["energy"] for result in teacher])
    assert (tensors["teacher_forces"].shape, tensors["teacher_gap"].shape) == ((11, 3), (2, 3))
    assert tensors["energy"][1] == pytest.approx(teacher[1]["energy"])
    assert said["parameters"]["us_flags"] == "structures[1]: out_of_domain"
    assert said["parameters"]["us_answered_by"].startswith("structures[1]: teacher ")


def test_the_word_answer_leaves_the_flags_out(asked: httpx.Client) -> None:
    (result,) = ask(asked, CO, on_out_of_domain="answer")
    assert "flags" not in result
    assert result["domain"]["verdict"] == "out"


def test_flagged_requests_are_checked_and_others_are_sampled(school: Path) -> None:
    with gateway_of(school, teacher_fraction=0.5) as gateway:
        for _ in range(4):
            ask(gateway, M)
        assert on_live_traffic(gateway, 2)["checks"] == {"sampled": 2, "flagged": 0, "asked": 0}
        ask(gateway, M, CO)
        ask(gateway, M, check="teacher")
        said = on_live_traffic(gateway, 4)
        assert said["checks"] == {"sampled": 2, "flagged": 1, "asked": 1}
        assert said["same_weights"]
        metrics = gateway.get("/metrics").text
        assert 'understudy_teacher_checks_total{model="student",why="flagged"} 1.0' in metrics
        assert 'understudy_teacher_gap_energy_ev_per_atom_count{model="student"} 4.0' in metrics
        assert 'understudy_teacher_drift{model="student"} 0.0' in metrics
        assert said["extra_cost"] > 0.0


def test_a_student_that_has_drifted_is_flagged(school: Path) -> None:
    with gateway_of(school, teacher_fraction=1.0) as gateway:
        assert ask(gateway, M)[0]["flags"] == []
        for _ in range(ENOUGH - 1):
            ask(gateway, M)
        said = on_live_traffic(gateway, ENOUGH)
        assert said["drifted"]
        assert said["running_mean"]["energy_ev_per_atom"] > TIGHT["energy_bound_ev_per_atom"]
        (result,) = ask(gateway, M)
        assert result["flags"] == ["teacher_gap"]
        (result,) = ask(gateway, M, escalate="flagged")
        assert result["answered_by"]["model"] == "teacher"
        assert ask(gateway, M, model="teacher")[0]["flags"] == []


def test_the_teacher_costs_no_more_than_its_share() -> None:
    ledger = Ledger(bound=None)
    assert ledger.affords(BURST_S, share=0.3)
    ledger.teacher_s = BURST_S
    assert not ledger.affords(0.1, share=0.3)
    ledger.student_s = 1.0
    assert ledger.affords(0.29, share=0.3)
    assert not ledger.affords(0.31, share=0.3)


def test_beyond_its_share_flagged_requests_are_counted_not_checked(
    school: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.teachers.BURST_S", 0.0)
    with gateway_of(school, teacher_fraction=1.0, teacher_share=0.0) as gateway:
        ask(gateway, M, CO)
        said = on_live_traffic(gateway)
        assert (said["not_checked_for_cost"], said["extra_cost"]) == (3, 0.0)


def test_a_few_large_gaps_do_not_make_a_drift() -> None:
    bound = TeacherGap.model_validate(TIGHT)
    ledger = Ledger(bound)
    for why in ("flagged", "asked"):
        for _ in range(ENOUGH):
            ledger.note(Gap(1.0, 1.0, 1.0), why)  # type: ignore[arg-type]
    assert ledger.running_mean is None
    for gap in [Gap(1e-3, 1e-3, 1e-3), *[Gap(0.0, 0.0, 0.0)] * (ENOUGH - 1)]:
        assert not ledger.drifted
        ledger.note(gap, "sampled")
    assert not ledger.drifted
    for _ in range(ENOUGH):
        ledger.note(Gap(-3e-4, 0.0, 0.0), "sampled")
    assert ledger.drifted
