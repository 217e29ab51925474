"""The keys of tenants: a file of hashes, and tokens that are shown once and kept nowhere.

A token has 256 random bits, so that a plain SHA-256 hides it: there is nothing to guess, and no need for a slow hash.
The file is TOML, or JSON if its name says so, with a list `keys`; see `Key` for what each may hold.
"""

import hashlib
import hmac
import json
import os
import secrets
import time
import tomllib
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contract.errors import UnderstudyError
from service.tenants import Budget, Tenant

Role = Literal["user", "operator"]
LOOK_AGAIN_S: Final = 1.0
_PREFIX: Final = "us_"
_BYTES: Final = 32
_LONGEST: Final = 256
_log: Final = structlog.get_logger("keys")


class KeysFileError(UnderstudyError):
    """The keys file is missing, or not what it should be; says what and where, and never a hash."""


class Key(BaseModel):
    """One entry of the keys file."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    tenant: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="of the token, in hexadecimal", repr=False)]
    role: Role = Field("user", description="an operator may also read metrics and manage models")
    weight: float = Field(1.0, gt=0, le=1e6, description="share of the engine when others wait, relative to theirs")
    budget_slots_per_s: float | None = Field(None, gt=0, description="neighbour slots a second; none: any amount")
    burst_slots: float | None = Field(None, gt=0, description="what a rest can save up; by default a minute's worth")
    expires: date | None = Field(None, description="the last day on which the key is good, in UTC")

    def tenant_with_budget(self) -> Tenant:
        """For whom a request with this key is asked."""
        if self.budget_slots_per_s is None:
            return Tenant(self.tenant, self.weight)
        burst = self.burst_slots or 60.0 * self.budget_slots_per_s
        return Tenant(self.tenant, self.weight, Budget(self.budget_slots_per_s, burst))


class _KeysFile(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    keys: list[Key] = []


def new_token() -> str:
    """A token that nobody has seen."""
    return _PREFIX + secrets.token_urlsafe(_BYTES)


def hash_of(token: str) -> str:
    """What the keys file holds of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def read_keys(path: Path) -> list[Key]:
    """The entries of a keys file.

    Raises:
        KeysFileError: naming the file and what is wrong.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise KeysFileError(f"the keys file {path} cannot be read: {error}") from None
    try:
        held: Any = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        return _KeysFile.model_validate(held).keys
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise KeysFileError(f"the keys file {path} is wrong: {faults}") from None
    except ValueError as error:
        raise KeysFileError(f"the keys file {path} is not {path.suffix[1:] or 'TOML'}: {error}") from None


def add_key(path: Path, key: Key) -> None:
    """Append an entry to a keys file, or begin one that only its owner can read.

    Raises:
        KeysFileError: what is there is not a keys file.
    """
    there = read_keys(path) if path.exists() else []
    entry = key.model_dump(mode="json", exclude_defaults=True)
    if path.suffix == ".json":
        kept = [one.model_dump(mode="json", exclude_defaults=True) for one in there]
        _write(path, json.dumps({"keys": [*kept, entry]}, indent=2) + "\n", os.O_TRUNC)
    else:
        lines = [f"{name} = {json.dumps(value)}" for name, value in entry.items()]
        _write(path, "\n".join(["[[keys]]", *lines, "", ""]), os.O_APPEND)


def _write(path: Path, text: str, how: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | how, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


class KeyRing:
    """The keys of a file, which is read again when it has changed: a key that is taken out is soon refused.

    Args:
        path: of the file.
        clock: monotonic seconds.
        today: the date in UTC.

    Raises:
        KeysFileError: the file cannot be read; later changes that cannot be read are logged, and the old keys stay.
    """

    def __init__(
        self,
        path: Path,
        clock: Callable[[], float] = time.monotonic,
        today: Callable[[], date] = lambda: datetime.now(UTC).date(),
    ) -> None:
        self._path = path
        self._clock = clock
        self._today = today
        self._looked = clock()
        self._seen = _stamp(path)
        self._keys = [(key, key.tenant_with_budget()) for key in read_keys(path)]

    def find(self, token: str) -> tuple[Key, Tenant] | None:
        """The key and the tenant of a token, unless it is unknown or has expired; in a time that tells nothing."""
        self._look_again()
        asked = hash_of(token[:_LONGEST])
        found = None
        for key, tenant in self._keys:
            if hmac.compare_digest(key.sha256, asked):
                found = key, tenant
        if found is None or (found[0].expires is not None and self._today() > found[0].expires):
            return None
        return found

    def _look_again(self) -> None:
        now = self._clock()
        if now - self._looked < LOOK_AGAIN_S:
            return
        self._looked = now
        stamp = _stamp(self._path)
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            keys = read_keys(self._path)
        except KeysFileError as error:
            _log.error("keys file not read again", reason=str(error))
            return
        before = dict(self._keys)  # an entry that is as it was keeps what is left of its budget
        self._keys = [(key, before.get(key) or key.tenant_with_budget()) for key in keys]


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
