"""`understudy serve`: the gateway as a command."""

import errno
import os
import signal
import socket
import sys
import textwrap
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from service.app import Started
    from service.settings import Settings

PURPOSE_LETTERS: Final = 72
_NO_SUCH_ADDRESS: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

_console = Console(stderr=True, highlight=False, soft_wrap=True)


def serve(
    host: Annotated[
        str | None,
        typer.Option(help="Address to listen on; 0.0.0.0 for every network.", show_default="127.0.0.1"),
    ] = None,
    port: Annotated[int | None, typer.Option(help="HTTP port.", show_default="8000")] = None,
    grpc_port: Annotated[int | None, typer.Option(help="gRPC port.", show_default="8001")] = None,
    no_grpc: Annotated[bool, typer.Option("--no-grpc", help="Only HTTP.")] = False,
    model_repo: Annotated[Path | None, typer.Option(help="Folder of models.", show_default="model_repo")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Engine calls at once.", show_default="cores + 2")] = None,
    keys_file: Annotated[
        Path | None, typer.Option(help="Keys of the tenants; with them everything but health needs one.")
    ] = None,
    open_: Annotated[bool | None, typer.Option("--open", help="Without keys, let everyone on the network ask.")] = None,
    show_settings: Annotated[bool, typer.Option("--show-settings", help="Print the settings and end.")] = False,
) -> None:
    """Serve the models of a folder over HTTP and gRPC. Options override the settings in UNDERSTUDY_* variables."""
    given = {"host": host, "port": port, "grpc_port": grpc_port, "model_repo": model_repo, "workers": workers}
    settings = _settings(**given, keys_file=keys_file, open=open_)
    if no_grpc:
        settings = settings.model_copy(update={"grpc_port": None})
    if show_settings:
        typer.echo("\n".join(settings.lines()))
        return
    _warn_of_misspelt_variables()
    raise typer.Exit(run(settings))


def run(settings: "Settings") -> int:
    """Run the gateway until it is told to stop; the exit status."""
    import uvicorn

    from contract.errors import UnderstudyError
    from service.api.heads import bounded_heads
    from service.app import create_app
    from service.doors import grpc_door
    from service.logs import configure

    configure(settings)
    try:
        listeners = _listeners(settings)
    except OSError as error:
        where = f"{settings.address(settings.port)}: {error.strerror or error}"
        return _cannot_serve(f"HTTP cannot listen on {where}; choose another port with --port or UNDERSTUDY_PORT")
    settings = settings.model_copy(update={"port": listeners[0].getsockname()[1]})
    try:
        app = create_app(settings, on_ready=_announce, doors=[grpc_door])
    except UnderstudyError as error:
        return _cannot_serve(str(error))
    _console.print(f"Loading, verifying and warming the models of {settings.model_repo}", markup=False)
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="critical",  # until it is ready: the reason of a failed start is told below, without a traceback
        http=bounded_heads(settings.limits, app.edge.counts),
        ws="none",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=30,
    )
    server = uvicorn.Server(config)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn drains first, then raises the signal again
    with suppress(KeyboardInterrupt, SystemExit):  # uvicorn leaves by SystemExit when the start failed
        server.run(listeners)
    failure = getattr(app.state, "failure", None)
    if failure is not None:
        return _cannot_serve(str(failure))
    return 0 if server.started else 1


def _listeners(settings: "Settings") -> list[socket.socket]:
    """The HTTP port on every address of the host, taken before anything is loaded; it hears nobody until all is ready.

    `localhost` has two addresses, of which the one of IPv6 may not be there.

    Raises:
        OSError: the port is taken, or no address is ours.
    """
    bound: list[socket.socket] = []
    found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
    for family, kind, protocol, _, address in sorted(found):  # IPv4 first
        port = bound[0].getsockname()[1] if bound else settings.port
        try:
            bound.append(_bound(socket.socket(family, kind, protocol), (address[0], port, *address[2:])))
        except OSError as error:
            if not (bound and error.errno in _NO_SUCH_ADDRESS):
                for listener in bound:
                    listener.close()
                raise
    return bound


def _bound(listener: socket.socket, address: tuple[Any, ...]) -> socket.socket:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if listener.family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has a socket of its own
    try:
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def _cannot_serve(reason: str) -> int:
    _console.print("[bold red]Cannot serve:[/]", escape(reason))
    return 1


def _settings(**options: Any) -> "Settings":
    from pydantic import ValidationError

    from service.settings import Settings

    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        faults = [f"UNDERSTUDY_{'__'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()]
        raise typer.BadParameter("; ".join(faults)) from None


def _warn_of_misspelt_variables() -> None:
    from service.settings import misspelt

    for line in misspelt(os.environ):
        _console.print("[yellow]Warning:[/]", escape(line))


def _announce(started: "Started") -> None:
    """Tell what is served, by what, and where."""
    import gc
    import logging

    gc.collect()
    gc.freeze()  # what is loaded stays: the collector need not look at it again and again
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    engine, settings = started.engine, started.settings
    url = f"http://{settings.address(settings.port)}"
    named = {f"{model.card.name} version {model.card.version}": model for model in started.models}
    width = max(map(len, named), default=0)
    for name, model in named.items():
        card = model.card
        members = f"{card.committee.members} members" if card.committee.members > 1 else "1 member"
        purpose = textwrap.shorten(card.purpose, PURPOSE_LETTERS, placeholder=" ...")
        _console.print(f"  {name:<{width}}  {members:<9}  {model.stored.digest[:12]}  {purpose}", markup=False)
    _console.print(f"Engine: {engine.description}, {engine.concurrency} calls at once")
    for line in started.doors:
        _console.print(line, markup=False)
    if settings.keys_file is not None:
        _console.print(f"Everything but health needs a key of {settings.keys_file}", markup=False)
    elif not settings.on_loopback:
        _console.print("Open to everyone who can reach this address: there are no keys")
    _console.print(f"Serving at {url}  (documentation: {url}/docs)")
