"""Streams of the Open Inference Protocol: answers in order, refusals within, silence and callers who leave."""

import asyncio
import queue
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from grpc_gateway import Ports, gated, message, stub, tensors_in, triton_inputs, until
from messages import ENERGY, M, cloud, infer


def test_a_bad_message_in_a_stream_is_refused_and_the_stream_goes_on(client: triton.InferenceServerClient) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number, model in enumerate(["tiny", "nobody", "tiny", "tiny"]):
        client.async_stream_infer(model, triton_inputs([M] * (number + 1)), request_id=str(number))
    got = [answers.get(timeout=30) for _ in range(4)]
    client.stop_stream()
    assert [error is None for _, error in got] == [True, False, True, True]
    assert "There are: anything, tiny" in str(got[1][1])
    for number in (0, 2, 3):
        result = got[number][0]
        np.testing.assert_allclose(result.as_numpy("energy"), [ENERGY] * (number + 1), atol=1e-4)
        assert result.get_response().id == str(number)
        assert result.get_response().parameters["triton_final_response"].bool_param


def test_an_asynchronous_stream_answers_more_messages_than_it_reads_ahead_in_their_order(ports: Ports) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for number in range(40):
            inputs = triton_inputs([cloud(1 + number * 7 % 50)] if number != 20 else [{**M, "numbers": [0] * 9}])
            yield {"model_name": "anything", "inputs": inputs, "request_id": str(number)}

    async def ask() -> list[tuple[Any, Any]]:
        async with triton_aio.InferenceServerClient(ports.address) as client:
            return [answer async for answer in client.stream_infer(requests())]

    answers = asyncio.run(ask())
    assert [number for number, (_, error) in enumerate(answers) if error] == [20]
    ids = [result.get_response().id for result, error in answers if error is None]
    assert ids == [str(number) for number in range(40) if number != 20]
    assert [len(result.as_numpy("forces")) for result, error in answers[:20]] == [1 + n * 7 % 50 for n in range(20)]


def test_a_refused_message_names_its_request_and_its_code(calls: Any) -> None:
    (answer,) = calls.ModelStreamInfer(iter([message([M], "nobody", id="mine")]))
    assert answer.error_message.startswith("No model 'nobody' is served here.")
    assert answer.infer_response.id == "mine"
    assert answer.infer_response.parameters["us_code"].string_param == "unknown_model"
    assert answer.infer_response.parameters["triton_final_response"].bool_param


def test_a_stream_that_is_left_open_and_silent_is_ended(small_ports: Ports) -> None:
    silent: queue.Queue[Any] = queue.Queue()
    silent.put(message([M]))
    with grpc.insecure_channel(small_ports.address) as channel:
        answers = stub(channel).ModelStreamInfer(iter(silent.get, None))
        assert tensors_in(next(answers).infer_response)
        with pytest.raises(grpc.RpcError) as ended:
            next(answers)
        silent.put(None)
    assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "no message for 0.2 s" in ended.value.details()


def test_a_caller_who_leaves_a_stream_takes_all_its_messages_out_of_the_queue(repository: Path) -> None:
    async def scene() -> None:
        async with gated(repository) as here, grpc.aio.insecure_channel(here.address) as channel:
            call = stub(channel).ModelStreamInfer()
            for _ in range(4):
                await call.write(message([M]))
            await here.engine_begins()
            await until(lambda: here.lane.waiting == 3)
            call.cancel()
            await until(lambda: here.lane.waiting == 0 and here.lane.counts.cancelled == 4)
            here.engine.gate.set()
            assert np.frombuffer(tensors_in(await infer(channel))["energy"]) == pytest.approx(ENERGY, abs=1e-4)

    asyncio.run(scene())
