"""A real Triton server on the CPU, from PyPI: nvidia-pytriton carries tritonserver 2.51 with its python backend.

It lives in an environment of its own, built once by pip, because it needs numpy 1. Its repository is made from ours:
same names, tensors, queues, warm-up and versions; only backend and device are others. It is a server of 2024 without
the fixes since: for tests on this machine, never for anything else.
"""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import onnxruntime
from google.protobuf import text_format
from tritonclient.grpc import InferenceServerClient, InferenceServerException, model_config_pb2

PYTRITON = "nvidia-pytriton==0.7.0"
PYTHONS = ((3, 9), (3, 12))
"""Lowest and highest version that has the server's stub and wheels of numpy 1."""
CONTROLLED = ("--model-control-mode=explicit", "--load-model=*", "--disable-auto-complete-config")
START_S = 120.0
EXIT_S = 5
_MODEL = Path(__file__).with_name("triton_model.py")
_SERIAL = count()


class NoTriton(Exception):
    """This machine cannot have the server; says why."""


class Environment:
    """Where the server is installed.

    Raises:
        NoTriton
    """

    def __init__(self) -> None:
        python, self.version = _interpreter()
        self.root = _cache() / f"triton-{PYTRITON.partition('==')[2]}-py{self.version}"
        with _locked(self.root.with_suffix(".lock")):
            if not (self.root / "complete").exists():
                _install(python, self.root)
        self.package = self.root / "lib" / f"python{self.version}" / "site-packages" / "pytriton" / "tritonserver"
        self.variables = self._variables()

    def backends(self, folder: Path) -> Path:
        """Links to the backend and the stub: a copy would not find its libraries."""
        python = folder / "python"
        python.mkdir(parents=True, exist_ok=True)
        backend, stub = self.package / "backends" / "python", self.package / "python_backend_stubs" / self.version
        for file in (
            backend / "libtriton_python.so",
            backend / "triton_python_backend_utils.py",
            stub / "triton_python_backend_stub",
        ):
            if not (python / file.name).exists():
                (python / file.name).symlink_to(file)
        return folder

    def _variables(self) -> dict[str, str]:
        """The stub embeds the Python that is first on PATH, and needs its shared library."""
        code = "import sysconfig as s; print(s.get_config_var('LIBDIR'), s.get_config_var('INSTSONAME'))"
        folder, library = _output([self.root / "bin" / "python", "-c", code]).split()
        paths = [
            p for p in (folder if (Path(folder) / library).exists() else "", os.environ.get("LD_LIBRARY_PATH")) if p
        ]
        path = f"{self.root / 'bin'}{os.pathsep}{os.environ['PATH']}"
        variables = {**os.environ, "PATH": path, "LD_LIBRARY_PATH": os.pathsep.join(paths)}
        variables.pop("PYTHONPATH", None)
        load = f"import ctypes; [ctypes.CDLL(n) for n in ('libpython{self.version}.so.1.0', 'libz.so.1')]"
        try:
            _output([self.root / "bin" / "python", "-c", load], env=variables)
        except NoTriton as error:
            raise NoTriton(f"apt-get install libpython{self.version} zlib1g ({error})") from None
        return variables


class RealTriton:
    """One server process.

    Attributes:
        url: of its gRPC port; it stays the same when the server is started again.
    """

    def __init__(
        self, environment: Environment, repository: Path, folder: Path, flags: Sequence[str] = CONTROLLED
    ) -> None:
        self.repository = repository
        self.log = folder / f"triton-{next(_SERIAL)}.log"
        self._environment, self._flags = environment, flags
        self._backends = environment.backends(folder / "backends")
        self._ports = free_ports(3)
        self._shared_memory = f"understudy_test_{os.getpid()}_{next(_SERIAL)}_"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self._ports[1]}"

    @property
    def http_port(self) -> int:
        return self._ports[0]

    @property
    def process(self) -> int:
        """Leads the group of its processes."""
        if self._process is None:
            raise RuntimeError("the server was not started")
        return self._process.pid

    def client(self) -> InferenceServerClient:
        return InferenceServerClient(self.url)

    def launch(self) -> None:
        """Start; it is not ready yet."""
        package, (http, rpc, metrics) = self._environment.package, self._ports
        arguments = [
            package / "bin" / "tritonserver",
            f"--model-repository={self.repository}",
            f"--backend-directory={self._backends}",
            f"--cache-directory={package / 'caches'}",
            f"--backend-config=python,shm-region-prefix-name={self._shared_memory}",
            *self._flags,
            *(f"--{kind}-address=127.0.0.1" for kind in ("http", "grpc", "metrics")),
            *(f"--http-port={http}", f"--grpc-port={rpc}", f"--metrics-port={metrics}"),
            *("--allow-gpu-metrics=false", f"--exit-timeout-secs={EXIT_S}"),
        ]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                arguments, env=self._environment.variables, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self) -> None:
        """Until it is ready."""
        assert self._process is not None
        deadline = time.monotonic() + START_S
        with InferenceServerClient(self.url) as client:
            while not _is_ready(client):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    told = "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
                    self.kill()
                    raise RuntimeError(f"Triton did not start:\n{told}")
                time.sleep(0.1)

    def start(self) -> None:
        self.launch()
        self.wait()

    def kill(self) -> None:
        """kill -9, and remove what it leaves in shared memory."""
        self._end(gently=False)

    def stop(self) -> None:
        self._end(gently=True)

    def _end(self, *, gently: bool) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if gently:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(EXIT_S)
        with suppress(ProcessLookupError):  # the stubs of a killed server may outlive it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for left in Path("/dev/shm").glob(f"{self._shared_memory}*"):
            left.unlink(missing_ok=True)


def overlay(repository: Path, folder: Path) -> Path:
    """Our repository as this server takes it."""
    for file in sorted(repository.glob("*/config.pbtxt")):
        name = file.parent.name
        config = text_format.Parse(file.read_text(), model_config_pb2.ModelConfig())
        config.backend, config.default_model_filename = "python", "model.py"
        del config.instance_group[:]
        config.instance_group.add(kind=model_config_pb2.ModelInstanceGroup.KIND_CPU, count=1)
        for version in file.parent.glob("[1-9]*"):
            (folder / name / version.name).mkdir(parents=True)
            (folder / name / version.name / "model.onnx").symlink_to((version / "model.onnx").resolve())
            shutil.copy(_MODEL, folder / name / version.name / "model.py")
        (folder / name / "config.pbtxt").write_text(text_format.MessageToString(config))
    return folder


def free_ports(number: int) -> list[int]:
    """Ports that are free now, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _is_ready(client: InferenceServerClient) -> bool:
    try:
        return bool(client.is_server_ready(client_timeout=1.0))
    except InferenceServerException:
        return False


def _interpreter() -> tuple[str, str]:
    """A Python for the server's environment, this one if it will do, and its version."""
    lowest, highest = PYTHONS
    if lowest <= sys.version_info[:2] <= highest:
        return sys.executable, "{}.{}".format(*sys.version_info)
    for minor in range(highest[1], lowest[1] - 1, -1):
        if python := shutil.which(f"python3.{minor}"):
            return python, f"3.{minor}"
    raise NoTriton(f"Triton's wheel needs a Python 3.{lowest[1]} to 3.{highest[1]}; this is {sys.version.split()[0]}")


def _install(python: str, root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    print(f"installing {PYTRITON} into {root}: once, a minute", file=sys.stderr)
    pip = [
        root / "bin" / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--only-binary=:all:",
    ]
    _output([python, "-m", "venv", root])
    _output([*pip, "numpy<2", f"onnxruntime=={onnxruntime.__version__}"])
    _output([*pip, "--no-deps", PYTRITON])
    (root / "complete").touch()


def _output(command: list[str | Path], env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise NoTriton(f"{Path(command[0]).name} {' '.join(map(str, command[1:4]))}: {last}")
    return done.stdout


def _cache() -> Path:
    root = os.environ.get("UNDERSTUDY_CACHE")
    folder = Path(root) if root else Path.home() / ".cache" / "understudy"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time: the workers of a test run share the environment."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
