"""Which model to ask when the user named none: the first one that was trained on such atoms."""

from collections.abc import Sequence
from dataclasses import dataclass

from understudy.client import Client
from understudy.elements import hill_formula, symbols
from understudy.errors import AmbiguousModel
from understudy.structures import Structure
from understudy.wire import ModelSummary


@dataclass(frozen=True, slots=True)
class Choice:
    """A model, and why it was taken, as a sentence for the user."""

    model: str
    reason: str


def choose_model(client: Client, structures: Sequence[Structure]) -> Choice:
    """The first served potential whose elements, and compositions where its card names some, cover all structures.

    Raises:
        AmbiguousModel: none does, and there is more than one (or none at all).
    """
    served = [m for m in client.models() if m.family == "potential"]
    if len(served) == 1:
        return Choice(served[0].name, f"'{served[0].name}' is the only potential served here.")
    elements = set().union(*(symbols(s.numbers) for s in structures))
    formulas = {hill_formula(s.numbers) for s in structures}
    fitting = [m for m in served if elements <= set(m.elements) and formulas <= _formulas(client, m, formulas)]
    if not fitting:
        raise _none_fits(served, elements, formulas)
    others = ", ".join(f"'{m.name}'" for m in fitting[1:])
    also = f"; so were {others}: choose with --model" if others else ""
    return Choice(fitting[0].name, f"'{fitting[0].name}' was trained on {_list(formulas)}{also}.")


def _formulas(client: Client, model: ModelSummary, wanted: set[str]) -> set[str]:
    """The compositions a model was trained on; the wanted ones where any composition of its elements goes."""
    stated = model.formulas
    if stated is None:
        domain = client.card(model.name).get("domain")
        stated = domain.get("formulas") if isinstance(domain, dict) else None
    return wanted if stated is None else set(stated)


def _none_fits(served: Sequence[ModelSummary], elements: set[str], formulas: set[str]) -> AmbiguousModel:
    if not served:
        return AmbiguousModel("The gateway serves no potential.", hint="Ask who runs it, or 'understudy models'.")
    names = [m.name for m in served]
    return AmbiguousModel(
        f"None of the {len(names)} served potentials was trained on {_list(formulas)}.",
        hint=f"Choose one with --model to get its answer with a warning: {', '.join(names)}.",
        facts={"models": names, "elements": sorted(elements)},
    )


def _list(formulas: set[str]) -> str:
    named = sorted(formulas)
    return ", ".join(named[:3]) + (f" and {len(named) - 3} more compositions" if len(named) > 3 else "")
