"""The page holds every section, survives missing pieces, and treats what agents wrote as text."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from coevo_jax.commands.report import main
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.parquet import write_trajectories
from coevo_jax.report import browser
from coevo_jax.report.browser import browser_payload, embed_json, read_pairs
from coevo_jax.report.cast import cast_of
from coevo_jax.report.html import write_report
from coevo_jax.report.words import pull_ratio
from coevo_jax.run_folder.results import ResultsFile, load_results
from coevo_jax.run_folder.tensorboard import EventFile
from coevo_jax.trajectory import Trajectory, Turn
from tests.report.made_run import empty_results, make_run, play

ATTACK = '</script><img src=x onerror=alert(1)><!-- & "quoted" \u2028'


def payload_of(page: str) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="payload">(.*?)</script>', page, re.S)
    return json.loads(text)


def test_page_has_every_section_and_needs_no_network(run_dir, tmp_path):
    page = write_report(run_dir, tmp_path / "report.html").read_text()
    for name in (
        "rounds",
        "rewards",
        "exploration",
        "learning",
        "pairs",
        "pulls",
        "time",
        "trajectories",
        "pair-texts",
    ):
        assert f'<section id="{name}">' in page and f'href="#{name}"' in page
    for words in ("Mean reward", "Pairs ranked right", "Hard negatives of failures", "1.5 GiB", "Round 3"):
        assert words in page
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", page)
    assert "default-src 'none'" in page
    assert page.count("<svg") > 20


def test_pulls_stand_on_the_page_and_the_terminal_as_a_ratio(run_dir, tmp_path, capsys):
    page = write_report(run_dir, tmp_path / "page.html").read_text()
    shown = page.partition('<section id="pulls">')[2].partition("</section>")[0]
    row = '<tr><td class="left">Round 1</td><td class="left">{}</td><td>0.25</td><td>{}</td><td>{}</td></tr>'
    assert row.format("Target", "1", "1 : 4") in shown
    assert row.format("Failure agent", "0", "preferences alone") in shown
    main([str(run_dir), "--out", str(tmp_path / "page.html")])
    assert re.search(r"^ *1 +Target +0\.25 +1 +1 : 4 *$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(
    ("pulls", "words"),
    [
        ((0.025, 0.5), "1 : 20"),
        ((0.25, 0.025), "10 : 1"),
        ((0.0, 0.5), "imitation alone"),
        ((0.1, 0.0), "preferences alone"),
        ((0.0, 0.0), "nothing pulls"),
    ],
)
def test_the_ratio_of_pulls(pulls, words):
    assert pull_ratio(*pulls) == words


def test_collapses_stand_on_the_page(run_dir, tmp_path):
    folder = shutil.copytree(run_dir, tmp_path / "run")
    results = load_results(folder)
    results["collapses"] = [{"round": 2, "agent": "failure", "why": "mean reward <0.1"}]
    ResultsFile(folder).save(results)
    page = write_report(folder).read_text()
    assert "<b>Round 2, Failure agent:</b> mean reward &lt;0.1." in page


def test_what_agents_wrote_never_becomes_markup(tmp_path):
    folder = make_run(tmp_path / "run", rounds=1, tasks=3)
    before = play(0, "target", np.random.default_rng([1]), 0.0)
    turn = Turn(response=ATTACK, action=ATTACK, observation=ATTACK)
    changes = {"task_id": ATTACK, "prompt": ATTACK, "turns": (turn,)}
    written = Trajectory(**{**vars(before), **changes})
    write_trajectories(folder / "trajectories/round-01/target-00000-of-00001.parquet", [written])
    results = load_results(folder)
    results |= {"name": ATTACK, "method": ATTACK, "config": {"name": ATTACK}}
    results["collapses"] = [{"round": 1, "agent": ATTACK, "why": ATTACK}]
    ResultsFile(folder).save(results)
    page = write_report(folder).read_text()
    assert "<img" not in page
    assert page.count("<script") == page.count("</script>") == 2  # the data and the page's own
    assert ATTACK in {t["task"] for t in payload_of(page)["trajectories"]}


def test_embedded_json_keeps_the_text_and_holds_no_markup():
    text = embed_json({"a": ATTACK})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": ATTACK}


def test_missing_pieces_are_left_out(tmp_path):
    ResultsFile(tmp_path).save(empty_results("young", "coevo", 0, 3))
    page = write_report(tmp_path).read_text()
    assert "No evaluation yet." in page and "No training metrics yet." in page
    assert '<section id="trajectories">' not in page and '<section id="pair-texts">' not in page


def test_a_run_with_only_the_warm_start(tmp_path):
    page = write_report(make_run(tmp_path / "run", rounds=0, tasks=5)).read_text()
    assert "warm start" in page and '<section id="trajectories">' in page
    assert '<section id="exploration">' not in page


def test_the_same_run_gives_the_same_page(run_dir, tmp_path):
    first = write_report(run_dir, tmp_path / "a.html").read_bytes()
    assert write_report(run_dir, tmp_path / "b.html").read_bytes() == first


def test_browser_says_how_many_of_how_many(run_dir, monkeypatch):
    whole = browser_payload(run_dir, cast_of(load_results(run_dir)), 0.6)
    assert {(g["round"], g["source"]) for g in whole["groups"]} >= {(0, "expert"), (3, "hard_negatives")}
    assert all(g["total"] == len(g["items"]) == 60 for g in whole["groups"])
    monkeypatch.setattr(browser, "MOST_TRAJECTORIES", 7)
    part = browser_payload(run_dir, cast_of(load_results(run_dir)), 0.6)
    assert all(g["total"] == 60 and len(g["items"]) == 7 for g in part["groups"])
    explored = [g for g in part["groups"] if g["source"] in ("target", "failure", "hard_negatives")]
    tasks = {tuple(part["trajectories"][i]["task"] for i in g["items"]) for g in explored}
    assert len(explored) == 9 and len(tasks) == 1  # the same tasks in every round and for every agent


def test_a_budget_bounds_the_page(run_dir, monkeypatch):
    monkeypatch.setattr(browser, "PAGE_BYTES", 20_000)
    payload = browser_payload(run_dir, cast_of(load_results(run_dir)), 0.6)
    assert len(embed_json(payload)) < 60_000
    assert all(0 < len(g["items"]) < g["total"] for g in payload["groups"])


def test_pairs_name_the_right_trajectories(run_dir):
    payload = browser_payload(run_dir, cast_of(load_results(run_dir)), 0.6)
    shown = [(g, p) for g in payload["pairs"] for p in g["items"]]
    assert shown
    for group, pair in shown:
        chosen, rejected = (payload["trajectories"][pair[side]] for side in ("chosen", "rejected"))
        assert chosen["task"] == rejected["task"] == pair["task"]
        assert chosen["reward"] >= rejected["reward"]
        assert (chosen["reward"] == 1) == (payload["groups"][chosen["group"]]["source"] == "expert")
        assert len(group["items"]) <= group["total"]


def test_a_pair_says_from_which_turns_on_it_counts(run_dir, tmp_path):
    folder = shutil.copytree(run_dir, tmp_path / "run")
    path = folder / "pairs/round-01-target.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    later = lines[0]["kind"]
    for line in lines:
        line |= {"chosen_from": 2, "rejected_from": 1} if line["kind"] == later else {}
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    payload = browser_payload(folder, cast_of(load_results(folder)), 0.6)
    shown = next(g for g in payload["pairs"] if (g["round"], g["learning"]) == (1, "target"))["items"]
    assert {pair["kind"] for pair in shown} > {later}
    assert all(pair["from"] == ([2, 1] if pair["kind"] == later else [0, 0]) for pair in shown)
    page = write_report(folder, tmp_path / "page.html").read_text()
    assert '"from":[2,1]' in page and "counts from here on" in page
    path.write_text(json.dumps(lines[0] | {"chosen_from": "2"}) + "\n")
    with pytest.raises(ConfigError, match=r"round-01-target.jsonl:1: expected a JSON object"):
        read_pairs(path)


def test_long_text_is_cut(monkeypatch):
    assert browser._cut("x" * 3010) == "x" * 3000 + "\n… 10 more characters"
    assert browser._cut("x" * 3000) == "x" * 3000


def test_broken_files_are_named(run_dir, tmp_path):
    folder = shutil.copytree(run_dir, tmp_path / "run")
    (folder / "pairs/round-02-target.jsonl").write_text('{"task_id": "a"}\n')
    with pytest.raises(ConfigError, match=r"round-02-target\.jsonl:1: expected a JSON object with task_id"):
        write_report(folder)
    (folder / "results.json").write_text('{"name": ')
    with pytest.raises(ConfigError, match=r"results\.json: not valid JSON"):
        load_results(folder)
    (folder / "results.json").write_text('{"name": "x"}')
    with pytest.raises(ConfigError, match=r"results\.json: the file lacks collapses, config"):
        load_results(folder)


def test_results_of_an_earlier_version_are_read_and_shown(tmp_path, capsys):
    """Written before runs told of pulls and first errors, and kept as it was."""
    shutil.copy(Path(__file__).parent / "earlier_results.json", tmp_path / "results.json")
    results = load_results(tmp_path)
    assert results["pulls"] == []
    assert [one["after_error"] for one in (*results["evaluations"], *results["explorations"])] == [None] * 3
    main([str(tmp_path)])
    assert "Evaluation on the test split" in capsys.readouterr().out
    page = (tmp_path / "report.html").read_text()
    assert '<section id="rounds">' in page
    assert '<section id="errors">' not in page and '<section id="pulls">' not in page
    events = EventFile(tmp_path)
    events.show(results)
    events.close()


def test_what_followed_first_errors_stands_on_the_page_and_the_terminal(run_dir, tmp_path, capsys):
    page = write_report(run_dir, tmp_path / "page.html").read_text()
    shown = page.partition('<section id="errors">')[2].partition("</section>")[0]
    results = load_results(run_dir)
    last = results["evaluations"][-1]["after_error"]
    assert last is not None and last["episodes"] > 5
    every = len(results["evaluations"]) + len(results["explorations"])
    assert shown.count("<tr>") == 1 + every
    row = shown.partition("Round 3</td>")[2].partition("Failure agent, test")[2].partition("</tr>")[0]
    numbers = [int(cell) for cell in re.findall(r"<td>(\d+)", row)]
    order = ("episodes", "recovered", "repeated", "gave_up", "went_on", "cut_off", "successes")
    assert numbers[: len(order)] == [last[key] for key in order]
    main([str(run_dir), "--out", str(tmp_path / "page.html")])
    [line] = re.findall(r"Failure, test +(\d+) of .*", capsys.readouterr().out)[-1:]
    assert int(line) == last["episodes"]


def test_results_are_checked_when_saved(tmp_path):
    results = empty_results("a", "coevo", 0, 1)
    results["pairs"] = [{"round": 1, "agent": "target"}]
    with pytest.raises(ConfigError, match=r"pairs\[0\] lacks count, kind, mean_reward_gap, tasks"):
        ResultsFile(tmp_path).save(results)
    assert not (tmp_path / "results.json").exists()


def test_command_on_one_run(run_dir, tmp_path, capsys):
    main([str(run_dir), "--out", str(tmp_path / "page.html")])
    shown = capsys.readouterr().out
    for words in ("Evaluation on the test split", "Warm start", "Preference pairs", "Wall time", "1.5 GiB"):
        assert words in shown
    assert (tmp_path / "page.html").exists()


def test_command_on_several_runs(tmp_path, capsys):
    runs = [
        make_run(tmp_path / f"{method}-{seed}", method=method, seed=seed, rounds=1, tasks=12)
        for method in ("coevo", "eto")
        for seed in (0, 1)
    ]
    main([*map(str, runs), "--out", str(tmp_path / "comparison.html")])
    assert "coevo − eto" in capsys.readouterr().out
    page = (tmp_path / "comparison.html").read_text()
    assert "coevo − eto" in page and page.count('class="seed"') > 10
    assert page.count('class="band') == 2  # one a method
    assert 'href="' not in page.partition('<section id="runs">')[2]  # no run has a page yet
    main([str(runs[0])])
    main([*map(str, runs), "--out", str(tmp_path / "pages" / "comparison.html")])
    shown = (tmp_path / "pages" / "comparison.html").read_text().partition('<section id="runs">')[2]
    assert re.findall('href="([^"]*)"', shown) == ["../coevo-0/report.html"]
    assert "coevo, seed 0, Round 1 · Target learns" in shown


def test_command_on_a_missing_folder(tmp_path):
    with pytest.raises(ConfigError, match=f"{tmp_path}/none: no such run folder"):
        main([str(tmp_path / "none")])
