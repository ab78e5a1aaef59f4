"""WebShop: experts, the generated catalogue and its files, what instances share, the cost of a step."""

import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

from coevo_jax.envs.env import SPLITS, format_response
from coevo_jax.envs.webshop.environment import make_webshop
from coevo_jax.envs.webshop.generator import generate_raw, generate_webshop
from coevo_jax.envs.webshop.options import WebShopOptions
from coevo_jax.envs.webshop.shop import open_world
from tests.envs.test_webshop import ATTRIBUTES, DEFAULT, HUMAN, PRODUCTS, all_tasks, write_files


@pytest.fixture(scope="module")
def env():
    instance = make_webshop(DEFAULT)
    yield instance
    instance.close()


def test_every_eleventh_expert_scores_one_and_agrees_with_a_play(env):
    played = make_webshop(DEFAULT)
    for task in all_tasks(env)[::11]:
        demonstration = env.expert(task)
        assert demonstration.reward == 1.0
        assert played.reset(task) == demonstration.prompt
        for turn in demonstration.turns:
            result = played.step(turn.action)
            assert turn.response == format_response("", turn.action)
            assert result.observation == turn.observation
        assert result.done and result.reward == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"seed": 7}, {"products": 1500}, {"goals": "synthetic"}], ids=str)
def test_every_expert_of_a_generated_catalogue_scores_one(options):
    """Of the 12,000 synthetic goals, which take a dozen choices of each product, every fourth."""
    env = make_webshop(WebShopOptions(**options))
    tasks = all_tasks(env)
    failed = Counter(
        task.family
        for task in (tasks[::4] if len(tasks) > 10_000 else tasks)
        if (expert := env.expert(task)) is None or expert.reward != 1.0 or len(expert.turns) > 10
    )
    assert not failed


def test_an_expert_pages_past_products_that_cost_too_much(tmp_path):
    wanted = PRODUCTS[0] | {"asin": "B0AAAAAAA9", "pricing": "$15.00"}
    lures = [wanted | {"asin": f"B0AAAAAAA{i}", "pricing": "$900.00"} for i in range(3)]
    attributes = {product["asin"]: ATTRIBUTES["B0AAAAAAA1"] for product in [wanted, *lures]}
    options = write_files(tmp_path, [*lures, wanted], attributes, {"B0AAAAAAA9": HUMAN["B0AAAAAAA1"]})
    env = make_webshop(options.model_copy(update={"results_per_page": 2}))
    expert = env.expert(all_tasks(env)[0])
    assert [turn.action for turn in expert.turns] == [
        "search[noise cancelling wireless earbuds]",
        "click[Next >]",
        "click[B0AAAAAAA9]",
        "click[black]",
        "click[Buy Now]",
    ]
    assert expert.reward == 1.0


def test_no_expert_where_no_plan_fits_the_turns():
    env = make_webshop(WebShopOptions(max_turns=3))
    experts = [env.expert(task) for task in env.tasks("dev")[:60]]
    assert None in experts
    assert all(len(one.turns) == 3 for one in experts if one)


def test_an_expert_does_not_disturb_a_running_episode(env):
    first, second = env.tasks("train")[:2]
    plan = [turn.action for turn in env.expert(first).turns]
    env.reset(first)
    for action in plan:
        env.expert(second)
        result = env.step(action)
    assert result.done and result.reward == 1.0


def test_prices_and_limits_are_the_same_in_every_process():
    code = (
        "from coevo_jax.envs.webshop.environment import WebShopOptions, make_webshop\n"
        "env = make_webshop(WebShopOptions(seed=3))\n"
        "for split in ('train', 'dev', 'test'):\n"
        "    for task in env.tasks(split)[:40]: print(task, env.reset(task), env.expert(task))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]
    assert len(runs[0].splitlines()) == 120


def test_more_products_leave_the_first_ones_as_they_are():
    few, more = generate_raw(DEFAULT), generate_raw(WebShopOptions(products=1100))
    assert more.products[:1000] == few.products
    assert len({product["asin"] for product in more.products}) == 1100


def test_instances_of_several_threads_share_one_world():
    options = WebShopOptions(seed=11)
    worlds = []
    threads = [threading.Thread(target=lambda: worlds.append(open_world(options))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(worlds) == 4 and all(world is worlds[0] for world in worlds)


def test_a_written_catalogue_plays_like_the_generated_one(tmp_path, env):
    seen = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        generate_webshop(DEFAULT, folder, lambda done, total: seen.append((done, total)))
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["items_human_ins.json", "items_ins_v2_1000.json", "items_shuffle_1000.json"]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)
    assert seen == [(number, 1000) for number in range(1, 1001)] * 2
    read = make_webshop(WebShopOptions(data_path=str(tmp_path / "a"), split_by="product"))
    assert [read.tasks(split) for split in SPLITS] == [env.tasks(split) for split in SPLITS]
    for task in env.tasks("test")[:20]:
        assert read.reset(task) == env.reset(task)
        assert read.expert(task) == env.expert(task)


def test_a_changed_file_is_read_again(tmp_path):
    options = write_files(tmp_path)
    assert len(all_tasks(make_webshop(options))) == 2
    human = {"B0AAAAAAA2": HUMAN["B0AAAAAAA2"]}
    time.sleep(0.01)
    write_files(tmp_path, human=human)
    assert [task.id for task in all_tasks(make_webshop(options))] == ["B0AAAAAAA2/0"]
