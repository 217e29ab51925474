"""The clients: `Client` for ordinary code, `AsyncClient` for asyncio. Both only drive the flows."""

import asyncio
import os
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, TypeAlias, TypeVar, Unpack, cast, overload

import httpx
import numpy as np
from numpy.typing import NDArray

from understudy import flows, rock_flows
from understudy.errors import NotReachable
from understudy.flows import Flow, Outcome, Pause, Step
from understudy.options import PredictOptions
from understudy.predictions import Prediction
from understudy.receipts import Receipt
from understudy.retries import Retries
from understudy.rocks import NPY, Axis, Permeability, RockImage, RockOptions, array_of, rock_question
from understudy.structures import Many, One, as_structures
from understudy.version import VERSION
from understudy.wire import Command, ModelSummary, ModelVersions, PlanAnswer, ReplayReport

T = TypeVar("T")
OnProgress: TypeAlias = Callable[[int, int], None]

DEFAULT_URL: Final = "http://127.0.0.1:8000"
CONNECT_TIMEOUT_S: Final = 5.0
_URL_HINT: Final = "Write it as http://HOST:PORT."
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def default_url() -> str:
    """The gateway's address when none is given: `UNDERSTUDY_URL`, else http://127.0.0.1:8000."""
    return os.environ.get("UNDERSTUDY_URL", DEFAULT_URL)


class Client:
    """A gateway, asked from ordinary code. Safe to share between threads.

        with Client("http://127.0.0.1:8000") as client:
            prediction = client.predict("malonaldehyde", atoms)
            print(prediction.energy, "eV, plus or minus", prediction.energy_std)

    Args:
        url: the gateway's address; by default `UNDERSTUDY_URL`, else http://127.0.0.1:8000.
        timeout_s: seconds that one answer may take; connecting never takes more than 5.
        retries: when to ask again; by default after 429 and 503 as the gateway asks, and after lost connections.
        headers: sent with every request.
        key: where the gateway asks for one; by default `UNDERSTUDY_KEY`.
        transport: another way to the gateway than a socket, such as `understudy.inprocess.InProcess(app)`.

    Raises:
        NotReachable: on any method, when no answer comes.
        Refused: on any method, when the gateway answers with an error; see `understudy.errors`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        timeout_s: float = 120.0,
        retries: Retries | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = checked_url(url or default_url())
        self._settings: dict[str, Any] = {
            "timeout_s": timeout_s,
            "retries": retries,
            "headers": headers,
            "key": key,
            "transport": transport,
        }
        self._http = httpx.Client(transport=transport, **_http_settings(self.url, timeout_s, headers, key))
        self._ask = flows.asker(self.url, retries or Retries())
        self._close = weakref.finalize(self, self._http.close)

    def models(self) -> list[ModelSummary]:
        """The models that the gateway serves."""
        return self._run(flows.models(self._ask))

    def card(self, model: str) -> dict[str, Any]:
        """The whole card of a model: units, domain, training data, metrics, files with their SHA-256."""
        return self._run(flows.card(self._ask, model))

    def limits(self) -> dict[str, Any]:
        """What the gateway takes at most, as it states it."""
        return self._run(flows.limits(self._ask))

    def versions(self) -> list[ModelVersions]:
        """Every version that the gateway knows, loaded or not, and the records of the shadows; for operators."""
        return self._run(flows.versions(self._ask))

    def command(self, model: str, name: Command, version: str | None = None, *, force: bool = False) -> ModelVersions:
        """Tell the gateway to load, unload, reload, promote, rollback or shadow versions of a model; for operators.

        Args:
            model: the model's name.
            name: of the command.
            version: which one; `load` takes the newest by default, `unload` every one; `shadow` without one ends it.
            force: promote without a good record as a shadow, or step down.

        Returns:
            What was done, and how it stands now.
        """
        return self._run(flows.command(self.url, model, name, version, force))

    def ready(self) -> bool:
        """Whether the gateway says that it can answer now."""
        return self._run(flows.ready(self._ask))

    @overload
    def predict(
        self,
        model: str,
        structures: One,
        *,
        on_progress: OnProgress | None = None,
        **options: Unpack[PredictOptions],
    ) -> Prediction: ...

    @overload
    def predict(
        self,
        model: str,
        structures: Many,
        *,
        on_progress: OnProgress | None = None,
        **options: Unpack[PredictOptions],
    ) -> list[Prediction]: ...

    def predict(
        self,
        model: str,
        structures: One | Many,
        *,
        on_progress: OnProgress | None = None,
        **options: Unpack[PredictOptions],
    ) -> Prediction | list[Prediction]:
        """Energy (eV), forces (eV/angstrom), stress (eV/angstrom^3), committee std and domain verdict.

        Args:
            model: the model's name, see `models()`.
            structures: `ase.Atoms`, a dict of `numbers`, `positions`, `cell`, `pbc` (angstrom), a path to a structure
                file, or a list of these. Long lists are sent in parts.
            on_progress: called with (structures done, structures in all) after each part.
            outputs: `forces_std`, `stress_std` and `atomic_energies` are computed only when asked for.
            deterministic: each structure is run alone: bitwise the same answer in every company.
            priority: `bulk` waits for the interactive work of everyone, but for a least share.
            on_out_of_domain: where the model was not trained, `answer` with the verdict, `flag` the prediction too (the
                default), or `refuse`.
            model_digest: the weights that must answer, by their digest or at least its first 12 digits.
            check: `teacher` also asks the slower model that this one was distilled from; see `Prediction.teacher`.
            escalate: `flagged` lets the teacher answer what is flagged, `always` everything; `Prediction.answered_by`
                says who did.

        Returns:
            One prediction for one structure; a list for a list or a file.

        Raises:
            InvalidStructure: something cannot be sent; it names the structure's index and the field.
            DigestMismatch: other weights are served than `model_digest` names.
            OutOfDomain: the model was not trained for a structure, and `on_out_of_domain` is `refuse`.
        """
        batch, single = as_structures(structures)
        predictions = self._run(flows.predict(self._ask, model, batch, options, on_progress))
        return predictions[0] if single else predictions

    def permeability(
        self,
        image: RockImage,
        voxel_size_um: float,
        *,
        on_progress: OnProgress | None = None,
        **options: Unpack[RockOptions],
    ) -> Permeability:
        """Permeability of a rock image along its axes, with interval, porosities, verdict and warnings.

        Args:
            image: an array [nx, ny, nz] of booleans (True is pore) or labels, or a path (.npy, .npz, .tif, .raw, .nc,
                .zarr, a folder of .tif slices). More than 32 MiB are uploaded in parts.
            voxel_size_um: side of the cubic voxels in micrometres.
            on_progress: called with (steps done, steps in all) while a large image is run in tiles.
            axes: "all", or some of x, y and z, such as "x,z".
            pore_value: the label, or labels, that are pores; needed where that is not clear.
            shape, dtype, order, byte_order: of a .raw file.
            model: its name.
            on_out_of_domain: `answer`, `flag` (the default) or `refuse`.
            model_digest: the weights that must answer.

        Raises:
            InvalidImage: the file cannot be read.
            BadRequest: the gateway cannot tell what is pore, or what the image is.
            OutOfDomain: the model was not trained for it, and `on_out_of_domain` is `refuse`.
        """
        body, model, said = rock_question(image, options)
        return self._run(rock_flows.permeability(self._ask, model, body, voxel_size_um, said, on_progress))

    def velocity(
        self, image: RockImage, voxel_size_um: float, axis: Axis, **options: Unpack[RockOptions]
    ) -> NDArray[np.float32]:
        """The velocity along an axis times viscosity over pressure gradient, voxel^2, shaped as the image.

        See `permeability` for the arguments.
        """
        return array_of(self.field(image, voxel_size_um, axis, NPY, **options))

    def field(
        self, image: RockImage, voxel_size_um: float, axis: Axis, media_type: str, **options: Unpack[RockOptions]
    ) -> bytes:
        """The same as a file: `application/x-npy`, `application/vnd.vtk.vti`, `application/zip` (Zarr), `image/png`."""
        body, model, said = rock_question(image, {**options, "axes": axis})
        return self._run(rock_flows.field(self._ask, model, body, voxel_size_um, said, media_type))

    def plan(
        self,
        model: str,
        structures: One | Many = (),
        *,
        sizes: Sequence[Mapping[str, Any]] = (),
        **options: Unpack[PredictOptions],
    ) -> PlanAnswer:
        """What a prediction would cost, whether it fits, and whether the model was trained for it; nothing is run.

        Args:
            model: the model's name.
            structures: as for `predict`, all in one request.
            sizes: in place of structures: `atoms`, and `neighbours` or `atoms_per_cubic_angstrom`, of each.
        """
        return self._run(flows.plan(self._ask, model, as_structures(structures)[0], sizes, options))

    def replay(
        self, receipt: Receipt, structures: One | Many, results: Sequence[Mapping[str, Any]] | None = None
    ) -> ReplayReport:
        """Ask for the answer of a receipt again, each structure alone, and whether it is the same.

        Args:
            receipt: of the first answer, such as `prediction.receipt`.
            structures: what was asked.
            results: of the first answer, to compare with, such as `[prediction.to_dict()]`.

        Raises:
            BadRequest: the structures are not those of the receipt; facts hold both hashes.
            DigestMismatch: other weights are served than those of the receipt; facts hold both digests.
        """
        return self._run(flows.replay(self._ask, receipt, as_structures(structures)[0], results))

    def close(self) -> None:
        """Close the connections; a forgotten client closes them when it goes."""
        self._close()

    def _run(self, flow: Flow[T]) -> T:
        outcome: Outcome | None = None
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration as end:
                return cast(T, end.value)
            outcome = self._do(step)

    def _do(self, step: Step) -> Outcome | None:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        request = self._http.build_request(step.method, step.path, headers=step.headers, content=step.content)
        try:
            if step.on_line is None:
                return self._http.send(request)
            with closing(self._http.send(request, stream=True)) as response:
                if response.is_success:
                    for line in response.iter_lines():
                        step.on_line(line)
                else:
                    response.read()
            return response
        except httpx.RequestError as error:
            return error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles carry the settings and open connections of their own."""
        return partial(type(self), self.url, **self._settings), ()


class AsyncClient:
    """A gateway, asked from asyncio: the same names, arguments, answers and errors as `Client`, to be awaited.

        async with AsyncClient("http://127.0.0.1:8000") as client:
            predictions = await client.predict("malonaldehyde", [atoms, other_atoms])

    Args:
        transport: another way to the gateway than a socket, such as `httpx.ASGITransport(app)`.
        The others are those of `Client`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        timeout_s: float = 120.0,
        retries: Retries | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = checked_url(url or default_url())
        self._http = httpx.AsyncClient(transport=transport, **_http_settings(self.url, timeout_s, headers, key))
        self._ask = flows.asker(self.url, retries or Retries())

    async def models(self) -> list[ModelSummary]:
        """The models that the gateway serves."""
        return await self._run(flows.models(self._ask))

    async def card(self, model: str) -> dict[str, Any]:
        """The whole card of a model."""
        return await self._run(flows.card(self._ask, model))

    async def limits(self) -> dict[str, Any]:
        """What the gateway takes at most, as it states it."""
        return await self._run(flows.limits(self._ask))

    async def versions(self) -> list[ModelVersions]:
        """Every version that the gateway knows; see `Client.versions`."""
        return await self._run(flows.versions(self._ask))

    async def command(
        self, model: str, name: Command, version: str | None = None, *, force: bool = False
    ) -> ModelVersions:
        """Tell the gateway what to do with versions of a model; see `Client.command`."""
        return await self._run(flows.command(self.url, model, name, version, force))

    async def ready(self) -> bool:
        """Whether the gateway says that it can answer now."""
        return await self._run(flows.ready(self._ask))

    @overload
    async def predict(
        self,
        model: str,
        structures: One,
        *,
        on_progress: OnProgress | None = None,
        **options: Unpack[PredictOptions],
    ) -> Prediction: ...

    @overload
    async def predict(
        self,
        model: str,
        structures: Many,
        *,
        on_progress: OnProgress | None = None,
        **options: Unpack[PredictOptions],
    ) -> list[Prediction]: ...

    async def predict(
        self,
        model: str,
        structures: One | Many,
        *,
        on_progress: OnProgress | None = None,
        **options: Unpack[PredictOptions],
    ) -> Prediction | list[Prediction]:
        """Energy (eV), forces (eV/angstrom), stress (eV/angstrom^3), committee std and domain verdict.

        See `Client.predict` for the arguments.
        """
        batch, single = as_structures(structures)
        predictions = await self._run(flows.predict(self._ask, model, batch, options, on_progress))
        return predictions[0] if single else predictions

    async def permeability(
        self,
        image: RockImage,
        voxel_size_um: float,
        *,
        on_progress: OnProgress | None = None,
        **options: Unpack[RockOptions],
    ) -> Permeability:
        """Permeability of a rock image along its axes; see `Client.permeability`."""
        body, model, said = rock_question(image, options)
        return await self._run(rock_flows.permeability(self._ask, model, body, voxel_size_um, said, on_progress))

    async def velocity(
        self, image: RockImage, voxel_size_um: float, axis: Axis, **options: Unpack[RockOptions]
    ) -> NDArray[np.float32]:
        """The velocity field along an axis; see `Client.velocity`."""
        return array_of(await self.field(image, voxel_size_um, axis, NPY, **options))

    async def field(
        self, image: RockImage, voxel_size_um: float, axis: Axis, media_type: str, **options: Unpack[RockOptions]
    ) -> bytes:
        """The same as a file of some kind; see `Client.field`."""
        body, model, said = rock_question(image, {**options, "axes": axis})
        return await self._run(rock_flows.field(self._ask, model, body, voxel_size_um, said, media_type))

    async def plan(
        self,
        model: str,
        structures: One | Many = (),
        *,
        sizes: Sequence[Mapping[str, Any]] = (),
        **options: Unpack[PredictOptions],
    ) -> PlanAnswer:
        """What a prediction would cost, and whether it fits; nothing is run. See `Client.plan`."""
        return await self._run(flows.plan(self._ask, model, as_structures(structures)[0], sizes, options))

    async def replay(
        self, receipt: Receipt, structures: One | Many, results: Sequence[Mapping[str, Any]] | None = None
    ) -> ReplayReport:
        """Ask for the answer of a receipt again, and whether it is the same; see `Client.replay`."""
        return await self._run(flows.replay(self._ask, receipt, as_structures(structures)[0], results))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _run(self, flow: Flow[T]) -> T:
        outcome: Outcome | None = None
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration as end:
                return cast(T, end.value)
            outcome = await self._do(step)

    async def _do(self, step: Step) -> Outcome | None:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        request = self._http.build_request(step.method, step.path, headers=step.headers, content=step.content)
        try:
            if step.on_line is None:
                return await self._http.send(request)
            response = await self._http.send(request, stream=True)
            try:
                if response.is_success:
                    async for line in response.aiter_lines():
                        step.on_line(line)
                else:
                    await response.aread()
            finally:
                await response.aclose()
            return response
        except httpx.RequestError as error:
            return error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"


def checked_url(url: str) -> str:
    """The gateway's address, without a slash at its end.

    Raises:
        NotReachable: not an http or https address.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise NotReachable(f"'{url}' is no address: {error}.", code="invalid_url", hint=_URL_HINT) from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise NotReachable(f"'{url}' is no address of a gateway.", code="invalid_url", hint=_URL_HINT)
    return url.rstrip("/")


def _headers(given: Mapping[str, str] | None, key: str | None) -> dict[str, str]:
    """What goes with every request; the key that was given, or that of the environment."""
    key = key or os.environ.get("UNDERSTUDY_KEY")
    return {"User-Agent": f"understudy-client/{VERSION}", **({"X-API-Key": key} if key else {}), **(given or {})}


def _http_settings(url: str, timeout_s: float, headers: Mapping[str, str] | None, key: str | None) -> dict[str, Any]:
    return {
        "base_url": url,
        "timeout": httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S)),
        "headers": _headers(headers, key),
        # A proxy for the outside world must not stand between two programs on one machine.
        "trust_env": httpx.URL(url).host not in _LOOPBACK,
    }
