"""Branches in recipes: what would play the same twice, or nothing, and builders without their branches."""

import pytest

from coevo_jax.config.strict import ConfigError
from tests.config.test_recipe import load

PLAY = "{explore: {agent: a}}"
FAILED = "{branch: {agent: a, of: a, into: b, at: failed_turns}}"
OWN = "{branch: {agent: a, into: own, at: expert_turns}}"
SCORED = "{branch: {agent: s, of: own, into: rolled, at: turn_ends}}"


def recipe(*phases: str, sources: str) -> str:
    return f"[{', '.join([*phases, f'{{learn: {{agent: a, sources: [{sources}]}}}}'])}]"


VERIFIED = "{pairs: verified_branch, of: [a, b]}"
REFINED = "{pairs: step_and_outcome, of: [own, rolled]}"
SEGMENTS = "{imitate: beneficial_segments, of: [a, own], weight: 1}"
RIGHT = {
    "verified": recipe(PLAY, FAILED, sources=VERIFIED),
    "refined": recipe(OWN, SCORED, sources=REFINED),
    "segments": recipe(PLAY, OWN, sources=SEGMENTS),
    "another name": recipe(
        PLAY.replace("a}", "a, into: own}"),
        FAILED.replace("of: a", "of: own"),
        sources=VERIFIED.replace("a,", "own,"),
    ),
    "proposals": recipe(
        PLAY,
        "{branch: {agent: o, of: a, into: said, at: failed_turns, turns: 1}}",
        FAILED.replace("of: a", "of: [a, said]").replace("failed_turns", "agent_proposals"),
        sources=VERIFIED,
    ),
}
WRONG = {
    "no failures": (
        recipe(PLAY, FAILED.replace("of: a, ", ""), sources="{pairs: expert_over, of: b}"),
        r"recipe\.branch_b\.of: found no collection, expected one whose failures failed_turns leaves",
    ),
    "experts of a collection": (
        recipe(PLAY, OWN.replace("into", "of: a, into"), sources=SEGMENTS),
        r"recipe\.branch_own\.of does nothing: expert_turns leaves the experts",
    ),
    "the end of nothing": (
        recipe(
            OWN, SCORED.replace("of: own, ", "experts: false, "), sources="{pairs: expert_over, of: rolled}"
        ),
        r"recipe\.branch_rolled\.of: found no collection, and experts is false",
    ),
    "the same twice": (
        recipe(PLAY, FAILED.replace("into", "temperature: 0, samples: 2, into"), sources=VERIFIED),
        r"recipe\.branch_b\.samples 2 at temperature 0 are identical",
    ),
    "proposals of nobody": (
        recipe(PLAY, FAILED.replace("failed_turns", "agent_proposals"), sources=VERIFIED),
        r"recipe\.branch_b\.of: found a, expected a collection of branches beside the one that they leave",
    ),
    "branches without their failures": (
        recipe(PLAY, FAILED, sources=VERIFIED.replace("[a, b]", "b")),
        r"recipe\.learn_a\.verified_branch\.of: found b, expected a collection of branches beside",
    ),
    "failures without branches": (
        recipe(PLAY, FAILED, sources=VERIFIED.replace("[a, b]", "a")),
        r"recipe\.learn_a\.verified_branch\.of: found a, expected a collection of branches beside",
    ),
    "no roll-outs": (
        recipe(OWN, SCORED, sources=REFINED.replace("[own, rolled]", "own")),
        r"step_and_outcome\.of: found own, expected two: what branches at expert_turns, and roll-outs",
    ),
    "roll-outs first": (
        recipe(OWN, SCORED, sources=REFINED.replace("own, rolled", "rolled, own")),
        r"step_and_outcome\.of: found rolled, own, expected two",
    ),
    "roll-outs of others": (
        recipe(OWN, SCORED.replace("of: own, ", ""), sources=REFINED),
        r"step_and_outcome\.of: found own, rolled, expected two",
    ),
    "a gap of step rewards without steps": (
        recipe(OWN, SCORED, sources=REFINED.replace("of:", "only: outcomes, tau: 0.5, of:")),
        r"step_and_outcome\.tau does nothing: only is outcomes",
    ),
    "no states of experts": (
        recipe(PLAY, FAILED, sources=SEGMENTS.replace("own", "b")),
        r"beneficial_segments\.of: found a, b, expected one that branches at expert_turns",
    ),
    "experts whose turns are never learned": (
        recipe(PLAY, OWN, sources=SEGMENTS.replace("of:", "experts: true, beneficial: false, of:")),
        r"beneficial_segments\.experts does nothing: beneficial is false",
    ),
    "a threshold of no reward": (
        recipe(PLAY, FAILED, sources=VERIFIED.replace("of:", "threshold: 1.5, of:")),
        r"threshold: found 1\.5 \(number\), expected a value less than or equal to 1",
    ),
    "no pair of a failure": (
        recipe(PLAY, FAILED, sources=VERIFIED.replace("of:", "per_failure: 0, of:")),
        "per_failure: found 0",
    ),
    "no state": (recipe(PLAY, OWN.replace("into", "count: 0, into"), sources=SEGMENTS), "count: found 0"),
    "a turn before the first": (
        recipe(OWN, SCORED.replace("into", "first: -1, into"), sources=REFINED),
        "first: found -1",
    ),
    "a budget of explored tokens": (
        (recipe(PLAY, FAILED, sources=VERIFIED), "rounds: 1\nbudget: {explored_tokens: [100]}"),
        r"budget\.explored_tokens: found branch_b in the recipe",
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_recipe_is_read(name, tmp_path):
    load(tmp_path, RIGHT[name])


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_recipe_is_refused_with_the_reason(case, tmp_path):
    found, words = WRONG[case]
    text, more = found if isinstance(found, tuple) else (found, "")
    with pytest.raises(ConfigError, match=words) as caught:
        load(tmp_path, text, more=more)
    assert "own.yaml" in str(caught.value)
