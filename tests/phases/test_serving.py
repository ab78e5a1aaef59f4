"""Servers in a run: how they get each phase's weights, what is refused, and what a run through one gives."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import flax.linen as nn
import jax
import numpy as np
import pytest

from coevo_jax.coevolution import coevolve
from coevo_jax.commands.cli import run_command
from coevo_jax.commands.train import main
from coevo_jax.config.options import Config, MeshConfig
from coevo_jax.config.reading import load_config
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.chat.tokenizer import load_tokenizer, save_tokenizer
from coevo_jax.data.parquet import read_trajectories
from coevo_jax.learning.programs import learner_of
from coevo_jax.learning.train_state import Agents
from coevo_jax.models.lora import init_trained, whole_params
from coevo_jax.models.transformer import Transformer
from coevo_jax.phases.serving import FOLDER, check_server, serve
from coevo_jax.phases.world import BACKBONE_DIR, TOKENIZER_DIR
from coevo_jax.rollout.endpoint import Endpoint, Served, probe
from coevo_jax.run_folder.manifest import read_manifest
from coevo_jax.run_folder.metrics import read_metrics
from coevo_jax.run_folder.run import create_run
from coevo_jax.sharding import make_mesh
from coevo_jax.trajectory import Ending
from tests.fresh import fresh_params
from tests.measured import results
from tests.rollout.stub_server import Stub, StubServer, stub_of
from tests.test_backbone_run import EMBEDDED, backbone, config_on
from tests.tiny import tiny_config

pytestmark = pytest.mark.usefixtures("letters")

CONFIGS = Path(__file__).parents[2] / "configs"
LORA = "model.lora={rank: 2, warm_start: adapter}"
LENGTH = 192


def through(load: str, url: str, *more: str) -> list[str]:
    """Overrides of a config that explores through a server."""
    server = "".join([f"url: '{url}', load: {load}", *(f", {one}" for one in more)])
    return ["rollout.joining=as_ready", f"rollout.server={{{server}}}"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return backbone(tmp_path_factory.mktemp("qwen") / "base", "qwen3", "qwen3")


@pytest.fixture(scope="module")
def running(folder):
    with StubServer(stub_of(folder, LENGTH)) as server:
        yield server, server.stub.params


@pytest.fixture
def server(running):
    """The one server of the module, as new."""
    server, base = running
    stub = server.stub
    stub.params, stub.longest, stub.served_name, stub.dynamic = base, LENGTH, "base", True
    stub.edit, stub.keeps_head = lambda answer: answer, False
    for kept in (stub.asked, stub.posted, stub.plan, stub.adapters, stub.roots):
        kept.clear()
    return server


def at_a_phase(config: Config, home: Path, folder: Path, base, seed: int):
    """What `serve` needs of a run and its world, with two agents that are random adapters of `base`."""
    model = Transformer(config.model, EMBEDDED)
    if not home.exists():
        (home / BACKBONE_DIR).mkdir(parents=True)
        shutil.copy(folder / "config.json", home / BACKBONE_DIR)
        save_tokenizer(load_tokenizer(folder), home / TOKENIZER_DIR)
    shapes = nn.unbox(jax.eval_shape(lambda: init_trained(model, jax.random.key(0))))

    def agent(number):
        rng = np.random.default_rng(number)
        return jax.tree.map(lambda x: 0.1 * rng.normal(size=x.shape).astype(np.float32), shapes)

    states: Any = {
        name: SimpleNamespace(params=agent(seed + i)) for i, name in enumerate(("target", "failure"))
    }
    run = SimpleNamespace(config=config, folder=home, manifest=SimpleNamespace(checkpoint=3))
    mesh = make_mesh(MeshConfig())
    world = SimpleNamespace(
        learner=learner_of(model, config.optimizer, mesh),
        mesh=mesh,
        experts={},
        chat=SimpleNamespace(pad_id=0),
    )
    return run, world, Agents(states=states, frozen=base)


@pytest.fixture
def without_export(monkeypatch):
    """Agents are folders without weights: for what fails before anybody reads them."""
    monkeypatch.setattr(
        "coevo_jax.phases.serving.write_agent", lambda run, config, stored, out, **form: out.mkdir()
    )


def whole(config, agents: Agents, agent: str):
    return whole_params(agents[agent].params, agents.frozen, config.model)


def assert_close(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), dict(found), dict(expected))


@pytest.mark.slow
def test_vllm_gets_adapters_beside_each_other_and_lets_go_of_the_last_phases(server, folder, tmp_path):
    base = server.stub.params
    config = config_on(tmp_path, folder, LORA, *through("vllm_lora", server.url))
    check_server(config)
    stub: Stub = server.stub
    for seed in (1, 5):  # two phases
        run, world, agents = at_a_phase(config, tmp_path / "run", folder, base, seed)
        names = [serve(run, world, agents, agent).model for agent in ("target", "failure")]
        assert set(stub.adapters) == set(names) and names[0].startswith("tiny-target-")
        for name, agent in zip(names, ("target", "failure"), strict=True):
            assert_close(stub.adapters[name]["layers"], whole(config, agents, agent)["layers"])
        assert len(list((tmp_path / "run" / FOLDER).iterdir())) == 2
    posted = [path for path, _ in stub.posted]
    assert posted.count("/v1/load_lora_adapter") == 4 and posted.count("/v1/unload_lora_adapter") == 2
    loaded = [body["lora_name"] for path, body in stub.posted if path == "/v1/load_lora_adapter"]
    assert len(set(loaded)) == 4  # the server's prefix cache may go by the name


@pytest.mark.slow
@pytest.mark.parametrize("load", ["sglang", pytest.param("vllm", marks=pytest.mark.slow)])
def test_a_server_gets_all_weights_in_the_models_type(load, server, folder, tmp_path):
    alone = "explore.together=false"
    config = config_on(tmp_path, folder, LORA, alone, *through(load, server.url))
    run, world, agents = at_a_phase(config, tmp_path / "run", folder, server.stub.params, 1)
    for agent in ("target", "failure"):
        served = serve(run, world, agents, agent)
        assert_close(server.stub.params, whole(config, agents, agent))
        if load == "sglang":  # serves the weights under the folder's name from then on
            assert Path(served.model).parent == tmp_path / "run" / FOLDER
    posted = {"vllm": ["/collective_rpc", "/reset_prefix_cache"], "sglang": ["/update_weights_from_disk"]}
    assert [path for path, _ in server.stub.posted] == posted[load] * 2


@pytest.mark.slow
def test_a_transfer_is_believed_only_where_the_servers_numbers_are_the_learners(server, folder, tmp_path):
    """A server that keeps its output head, one with another base, and one that rounds as another type."""
    alone = "explore.together=false"
    base = server.stub.params
    for load, words in (
        ("vllm", "--dtype float32"),
        ("vllm_lora", "base is not"),
        ("sglang", "--dtype float32"),
    ):
        config = config_on(tmp_path, folder, LORA, alone, *through(load, server.url))
        run, world, agents = at_a_phase(config, tmp_path / "run", folder, base, 1)
        if load == "vllm":
            server.stub.keeps_head, server.stub.params = True, base | {"embedding": 1.5 * base["embedding"]}
        elif load == "vllm_lora":
            server.stub.keeps_head, server.stub.params = False, jax.tree.map(lambda x: 1.1 * x, base)
        else:
            server.stub.edit = rounded
        server.stub.weights.clear()
        with pytest.raises(ConfigError, match=f"differ from the learner's by up to .* nats.*{words}"):
            serve(run, world, agents, "target")


def rounded(answer):
    """Log-probabilities as those of a server that computes in bfloat16 where the run does in float32."""
    logps = answer["choices"][0]["logprobs"]
    logps["token_logprobs"] = [1.01 * one for one in logps["token_logprobs"]]
    return answer


@pytest.mark.parametrize(
    ("load", "words"),
    [
        ("vllm_lora", "load_lora_adapter: .*HTTP 404.*VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"),
        ("vllm", "collective_rpc: .*HTTP 404.*VLLM_SERVER_DEV_MODE=1"),
        ("sglang", "update_weights_from_disk: .*HTTP 404"),
    ],
)
def test_a_server_that_cannot_load_is_told_what_it_needs(
    load, words, server, folder, tmp_path, without_export
):
    server.stub.dynamic = False
    alone = "explore.together=false"
    config = config_on(tmp_path, folder, LORA, alone, *through(load, server.url))
    run, world, agents = at_a_phase(config, tmp_path / "run", folder, {}, 1)
    with pytest.raises(ConfigError, match=words):
        serve(run, world, agents, "target")


def test_a_load_that_did_not_happen_is_noticed(server, folder, tmp_path, without_export, monkeypatch):
    answers = {"sglang": {"success": False, "message": "out of memory"}, "vllm_lora": "fine"}
    for load, answer in answers.items():
        monkeypatch.setattr(Stub, "post", lambda self, path, body, answer=answer: answer)
        alone = "explore.together=false"
        config = config_on(tmp_path, folder, LORA, alone, *through(load, server.url))
        run, world, agents = at_a_phase(config, tmp_path / "run", folder, {}, 1)
        with pytest.raises(ConfigError, match=r"out of memory|serves only base"):
            serve(run, world, agents, "target")


def test_the_servers_are_asked_before_a_run_is_made(server, folder, tmp_path, monkeypatch, capsys):
    home = tmp_path / "config"

    def refusal(*overrides: str) -> str:
        config_on(tmp_path, folder)
        arguments = [str(home / "tiny.yaml"), f"runs_dir={tmp_path / 'runs'}", LORA]
        arguments += ["batch.row_length=192", "rollout.max_tokens=192", *overrides]
        monkeypatch.setattr(sys, "argv", ["train", *arguments])
        with pytest.raises(SystemExit) as stop:
            run_command(main)
        assert stop.value.code == 2 and not (tmp_path / "runs").exists()
        return capsys.readouterr().err

    assert "is the server up?" in refusal(*through("vllm_lora", "http://127.0.0.1:9/v1"))
    server.stub.longest = 100
    assert "context of 100 tokens is shorter" in refusal(*through("vllm_lora", server.url))
    server.stub.longest = LENGTH
    server.stub.edit = lambda answer: {"choices": [{**answer["choices"][0], "token_ids": None}]}
    assert "return_token_ids" in refusal(*through("vllm_lora", server.url))
    server.stub.edit = lambda answer: answer
    dead = "urls: {failure: 'http://127.0.0.1:9/v1'}"
    assert "127.0.0.1:9/v1/models: no answer" in refusal(*through("vllm_lora", server.url, dead))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["rollout.joining=at_once"],
            "rollout.joining at_once with rollout.server: expected auto or as_ready",
        ),
        (["model.lora=null"], "rollout.server.load vllm_lora: expected model.lora with warm_start adapter"),
        (["model.lora.warm_start=full", "model.lora.base_dtype=float32"], "vllm_lora: expected model.lora"),
        (["rollout.server.load=vllm"], "with explore.together: one server has the weights of one agent"),
        (
            ["rollout.server.load=sglang", "rollout.server.urls.failure=http://127.0.0.1:8000/v1"],
            "with explore.together: one server",
        ),
        (["rounds=0", "rollout.server.timeout=9"], "rollout.server: found .* does nothing: rounds is 0"),
        (["rollout.server.url=127.0.0.1:8000"], "expected a string that matches"),
        (["rollout.server.load=tgi"], "'vllm_lora', 'vllm' or 'sglang'"),
        (["rollout.server.adress=x"], "unknown key 'adress'|unknown key"),
        (
            [
                "recipe=eto",
                "explore.samples=2",
                "rollout.server.urls.failure=http://h/v1",
            ],
            "rollout.server.urls.failure: found .*, which does nothing: no such agent plays",
        ),
    ],
)
def test_impossible_options_of_a_server_are_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_config(CONFIGS / "intercode-sql-vllm-lora.yaml", overrides)


def test_shipped_configs_use_every_option_of_servers():
    adapters, whole_weights, two = (
        load_config(CONFIGS / f"intercode-sql-{name}.yaml").rollout.server
        for name in ("vllm-lora", "vllm", "sglang")
    )
    assert adapters and whole_weights and two
    assert [one.load for one in (adapters, whole_weights, two)] == ["vllm_lora", "vllm", "sglang"]
    assert two.urls and adapters.timeout != whole_weights.timeout


SMALL = ("warm_start.epochs=4", "explore.tasks=['40:48']", "explore.temperature=0", "explore.samples=1")


def scratch_stub(run) -> Stub:
    """A server with random weights of the shapes that a finished run's agents have."""
    record = read_manifest(run.folder).record("prepare")
    assert record is not None
    model = Transformer(run.config.model, record.records["vocab_size"])
    params = fresh_params(model, 99)
    return Stub(model=model, params=params, longest=run.config.rollout.max_tokens)


def finished(config: Config):
    check_server(config)
    run = create_run(config)
    try:
        coevolve(run)
    finally:
        run.close()
    return run


def explored(run) -> list:
    paths = sorted((run.folder / "trajectories" / "round-01").glob("*.parquet"))
    return [(t.task_id, t.agent, t.tokens.tolist(), t.ending) for t in read_trajectories(paths)]


@pytest.mark.slow
def test_a_greedy_run_through_two_servers_ends_in_the_numbers_of_one_without(tmp_path):
    local = finished(tiny_config(tmp_path, *SMALL, "rollout.joining=as_ready", "name=local"))
    stubs = [scratch_stub(local) for _ in range(2)]
    with StubServer(stubs[0]) as one, StubServer(stubs[1]) as other:
        more = f"urls: {{failure: '{other.url}'}}"
        config = tiny_config(tmp_path, *SMALL, *through("sglang", one.url, more), "name=served")
        run = finished(config)
    assert explored(run) == explored(local) and len(explored(run)) > 20
    assert results(run.folder) == results(local.folder)
    loads = [[path for path, _ in stub.posted] for stub in stubs]
    # Before the warm start, too; the failure agent explores twice.
    assert loads == [["/update_weights_from_disk"] * 2, ["/update_weights_from_disk"] * 3]
    values: dict[str, dict[str, float]] = {}
    for line in read_metrics(run.folder / "metrics.jsonl"):
        values.setdefault(line["phase"], {}).update(line["values"])
    assert values["round-01/explore_target"]["rollout/server_requests"] > 0
    assert "rollout/device_busy_share" in values["round-01/evaluate_target"]  # by the devices, as ever
    recorded = [t for t in read_trajectories(sorted((run.folder / "trajectories/round-01").glob("*")))]
    assert all(t.ending is not Ending.FAULT and np.all(t.logps <= 0) for t in recorded)


@pytest.mark.slow
def test_a_greedy_run_of_adapters_through_a_server_explores_what_one_without_does(folder, server, tmp_path):
    greedy = ["explore.temperature=0", "explore.samples=1", "recipe=frozen-failure", "evaluate.tasks=':1'"]
    local = finished(config_on(tmp_path, folder, LORA, *greedy, "rollout.joining=as_ready", "name=local"))
    served = finished(config_on(tmp_path, folder, LORA, *greedy, *through("vllm_lora", server.url)))
    assert explored(served) == explored(local) and len(explored(served)) == 12 + 2  # evaluated
    assert len(server.stub.adapters) == 2


@pytest.mark.slow
def test_a_server_that_dies_stops_the_run_with_2_and_a_resumed_one_ends_in_the_same_numbers(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("coevo_jax.rollout.endpoint.WAITS", (0.05,))
    local = finished(tiny_config(tmp_path, *SMALL, "rollout.joining=as_ready", "name=local"))
    stub = scratch_stub(local)
    alone = ["explore.together=false", "explore.block_tasks=3"]
    with StubServer(stub) as server:
        port = server.server_port
        warm = Served(endpoint=Endpoint(url=server.url, timeout=60), model="base")
        probe(warm, range(16), vocab_size=None)  # compiles, for which the run's short timeout has no room

        def die(handler):
            server.socket.close()
            handler.hang_up()

        overrides = [*SMALL, *through("vllm", server.url, "timeout: 8.0"), *alone, "name=served"]
        config = tiny_config(tmp_path, *overrides)
        count = 0

        def deadly(answer):
            nonlocal count
            count += 1
            if count == 25:  # in a later block
                stub.plan.extend([die] * 9)
            return answer

        stub.edit = deadly
        arguments = [str(tmp_path / "tiny.yaml"), f"runs_dir={tmp_path / 'runs'}", *overrides]
        monkeypatch.setattr(sys, "argv", ["train", *arguments])
        with pytest.raises(SystemExit) as stop:
            run_command(main)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "continue with --resume" in error and "Traceback" not in error
    folder = Path(config.runs_dir) / "served"
    before = sorted((folder / "trajectories" / "round-01").glob("*.parquet"))
    assert 0 < len(before) < 6  # some of the blocks are committed
    written = [path.read_bytes() for path in before]
    stub.edit, stub.plan = lambda answer: answer, type(stub.plan)()
    with StubServer(stub, port):
        monkeypatch.setattr(sys, "argv", ["train", "--resume", str(folder)])
        run_command(main)
    assert [path.read_bytes() for path in before] == written
    ends = [
        json.loads((local.folder.parent / name / "results.json").read_text()) for name in ("local", "served")
    ]
    assert ends[0]["evaluations"] == ends[1]["evaluations"]
