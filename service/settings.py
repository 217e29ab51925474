"""What an operator can set: `UNDERSTUDY_*` in the environment, or arguments in Python. Everything has a default."""

import math
import os
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1024 * 1024
Device = Literal["auto", "cpu", "cuda"]
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_HANDING_OVER: Final = 2
_PREFIX: Final = "UNDERSTUDY_"


class Limits(BaseModel):
    """What one request, and the queue of one model, may hold at most. Read it at `GET /v1/limits`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    head_bytes: int = Field(64 * 1024, gt=0, description="the head of an HTTP request, with all its headers")
    head_s: float = Field(10.0, gt=0, description="a head may take this long")
    json_bytes: int = Field(4 * MIB, gt=0, description="a JSON body, or the JSON head of a binary one")
    xyz_bytes: int = Field(4 * MIB, gt=0, description="an extended XYZ body")
    binary_bytes: int = Field(512 * MIB, gt=0, description="a binary body, decompressed")
    body_chunks: int = Field(65_536, gt=0, description="pieces in which a body may arrive")
    body_grace_s: float = Field(10.0, gt=0, description="a body may take this long, and ...")
    body_least_bytes_per_s: int = Field(65_536, gt=0, description="... one second more for each so many bytes")
    structures: int = Field(1_000, gt=0, description="structures in one request")
    atoms: int = Field(1_000_000, gt=0, description="atoms in one request")
    id_bytes: int = Field(256, gt=0, description="a KServe request id")
    stream_idle_s: float = Field(600.0, gt=0, description="a gRPC stream may stay open without a message")
    calls_per_connection: int = Field(256, gt=0, description="gRPC calls at once on one connection")
    timeout_s: float = Field(60.0, gt=0, description="a request waits and runs no longer than this")
    queued_structures: int = Field(16_384, gt=0, description="structures waiting for one model")
    queued_slots: int = Field(16_000_000, gt=0, description="neighbour slots waiting for one model")
    image_voxels: int = Field(512**3, gt=0, description="voxels of one image")
    queued_voxels: int = Field(512_000_000, gt=0, description="voxels waiting for one model of flow, once an axis")
    whole_voxels: int = Field(
        200**3,
        gt=0,
        description="voxels of an image that is run in one call; larger ones are run in tiles, where the model can",
    )
    tile_length: int = Field(96, ge=16, multiple_of=2, description="side of a tile in voxels")
    upload_bytes: int = Field(2048 * MIB, gt=0, description="uploads of one tenant together")
    uploads: int = Field(16, gt=0, description="uploads of one tenant at once")
    upload_idle_s: float = Field(3600.0, gt=0, description="an upload that nobody asks for is deleted after this")
    flow_timeout_s: float = Field(3600.0, gt=0, description="an answer about a rock image takes no longer than this")


class Demands(BaseModel):
    """What a version must have shown as a shadow of live traffic before it may be promoted without force."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: int = Field(100, gt=0, description="requests that it has followed")
    energy_mev_per_atom: float = Field(10.0, gt=0, description="root mean square difference of energies at most")
    forces_ev_per_angstrom: float = Field(
        0.1, gt=0, description="root mean square difference of force components at most"
    )


def available_cores() -> int:
    """Cores this process may use: its affinity, and the quota of its container where there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup v2, or "max": no quota
        return cores


def _workers() -> int:
    """More than cores, so that none stands still while a batch passes between the event loop and a worker."""
    return available_cores() + _HANDING_OVER


class Settings(BaseSettings):
    """Settings of the gateway; nested ones are written `UNDERSTUDY_LIMITS__JSON_BYTES=1000000`."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_nested_delimiter="__",
        env_parse_none_str="none",
        frozen=True,
        extra="ignore",
        protected_namespaces=(),
    )

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for every network")
    port: int = Field(8000, ge=0, le=65_535, description="HTTP port")
    grpc_port: int | None = Field(8001, ge=0, le=65_535, description="gRPC port; none: no gRPC")
    model_repo: Path = Field(Path("model_repo"), description="folder of models")
    engine: Literal["onnxruntime", "triton", "torchscript"] = Field("onnxruntime", description="what runs the graphs")
    device: Device = Field("auto", description="where an embedded engine runs them: cpu, cuda, or auto")
    triton_url: str | None = Field(None, description="gRPC addresses of Triton, host:port, with commas between them")
    triton_calls: int = Field(2, ge=1, description="engine calls at once on each Triton server")
    workers: int = Field(default_factory=_workers, ge=1, description="embedded engine calls at once")
    allowed_hosts: list[str] | None = Field(
        None, description="names callers may use in `Host`; by default any, or only this machine when host is loopback"
    )
    keys_file: Path | None = Field(
        None, description="keys of the tenants, TOML or JSON; with it all but health needs one"
    )
    open: bool = Field(False, description="without keys, let everyone who can reach the address ask")
    canary_fraction: float = Field(
        0.001, ge=0, le=1, description="share of requests that are run again alone and compared (isolation)"
    )
    teacher_fraction: float = Field(
        0.01,
        ge=0,
        le=1,
        description="share of a student's answers that its teacher checks; flagged ones it checks anyway",
    )
    teacher_share: float = Field(
        0.3, ge=0, description="engine time that these checks may take in the mean, as a share of the student's own"
    )
    harvest: Path | None = Field(
        None,
        description="folder in which flagged structures are kept for training; none: nothing of a caller is stored",
    )
    harvest_bytes: int = Field(256 * MIB, gt=0, description="size of that folder, at most")
    harvest_structures: int = Field(10_000, gt=0, description="structures in it, at most")
    spool: Path | None = Field(
        None, description="folder for what is too large for memory: large fields, uploads; none: the system's own"
    )
    spool_bytes: int = Field(8192 * MIB, gt=0, description="room in it, at most")
    shadow: Demands = Demands()
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least level that is logged; a request is told at info, health checks and pages at debug"
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="of log lines on standard output; auto: JSON unless it is a terminal"
    )
    log_requests: bool = Field(True, description="a line for each request")
    otel_endpoint: str | None = Field(
        None, description="OTLP collector for traces, such as http://localhost:4318; OTEL_EXPORTER_OTLP_ENDPOINT too"
    )
    limits: Limits = Limits()

    @property
    def on_loopback(self) -> bool:
        """Whether only programs on this machine can reach the gateway."""
        return self.host in _LOOPBACK

    def hosts(self) -> frozenset[str]:
        """Lower-case host names that are answered; empty means every one."""
        if self.allowed_hosts is not None:
            return frozenset(name.lower() for name in self.allowed_hosts if name != "*")
        return _LOOPBACK if self.on_loopback else frozenset()

    def triton_urls(self) -> list[str]:
        """The addresses of the Triton servers, one by one."""
        return [url.strip() for url in (self.triton_url or "").split(",") if url.strip()]

    def calls(self) -> int:
        """Engine calls at once."""
        return self.triton_calls * len(self.triton_urls()) or 1 if self.engine == "triton" else self.workers

    def parallelism(self) -> int:
        """Engine calls that do not slow each other down: on an embedded engine no more than cores."""
        return self.calls() if self.engine == "triton" else min(self.workers, available_cores())

    def address(self, port: int) -> str:
        """Host and port as a URL has them."""
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"

    def lines(self) -> list[str]:
        """The settings in effect, one environment variable a line."""
        return list(_lines(_PREFIX, self.model_dump(mode="json")))


def _lines(prefix: str, values: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for name, value in values.items():
        if isinstance(value, dict):
            lines += _lines(f"{prefix}{name.upper()}__", value)
        elif value is not None:
            lines.append(f"{prefix}{name.upper()}={value}")
    return lines


def misspelt(environment: Iterable[str]) -> list[str]:
    """A line for each variable that looks like a setting but is none, and so would be ignored in silence.

    Variables of the client, of training and of other programs begin with `UNDERSTUDY_` too: only a near miss is told.
    """
    known = set(_names("", Settings))
    lines = []
    for variable in sorted(environment):
        name = variable.upper().removeprefix(_PREFIX)
        if name != variable.upper() and name not in known and (near := get_close_matches(name, known, 1, cutoff=0.75)):
            lines.append(f"{variable} is no setting and is ignored; did you mean {_PREFIX}{near[0]}?")
    return lines


def _names(prefix: str, model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            yield from _names(f"{prefix}{name.upper()}__", nested)
        else:
            yield f"{prefix}{name.upper()}"
