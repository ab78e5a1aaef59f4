"""A made-up ALFWorld download: kitchens of three receptacles as real .tw-pddl games in its layout."""

import json
from pathlib import Path

DOMAIN = """
(define (domain kitchen)
 (:requirements :adl :typing)
 (:types agent location receptacle object)
 (:predicates
    (atLocation ?a - agent ?l - location)
    (receptacleAtLocation ?r - receptacle ?l - location)
    (openable ?r - receptacle)
    (opened ?r - receptacle)
    (inReceptacle ?o - object ?r - receptacle)
    (holds ?a - agent ?o - object)
    (holdsAny ?a - agent)
    (washer ?r - receptacle)
    (isClean ?o - object)
    (seen ?a - agent))
 (:action look
    :parameters (?a - agent)
    :precondition ()
    :effect (seen ?a))
 (:action GotoLocation
    :parameters (?a - agent ?from - location ?to - location ?r - receptacle)
    :precondition (and (atLocation ?a ?from) (receptacleAtLocation ?r ?to))
    :effect (and (not (atLocation ?a ?from)) (atLocation ?a ?to)))
 (:action OpenObject
    :parameters (?a - agent ?l - location ?r - receptacle)
    :precondition (and (openable ?r) (not (opened ?r)) (atLocation ?a ?l) (receptacleAtLocation ?r ?l))
    :effect (opened ?r))
 (:action PickupObject
    :parameters (?a - agent ?l - location ?o - object ?r - receptacle)
    :precondition (and (atLocation ?a ?l) (receptacleAtLocation ?r ?l) (inReceptacle ?o ?r)
                       (not (holdsAny ?a)) (or (not (openable ?r)) (opened ?r)))
    :effect (and (not (inReceptacle ?o ?r)) (holds ?a ?o) (holdsAny ?a)))
 (:action PutObject
    :parameters (?a - agent ?l - location ?o - object ?r - receptacle)
    :precondition (and (holds ?a ?o) (atLocation ?a ?l) (receptacleAtLocation ?r ?l)
                       (or (not (openable ?r)) (opened ?r)))
    :effect (and (inReceptacle ?o ?r) (not (holds ?a ?o)) (not (holdsAny ?a))))
 (:action CleanObject
    :parameters (?a - agent ?l - location ?o - object ?r - receptacle)
    :precondition (and (holds ?a ?o) (washer ?r) (atLocation ?a ?l) (receptacleAtLocation ?r ?l))
    :effect (isClean ?o))
)
"""

GRAMMAR = '''
grammar :: """
    {
        "intro": [{"rhs": "-= Welcome to TextWorld, ALFRED! =-\\n\\n#room#\\n\\nYour task is to: GOAL."}],
        "room": [{"rhs": "You see [{#thing(r)# | receptacleatlocation(r:receptacle, l:location)}]."}],
        "thing(r)": [{"rhs": "{r.indefinite} {r.name}"}],
        "go": [{"rhs": "You arrive at {r.name}. #inside#"}],
        "open": [{"rhs": "You open the {r.name}. #inside#"}],
        "take": [{"rhs": "You pick up the {o.name} from the {r.name}."}],
        "put": [{"rhs": "You move the {o.name} to the {r.name}."}],
        "clean": [{"rhs": "You clean the {o.name} using the {r.name}."}],
        "inside": [
            {
                "condition": "openable(r:receptacle) & opened(r:receptacle)",
                "rhs": "In it is [{o.indefinite + ' ' + o.name | inreceptacle(o:object, r:receptacle)}]."
            },
            {"condition": "openable(r:receptacle)", "rhs": "The {r.name} is closed."},
            {"rhs": "In it is [{o.indefinite + ' ' + o.name | inreceptacle(o:object, r:receptacle)}]."}
        ],
        "list_empty": [{"rhs": "nothing"}],
        "list_separator": [{"rhs": ", "}],
        "list_last_separator": [{"rhs": ", and "}]
    }
""";

action look { template :: "look"; feedback :: "#room#"; }
action GotoLocation {
    template :: "go to [{r.name | receptacleatlocation(r:receptacle, to:location)}]";
    feedback :: "#go#";
}
action OpenObject { template :: "open {r}"; feedback :: "#open#"; }
action PickupObject { template :: "take {o} from {r}"; feedback :: "#take#"; }
action PutObject { template :: "move {o} to {r}"; feedback :: "#put#"; }
action CleanObject { template :: "clean {o} with {r}"; feedback :: "#clean#"; }
'''

PROBLEM = """
(define (problem kitchen-1) (:domain kitchen)
 (:objects
    agent1 - agent
    start table_at fridge_at sink_at - location
    table_bar_1 fridge_bar_1 sink_bar_1_bar_sinkbasin - receptacle
    OBJECTS - object)
 (:init
    (atLocation agent1 start)
    (receptacleAtLocation table_bar_1 table_at)
    (receptacleAtLocation fridge_bar_1 fridge_at)
    (receptacleAtLocation sink_bar_1_bar_sinkbasin sink_at)
    (openable fridge_bar_1)
    (washer sink_bar_1_bar_sinkbasin)
    PLACES)
 (:goal (and TARGET))
)
"""

FAMILIES = ("pick_and_place_simple", "pick_clean_then_place_in_recep")


def write_game(
    folder: Path, family: str, *, walkthrough: list[str] | None = None, solvable: bool = True
) -> None:
    """Write game.tw-pddl and traj_data.json: an apple in the fridge belongs, perhaps clean, on the table."""
    clean = "(isClean apple_bar_1)" if family == FAMILIES[1] else ""
    problem = PROBLEM.replace("OBJECTS", "apple_bar_1 apple_bar_2 mug_bar_1")
    problem = problem.replace(
        "PLACES",
        "(inReceptacle apple_bar_1 fridge_bar_1) (inReceptacle mug_bar_1 fridge_bar_1) "
        "(inReceptacle apple_bar_2 sink_bar_1_bar_sinkbasin)",
    ).replace("TARGET", f"(inReceptacle apple_bar_1 table_bar_1) {clean}")
    goal = f"put {'a clean' if clean else 'the cold'} apple on the table"
    game = {
        "pddl_domain": DOMAIN,
        "grammar": GRAMMAR.replace("GOAL", goal),
        "pddl_problem": problem,
        "solvable": solvable,
    }
    folder.mkdir(parents=True)
    (folder / "game.tw-pddl").write_text(json.dumps(game | {"walkthrough": walkthrough}))
    (folder / "traj_data.json").write_text(json.dumps({"task_type": family}))


def write_download(root: Path) -> Path:
    """A whole download: two families in every split, and games that are left out."""
    for split in ("train", "valid_seen", "valid_unseen"):
        for family in FAMILIES:
            write_game(root / split / f"{family}-Apple-None-Table-1" / "trial_1", family)
    write_game(root / "train" / "pick_and_place_simple-ButterSliced-1" / "trial_1", FAMILIES[0])
    write_game(root / "train" / "pick_and_place_simple-Mug-1" / "trial_1", FAMILIES[0], solvable=False)
    return root
