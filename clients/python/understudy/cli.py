"""The `understudy` command: `models` and `predict` here, more from other distributions (`understudy.plugins`)."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from understudy.choice import choose_model
from understudy.client import DEFAULT_URL, Client
from understudy.errors import UnderstudyError
from understudy.flows import MAX_STRUCTURES_A_CALL
from understudy.operator import AT_A_TERMINAL, AsJson, Url, console, models
from understudy.options import PredictOptions
from understudy.plugins import PluginGroup
from understudy.predictions import Prediction
from understudy.receipts import Receipt, read_receipt
from understudy.rock_command import permeability
from understudy.structures import Structure, as_structures, read_frames
from understudy.version import VERSION
from understudy.wire import Escalate, OnOutOfDomain, OptionalOutput, PredictionHead

app = typer.Typer(
    cls=PluginGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the client's version.")] = False) -> None:
    """Small fast stand-ins for expensive simulations: ask them, serve them, train them."""
    if version:
        typer.echo(VERSION)
        raise typer.Exit


app.add_typer(models, name="models")


@app.command()
def predict(
    file: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, help="Structures: xyz, extxyz, cif, ... (anything ASE reads)."),
    ],
    model: Annotated[str, typer.Option(help="Model to ask; by default the first one trained on such atoms.")] = "",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
    out: Annotated[Path | None, typer.Option(help="Write an extended XYZ file with all results.")] = None,
    forces_std: Annotated[bool, typer.Option(help="Also the committee's spread of each force component.")] = False,
    deterministic: Annotated[bool, typer.Option(help="Bitwise the same answer in every company.")] = False,
    on_out_of_domain: Annotated[
        OnOutOfDomain, typer.Option(help="Where the model was not trained: answer, flag the result, or refuse.")
    ] = "flag",
    model_digest: Annotated[
        str | None, typer.Option(help="Weights that must answer: digest or at least its first 12 digits.")
    ] = None,
    check_teacher: Annotated[bool, typer.Option(help="Also ask the model's teacher, and show the gap.")] = False,
    escalate: Annotated[
        Escalate, typer.Option(help="Structures that the teacher answers in place of the model.")
    ] = "never",
    timeout_s: Annotated[float, typer.Option(help="Seconds that one answer may take.", min=0.1)] = 120.0,
) -> None:
    """Energy, forces, committee standard deviation and domain verdict of every structure in a file."""
    frames = read_frames(file)
    structures, _ = as_structures(frames)
    with Client(url, timeout_s=timeout_s, retries=AT_A_TERMINAL) as client:
        name = model or _chosen(client, structures)
        with _progress(len(structures)) as advance:
            options = PredictOptions(
                outputs=["forces_std"] if forces_std else [],
                deterministic=deterministic,
                on_out_of_domain=on_out_of_domain,
                model_digest=model_digest,
                check="teacher" if check_teacher else None,
                escalate=escalate,
            )
            predictions = client.predict(name, structures, on_progress=advance, **options)
    if out is not None:
        _write(out, frames, predictions)
    if as_json:
        _print_json(_answer(predictions))
    else:
        _print_tables(structures, predictions)


@app.command()
def plan(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Structures.")],
    model: Annotated[str, typer.Option(help="Model; by default the first one trained on such atoms.")] = "",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
    forces_std: Annotated[bool, typer.Option(help="As for predict.")] = False,
    deterministic: Annotated[bool, typer.Option(help="As for predict.")] = False,
) -> None:
    """What a prediction would cost, and whether the model was trained for it: status 1 if it does not fit."""
    structures, _ = as_structures(file)
    with Client(url, retries=AT_A_TERMINAL) as client:
        name = model or _chosen(client, structures)
        outputs: list[OptionalOutput] = ["forces_std"] if forces_std else []
        planned = client.plan(name, structures, outputs=outputs, deterministic=deterministic)
    if as_json:
        _print_json(planned.model_dump())
    else:
        from understudy.tables import plan_text

        console().print(plan_text(planned))
    raise typer.Exit(not planned.fits)


@app.command()
def replay(
    receipt: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="JSON: a receipt, or a whole answer.")],
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The structures that were asked.")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Ask for the answer of a receipt again, and say whether it is the same: status 1 if it is not."""
    kept, results = read_receipt(receipt)
    with Client(url, retries=AT_A_TERMINAL) as client:
        report = client.replay(kept, file, results)
    if as_json:
        _print_json(report.model_dump())
    else:
        from understudy.tables import replay_text

        console().print(replay_text(kept, report))
    raise typer.Exit(report.verdict == "different")


app.command()(permeability)


def main() -> None:
    """Run the command; errors become one readable message and exit status 1."""
    try:
        app()
    except (UnderstudyError, OSError) as error:
        _complain(error)
        sys.exit(1)


def _chosen(client: Client, structures: Sequence[Structure]) -> str:
    choice = choose_model(client, structures)
    Console(stderr=True).print(Text(f"No --model given: {choice.reason}", "dim"))
    return choice.model


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar for a list that needs several calls."""
    if total <= MAX_STRUCTURES_A_CALL:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("structures"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("structures", total=total)
        yield lambda done, _: progress.update(task, completed=done)


def _write(out: Path, frames: Sequence[Any], predictions: Sequence[Prediction]) -> None:
    from understudy.files import write_extxyz

    write_extxyz(out, frames, predictions)
    written = "1 structure with its" if len(predictions) == 1 else f"{len(predictions)} structures with their"
    Console(stderr=True).print(Text(f"Wrote {written} results to {out}", "dim"))


def _answer(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """The shape of `POST /v1/predict/{model}`."""
    first = predictions[0]
    head = PredictionHead(
        model=first.model,
        version=first.version,
        digest=first.digest,
        units=dict(first.units),
        uncertainty=first.uncertainty,
        receipt=_joint_receipt([prediction.receipt for prediction in predictions]),
        results=[],
    )
    return {**head.model_dump(), "results": [prediction.to_dict() for prediction in predictions]}


def _joint_receipt(receipts: Sequence[Receipt | None]) -> Receipt | None:
    """One receipt for a file that went in several calls; none if they were not answered alike."""
    there = [receipt for receipt in receipts if receipt is not None]
    if len(there) < len(receipts) or len({receipt.digest for receipt in there}) > 1:
        return None
    return there[0].joined(there[1:])


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, allow_nan=False))


def _print_tables(structures: Sequence[Structure], predictions: Sequence[Prediction]) -> None:
    from understudy.tables import predictions_table

    console().print(predictions_table(structures, predictions))


def _complain(error: Exception) -> None:
    console = Console(stderr=True)
    detail = error.detail if isinstance(error, UnderstudyError) else str(error)
    console.print(Text.assemble(("Error: ", "bold red"), detail))
    if isinstance(error, UnderstudyError) and error.hint:
        console.print(Text(error.hint))
    if request_id := getattr(error, "request_id", None):
        console.print(Text(f"request {request_id}", "dim"))
