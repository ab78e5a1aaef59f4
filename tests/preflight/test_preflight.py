"""What a preflight says of a small run on this machine's fake devices, and what it refuses."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import jax
import pytest
from rich.console import Console

from coevo_jax.commands.compile import main, parse
from coevo_jax.config.options import BudgetConfig, Config, LoraConfig, ModelConfig
from coevo_jax.config.reading import load_config
from coevo_jax.config.strict import ConfigError, validate
from coevo_jax.machine.chips import BY_NAME, find_machine, shape_of
from coevo_jax.machine.costs import adapter_weights, cost_of, whole_weights
from coevo_jax.models.lora import init_trained, plain
from coevo_jax.models.transformer import Transformer, init_params
from coevo_jax.preflight import fits
from coevo_jax.preflight.arrays import bytes_per_device
from coevo_jax.preflight.fits import largest_arrays, preflight, set_effort
from coevo_jax.preflight.plan import plan_programs
from coevo_jax.preflight.report import print_preflight, record, sharding_table
from coevo_jax.preflight.run_time import estimate_run, in_hours
from coevo_jax.preflight.table import open_page, write_table
from coevo_jax.report.markdown import read_rows
from tests.tiny import tiny_config, write_config

MESH = (
    *("mesh.data=2", "mesh.fsdp=2", "mesh.tensor=2", "rollout.tensor=2"),
    *("batch.rows=8", "batch.step_pairs=8"),
    *("model.num_layers=1", "model.attention=dense"),  # quick to compile
)
PLAYED = ("roll-out copy", "slots (KV cache)", "kept prefix")
CONFIGS = Path(__file__).parent.parent.parent / "configs"
BOUNDED = ("evaluate.tasks=0:10",)


@pytest.fixture(autouse=True, scope="module")
def compilation_cache():
    """The preflight turns JAX's stored programs off for its process."""
    before = jax.config.values["jax_enable_compilation_cache"]
    yield
    jax.config.update("jax_enable_compilation_cache", before)
    set_effort(quick=False)


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    config = tiny_config(tmp_path_factory.mktemp("tiny"), *MESH, *BOUNDED)
    machine = dataclasses.replace(find_machine(None), chip=BY_NAME["h100"], name="here")
    return preflight(config, machine)


def text_of(*printed) -> str:
    console = Console(file=io.StringIO(), width=200)
    for one in printed:
        console.print(one)
    return console.file.getvalue()


@pytest.mark.slow
def test_every_phase_has_its_programs_and_holds_both_agents(checked):
    names = {phase.phase.name: [one.program.name for one in phase.results] for phase in checked.phases}
    assert names == {
        "warm start": ["SFT step"],
        "roll-outs": ["roll-out copy", "prefill", "decode", "keep prefix", "put prefix"],
        "learning": ["reference scoring", "DPO microbatch", "DPO update"],
    }
    held = checked.phases[1].phase.resident
    assert set(held) == {
        *(f"{agent}: {part}" for agent in ("target", "failure") for part in ("parameters", "Adam's moments")),
        *(f"{lane}{part}" for lane in ("", "agent 2: ") for part in PLAYED),
    }


@pytest.mark.parametrize(("slots", "lanes"), [(16, 1), (64, 4)])
def test_lanes_of_a_cpu_hold_the_slots_between_them(slots, lanes, tmp_path):
    one = ("mesh.data=1", "mesh.fsdp=1", "mesh.tensor=1", "rollout.tensor=1", f"rollout.slots={slots}")
    plan = plan_programs(tiny_config(tmp_path, *MESH, *BOUNDED, *one), find_machine(None))
    held = plan.phases[1].resident
    own = [f"lane {number}: " if number > 1 else "" for number in range(1, lanes + 1)]
    expected = {f"{who}{lane}slots (KV cache)" for who in ("", "agent 2: ") for lane in own}
    assert {name for name in held if name.endswith("slots (KV cache)")} == expected
    assert {name for name in held if name.endswith("copy")} == {"roll-out copy", "agent 2: roll-out copy"}
    whole = jax.tree.map(lambda x: x.shape[0], held["slots (KV cache)"].cache.keys)
    assert set(whole) == {slots // lanes}


@pytest.mark.slow
def test_resident_bytes_are_those_of_the_arrays_that_a_run_has(checked):
    plan = checked.plan
    state = plan.learning.learner.init(0)
    device = plan.learning.mesh.devices.flat[0]

    def on_device(tree):
        shards = [shard for leaf in jax.tree.leaves(tree) for shard in leaf.addressable_shards]
        return sum(shard.data.nbytes for shard in shards if shard.device == device)

    resident = checked.phases[2].phase.resident
    assert bytes_per_device(resident["target: parameters"]) == on_device(state.params)
    assert bytes_per_device(resident["failure: Adam's moments"]) == on_device(state.opt_state)
    whole = sum(leaf.size * 4 for leaf in jax.tree.leaves(state.params))
    assert bytes_per_device(resident["target: parameters"]) < whole / 3.5  # four parts, norms on each device


def test_a_split_run_sends_something_and_a_single_device_nothing(checked, tmp_path):
    step = checked.result("DPO microbatch")
    kinds = {one.kind for one in step.traffic}
    assert "all-gather" in kinds and kinds & {"all-reduce", "reduce-scatter"}
    assert any(one.kind == "all-reduce" for one in checked.result("decode").traffic)
    alone = plan_programs(tiny_config(tmp_path), find_machine(None))
    assert alone.rollouts.mesh.size == 1


def test_what_does_not_fit_is_told_with_the_largest_arrays(checked):
    assert checked.fits
    small = dataclasses.replace(checked.plan.machine, memory=10_000)
    short = dataclasses.replace(checked, plan=dataclasses.replace(checked.plan, machine=small))
    assert not short.fits
    words = io.StringIO()
    print_preflight(short, Console(file=words, width=200))
    name, size = largest_arrays(checked.phases[1].phase)[0]
    assert name in words.getvalue() and "but there are 0.00" in words.getvalue()
    assert size == max(size for _, size in largest_arrays(checked.phases[1].phase))


@pytest.mark.parametrize(
    ("words", "gib"),
    [
        ("Ran out of memory in memory space hbm. Used 20.5G of 15.75G hbm.", 20.5),
        (
            "Ran out of memory on HBM, the total memory required for HLO temporaries (40.00G) exceeds "
            "available HBM (15.75G).",
            40,
        ),
    ],
)
def test_what_a_refused_program_needs_is_read_from_the_compilers_words(words, gib, checked):
    assert fits._used(words, checked.machine) == gib * 2**30


@pytest.mark.parametrize(
    ("hours", "words"), [(0.4, "0.4"), (0.0421, "0.042"), (9.96, "10"), (12.4, "12"), (34_567.0, "34,567")]
)
def test_few_hours_are_not_printed_as_none(hours, words):
    assert in_hours(hours) == words


def test_time_is_estimated_from_the_rates_of_a_known_chip(checked, tmp_path):
    step, run, chip = checked.result("DPO microbatch"), estimate_run(checked), checked.machine.chip
    assert step.seconds.compute == pytest.approx(step.cost.flops / 8 / chip.flops)
    assert step.seconds.memory == pytest.approx(step.cost.traffic / 8 / chip.bandwidth)
    assert step.seconds.links == pytest.approx(sum(one.wire_bytes for one in step.traffic) / chip.link)
    assert min(run.learning, run.warm_start, run.roll_outs, run.step) > 0
    assert run.chip_hours == pytest.approx(run.total * 8 / 3600)
    assert json.loads(json.dumps(record(checked)))["run"]["chip_hours"] == pytest.approx(run.chip_hours)
    rows = [(tmp_path / "tiny.yaml", checked)]
    open_page(tmp_path / "new.md")
    write_table(tmp_path / "new.md", rows)
    page = tmp_path / "page.md"
    page.write_text("Before.\n<!-- table:preflight -->\n| old |\n<!-- /table -->\nAfter.\n")
    open_page(page)
    write_table(page, rows)
    assert "| tiny | here (8) | yes |" in (tmp_path / "new.md").read_text()
    assert "| v5p | 95.74 | 459 |" in (tmp_path / "new.md").read_text()
    text = page.read_text()
    assert text.startswith("Before.\n") and text.endswith("<!-- /table -->\nAfter.\n")
    assert "| tiny | here (8) | yes |" in text and "old" not in text and "v5p" not in text
    write_table(page, [(tmp_path / "other.yaml", checked)])
    names = [cells[0] for cells in read_rows("preflight", page)]
    assert names == ["tiny", "other"]  # a row stays until its own config is checked again
    write_table(page, rows)
    assert read_rows("preflight", page)[0] == read_rows("preflight", tmp_path / "new.md")[0]
    assert len(read_rows("preflight", page)) == 2
    page.write_text("No place.\n")
    with pytest.raises(
        ConfigError, match=r"page\.md: has no place for a table: expected .*table:preflight -->"
    ):
        open_page(page)
    unknown = dataclasses.replace(checked.plan, machine=dataclasses.replace(checked.machine, chip=None))
    assert estimate_run(dataclasses.replace(checked, plan=unknown)) is None


def test_a_run_without_a_failure_agent_costs_what_is_left(checked):
    config = checked.plan.config
    both = estimate_run(checked)
    eto = estimate_run(
        checked.of(config.model_copy(update={"recipe": load_config(CONFIGS / "quickstart-eto.yaml").recipe}))
    )
    assert set(both.agents) == {"target", "failure"} and set(eto.agents) == {"target"}
    assert eto.agents["target"].roll_outs == both.agents["target"].roll_outs
    assert 0 < eto.agents["target"].learning < both.agents["target"].learning
    assert both.agents["failure"].roll_outs > both.agents["target"].roll_outs  # it explores twice a round
    target, failure = both.agents["target"], both.agents["failure"]
    played, learned = target.roll_outs + failure.roll_outs, target.learning + failure.learning
    assert both.total == both.warm_start + played + learned


def test_a_second_agent_costs_by_the_kinds_of_pairs_it_learns_from(checked):
    config = checked.plan.config

    def learning(*sources: dict[str, Any]) -> float:
        phases = [{"explore": {"agent": "target"}}, {"explore": {"agent": "failure"}}]
        phases += [{"learn": {"agent": name, "sources": sources}} for name in ("failure", "target")]
        recipe = validate(Config, {"recipe": phases}, "test").recipe
        run = estimate_run(checked.of(config.model_copy(update={"recipe": recipe})))
        assert run is not None
        return run.agents["failure"].learning

    over = {"pairs": "expert_over", "of": "failure"}
    among = {"pairs": "better_over_worse", "of": ["target", "failure"]}
    assert learning(over) == learning(among) > 0  # a pair of two each
    assert learning(over, among) > learning(among)


def test_a_run_that_a_budget_ends_has_no_estimate(checked):
    budget = BudgetConfig(pairs=(9,) * checked.plan.config.rounds)
    assert estimate_run(checked.of(checked.plan.config.model_copy(update={"budget": budget}))) is None


def test_demonstrations_and_pairs_share_one_program(checked):
    plan = checked.plan
    named = {one.name: one.compiled_as for phase in plan.phases for one in phase.programs}
    assert named["SFT step"] != named["DPO microbatch"]
    batch = plan.config.batch.model_copy(update={"step_demonstrations": 8})
    both = plan_programs(plan.config.model_copy(update={"batch": batch}), plan.machine)
    named = {one.name: one.compiled_as for phase in both.phases for one in phase.programs}
    assert named["SFT microbatch"] == named["DPO microbatch"] != ""


@pytest.mark.slow
@pytest.mark.parametrize("train_weak", [False, True])
def test_a_weak_model_beside_the_agent_is_resident_and_its_pass_is_counted(train_weak, tmp_path):
    """The plain step of the agent is not among the learning's programs: nothing takes one."""
    own = ("recipe=wmss", "agents={target: {}}", "model.num_layers=1", *BOUNDED)
    weak = f"recipe.learn_target.beside.train_weak={str(train_weak).lower()}"
    config = tiny_config(tmp_path, *own, weak)
    learned = preflight(config, find_machine(None)).phases[2]
    names = [one.program.name for one in learned.results]
    assert names == ["reference scoring", "entropies", "mixed step"]
    parts = ("parameters", "Adam's moments")[: 2 if train_weak else 1]
    assert set(learned.phase.resident) >= {f"weak model: {part}" for part in parts}
    step = learned.results[-1].program
    assert set(step.holds) >= {f"weak model: {part}" for part in parts}
    vocab = config.tokenizer.vocab_size
    alone, score = (cost_of(work, config, vocab, trained="all").flops for work in ("train", "score"))
    wanted = 2 * alone if train_weak else alone + score
    assert cost_of(step.work, config, vocab, trained="all").flops == pytest.approx(wanted)


def test_sharding_is_printed_with_every_array(checked):
    text = text_of(sharding_table(checked.plan))
    assert "layers/gate" in text and "fsdp, tensor" in text and "data 2 x fsdp 2 x tensor 2" in text
    assert "slots (KV cache)" in text and "roll-out copy" in text


@pytest.mark.parametrize("tied", [True, False])
def test_counted_weights_are_those_of_the_parameter_tree(tied):
    lora = LoraConfig(rank=4, target_modules=("query", "down"))
    model = ModelConfig(num_kv_heads=2, tie_embeddings=tied, lora=lora)
    boxed = jax.eval_shape(lambda: init_params(plain(Transformer(model, 500)), jax.random.key(0)))
    boxes = jax.tree.leaves(boxed, is_leaf=lambda x: hasattr(x, "names"))
    sizes = [box.value.size for box in boxes if "norm" not in box.names]
    assert whole_weights(model, 500) == sum(sizes)
    adapters = jax.eval_shape(lambda: init_trained(Transformer(model, 500), jax.random.key(0)))
    assert adapter_weights(model) == sum(leaf.size for leaf in jax.tree.leaves(adapters))


def test_counted_operations_are_the_compilers_where_nothing_is_in_a_loop(tmp_path):
    """One layer, dense attention and a head of one chunk: the compiler's own figure is right there."""
    wide = (
        "model.hidden_size=512",
        "model.intermediate_size=1024",
    )  # norms count little
    config = tiny_config(tmp_path, "model.num_layers=1", "model.attention=dense", "batch.rows=1", *wide)
    plan = plan_programs(config, find_machine(None))
    program = next(p for phase in plan.phases for p in phase.programs if p.name == "reference scoring")
    found = program.lower().compile().cost_analysis()["flops"]
    counted = cost_of("score", plan.config, plan.vocab_size).flops
    assert counted == pytest.approx(found, rel=0.05)


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ("v5x:4x4", "no chip 'v5x' is known.*did you mean"),
        ("v5e:3x5", "no slice '3x5' of v5e exists; there are 1x1, 2x2"),
        ("v5e", "no slice '' of v5e exists"),
        ("v5p:4x4", "no slice '4x4' of v5p exists"),
        ("h100:3", "no slice '3' of h100 exists; there are 1, 2, 4, 8, 2x8"),
    ],
)
def test_a_topology_that_does_not_exist_is_refused(topology, message):
    with pytest.raises(ConfigError, match=message):
        find_machine(topology)


def test_a_slice_is_found_by_its_devices():
    assert shape_of("v4", 16) == shape_of("v5p", 16) == "2x2x4"
    assert shape_of("tpu7x", 16) == "2x2x2", "two devices a chip"
    assert (BY_NAME["tpu7x"].devices, BY_NAME["v4"].devices) == (2, 1)


def test_a_mesh_that_is_not_the_machine_is_refused(tmp_path):
    arguments = [str(write_config(tmp_path)), "--topology", "h100:4", "mesh.fsdp=2"]
    with pytest.raises(ConfigError, match="1 x 2 x 1 = 2 devices, but h100:4 has 4"):
        main(arguments)


def test_several_configs_need_a_table(tmp_path):
    with pytest.raises(ConfigError, match="found 2 config files, expected one"):
        parse(["a.yaml", "b.yaml"])
