"""The audit's rules are its own: no code that makes a method's pairs is within its reach."""

from tests.test_imports import SOURCES, WITNESSED, imports_of, inside

METHODS = "coevo_jax.methods"
# A config is read by code that the audit shares, and is refused where a builder is unknown or an option of it
# has the wrong type: for that, one module looks at the builders' signatures, and calls none of them. Another
# one asks which texts are marks, and a third which wordings tell a suggestion.
CHECKS_BUILDERS = {f"coevo_jax.config.check_{name}" for name in ("recipe", "marks", "hints")}


def test_neither_the_audit_nor_what_it_imports_imports_methods():
    own = set(inside("audit"))
    direct = {target for module in own for target in imports_of(module) if target in SOURCES}
    assert not CHECKS_BUILDERS & direct
    for module in own | direct:
        assert not any(target.startswith(METHODS) for target in imports_of(module)), module


def test_methods_are_reached_through_the_check_of_a_config_alone():
    reached = reach(set(inside("audit")), without=CHECKS_BUILDERS)
    parts = {module.removeprefix("coevo_jax.").split(".")[0] for module in reached}
    assert not parts & {*WITNESSED, "methods"}
    for one in CHECKS_BUILDERS:
        assert any(module.startswith(METHODS) for module in reach({one}, without=set()))


def reach(begun: set[str], without: set[str]) -> set[str]:
    """Every module that these import, directly or not, but for some and what only they import."""
    reached, waiting = set(begun), list(begun)
    while waiting:
        found = imports_of(waiting.pop()) & SOURCES.keys() - reached - without
        reached |= found
        waiting += found
    return reached
