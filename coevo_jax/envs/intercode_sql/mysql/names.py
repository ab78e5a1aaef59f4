"""What names mean in GROUP BY, HAVING and ORDER BY, where aliases and places of the select list count."""

from typing import TYPE_CHECKING

from coevo_jax.envs.intercode_sql.mysql import errors, nodes
from coevo_jax.envs.intercode_sql.mysql.terms import Term
from coevo_jax.envs.intercode_sql.sqlite_sandbox import SqlError

if TYPE_CHECKING:
    from coevo_jax.envs.intercode_sql.mysql.binding import Binder


def order_term(binder: "Binder", node: nodes.Node, ordering: bool) -> Term:
    """The term of ORDER BY or GROUP BY: a place, an alias, a column, or an expression."""
    scope = binder.scope
    if isinstance(node, nodes.Literal) and node.kind == "int":
        if not 1 <= node.value <= len(scope.items):
            raise errors.unknown_column(str(node.value), scope.place)
        return scope.items[node.value - 1][1]
    if ordering and isinstance(node, nodes.Name) and (found := _selected(binder, node)) is not None:
        return found
    return binder.bind_scalar(node)


def _selected(binder: "Binder", node: nodes.Name) -> Term | None:
    """The item of the select list that a name means, by its alias or its column."""
    scope = binder.scope
    matches: list[Term] = []
    qualified = len(node.parts) > 1
    for name, term in scope.items:
        if name.lower() != node.parts[-1].lower():
            continue
        if qualified and (term.column is None or term.column not in scope.find(node.parts)):
            continue
        if not any(term.key == other.key for other in matches):
            matches.append(term)
    if len(matches) > 1:
        raise SqlError(f"Column '{node.written}' in {scope.place} is ambiguous")
    return matches[0] if matches else None


def having_column(binder: "Binder", parts: tuple[str, ...]) -> Term | None:
    """The term of a name in HAVING: an item of the select list, or a grouped column."""
    scope = binder.scope
    grouped = [term for term in scope.grouped if term.column is not None and term.column in scope.find(parts)]
    item = _selected(binder, nodes.Name(parts))
    return grouped[0] if grouped else item
