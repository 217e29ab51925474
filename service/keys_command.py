"""`understudy key`: make and list the keys of tenants."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

key = typer.Typer(help="Keys of the tenants of a gateway: make one, list them.", no_args_is_help=True)
KeysFile = Annotated[
    Path, typer.Option("--file", envvar="UNDERSTUDY_KEYS_FILE", help="The keys file, TOML or JSON.", dir_okay=False)
]
_console = Console(stderr=True, highlight=False, soft_wrap=True)


@key.command("new")
def new_key(
    tenant: Annotated[str, typer.Argument(help="Who shares the gateway: a group, a person, a program.")],
    file: KeysFile = Path("keys.toml"),
    operator: Annotated[bool, typer.Option("--operator", help="May also read metrics and manage models.")] = False,
    weight: Annotated[float, typer.Option(help="Share of the engine, relative to the others'.")] = 1.0,
    budget: Annotated[float | None, typer.Option(help="Neighbour slots a second; any amount by default.")] = None,
    expires: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The last day on which it is good, in UTC.")
    ] = None,
) -> None:
    """Make a key, write its hash into the keys file, and print it: once, for it is kept nowhere."""
    from pydantic import ValidationError

    from service.keys import Key, KeysFileError, add_key, hash_of, new_token

    token = new_token()
    try:
        entry = Key(
            tenant=tenant,
            sha256=hash_of(token),
            role="operator" if operator else "user",
            weight=weight,
            budget_slots_per_s=budget,
            expires=expires and expires.date(),
        )
        add_key(file, entry)
    except ValidationError as error:
        raise typer.BadParameter("; ".join(f"{e['loc'][0]}: {e['msg']}" for e in error.errors())) from None
    except (KeysFileError, OSError) as error:
        _console.print("[bold red]No key made:[/]", escape(str(error)))
        raise typer.Exit(1) from None
    _console.print(f"A key of {entry.role} '{tenant}', its hash in {file}. It is shown only now:", markup=False)
    typer.echo(token)


@key.command("list")
def list_keys(file: KeysFile = Path("keys.toml")) -> None:
    """The entries of the keys file, without their hashes; to revoke a key, take its entry out."""
    from rich.table import Table

    from service.keys import KeysFileError, read_keys

    try:
        keys = read_keys(file)
    except KeysFileError as error:
        _console.print("[bold red]No keys:[/]", escape(str(error)))
        raise typer.Exit(1) from None
    table = Table("tenant", "role", "weight", "slots a second", "expires", "SHA-256 begins with")
    for one in keys:
        budget = "" if one.budget_slots_per_s is None else f"{one.budget_slots_per_s:g}"
        expires = "" if one.expires is None else one.expires.isoformat()
        table.add_row(one.tenant, one.role, f"{one.weight:g}", budget, expires, one.sha256[:8])
    Console().print(table)
