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


SEARCH = "{branch: {agent: a, of: a, into: tree, at: promising_nodes, samples: 2, iterations: 3}}"
JUDGE = "{ask: {agent: a, of: [a, tree], question: good_or_bad, into: said}}"
REVISED = "{imitate: revisions, of: [a, tree, said], weight: 1}"
BY_REWARD = "{imitate: revisions, of: [a, tree], transition: reward, weight: 1}"
SEARCHED = {
    "by the actor": recipe(PLAY, SEARCH, JUDGE, sources=REVISED),
    "by reward, of samples of a task alone": (
        recipe(PLAY, sources=BY_REWARD.replace("[a, tree]", "a")),
        "explore: {samples: 2}",
    ),
    "thresholds of its own": recipe(
        PLAY,
        SEARCH,
        JUDGE.replace("into", "alpha: [0.3], beta: 0, into"),
        sources=REVISED.replace("weight", "alpha: [0.3], beta: 0, weight"),
    ),
    "too long to be cut": (recipe(PLAY, SEARCH, sources=BY_REWARD), "batch: {too_long: cut}"),
}
NOT_SEARCHED = {
    "no episodes to begin trees": (
        recipe(PLAY, SEARCH.replace("of: a, ", ""), sources=BY_REWARD),
        r"recipe\.branch_tree\.of: found no collection, expected one whose episodes begin the trees",
    ),
    "turns that end no episode": (
        recipe(PLAY, SEARCH.replace("samples", "turns: 1, samples"), sources=BY_REWARD),
        r"branch_tree\.turns 1: a search values states by how episodes end",
    ),
    "a greedy search": (
        recipe(PLAY, SEARCH.replace("samples: 2", "samples: 1, temperature: 0"), sources=BY_REWARD),
        r"branch_tree: at temperature 0 the agent does at every state what it has done",
    ),
    "the same points again and again": (
        recipe(PLAY, FAILED.replace("into", "iterations: 2, into"), sources=VERIFIED),
        r"branch_b\.iterations 2 do nothing new: failed_turns chooses the same points each time",
    ),
    "no iteration": (
        recipe(PLAY, SEARCH.replace("iterations: 3", "iterations: 0"), sources=BY_REWARD),
        "iterations: found 0",
    ),
    "no verdicts": (
        recipe(PLAY, SEARCH, sources=REVISED.replace(", said", "")),
        r"revisions\.of: found the answers none, expected those of one phase that asks good_or_bad",
    ),
    "verdicts that are not read": (
        recipe(PLAY, SEARCH, JUDGE, sources=BY_REWARD.replace("tree]", "tree, said]")),
        r"revisions\.of: said does nothing: transition is reward",
    ),
    "answers to another question": (
        recipe(
            PLAY,
            OWN,
            SEARCH,
            "{ask: {agent: a, of: own, question: why_expert, into: said}}",
            sources=REVISED,
        ),
        r"revisions\.of: said answer why_expert, expected good_or_bad",
    ),
    "verdicts about other episodes": (
        recipe(PLAY, SEARCH, JUDGE.replace("[a, tree]", "tree"), sources=REVISED),
        r"revisions\.of: found a, tree beside verdicts about tree, expected the same collections",
    ),
    "verdicts about other pairs": (
        recipe(PLAY, SEARCH, JUDGE, sources=REVISED.replace("weight", "alpha: [0.3], weight")),
        r"revisions\.alpha: found \[0\.3\], and said are about pairs by \(0\.5, 0\.7, 1\.0\)",
    ),
    "a threshold of nothing": (
        recipe(PLAY, SEARCH, JUDGE, sources=REVISED.replace("weight", "threshold: 0.4, weight")),
        r"revisions\.threshold does nothing: transition is actor",
    ),
    "one episode of a task": (
        recipe(PLAY, sources=BY_REWARD.replace("[a, tree]", "a")),
        r"revisions needs two episodes of a task: explore\.samples is 1",
    ),
    "questions about one episode of a task": (
        recipe(PLAY, JUDGE.replace("[a, tree]", "a"), sources=REVISED.replace("a, tree", "a")),
        r"ask_said\.good_or_bad needs two episodes of a task",
    ),
    "no thought": (
        recipe(PLAY, SEARCH, sources=BY_REWARD.replace("weight", "thoughts: [], weight")),
        "thoughts",
    ),
    "a threshold above every reward": (
        recipe(PLAY, SEARCH, sources=BY_REWARD.replace("weight", "alpha: [0.5, 1.5], weight")),
        r"alpha\[1\]: found 1\.5",
    ),
    "answers of which good paths make nothing": (
        recipe(PLAY, SEARCH, JUDGE, sources="{imitate: good_paths, of: [tree, said], weight: 1}"),
        r"good_paths\.of: said are answers, of which it makes nothing",
    ),
}


@pytest.mark.parametrize("name", SEARCHED)
def test_a_right_search_is_read(name, tmp_path):
    found = SEARCHED[name]
    text, more = found if isinstance(found, tuple) else (found, "")
    load(tmp_path, text, more=more)


@pytest.mark.parametrize("case", NOT_SEARCHED)
def test_a_wrong_search_is_refused_with_the_reason(case, tmp_path):
    text, words = NOT_SEARCHED[case]
    with pytest.raises(ConfigError, match=words):
        load(tmp_path, text)
