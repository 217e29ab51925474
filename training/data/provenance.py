"""Where labels come from: what a person must declare of a file, and what is read off the file itself."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from contract.card import DataSource
from contract.repository import sha256_of


class Provenance(BaseModel):
    """What no file says of itself and nobody may guess."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    origin: str = Field(min_length=1, description="URL or DOI")
    licence: str = Field(min_length=1, description="SPDX identifier where there is one")
    level_of_theory: str = Field(min_length=1)
    citation: str = Field(min_length=1)

    def source(self, path: Path, count: int, notes: str = "") -> DataSource:
        """The model card's entry for a file: this declaration, the file's sha256 and how many frames it gave."""
        return DataSource(**self.model_dump(), sha256=sha256_of(path), count=count, notes=notes)
