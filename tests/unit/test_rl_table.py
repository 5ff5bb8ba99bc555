"""Tables of runs: what is trained, what is kept, what goes on after a cut, and how the numbers are made."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import esopt
from esopt.rl import Run, bootstrap_interval, evaluate, markdown, preset, summarise, table, train
from esopt.rl import learning_table as module

TINY = {"steps": 1500, "final_episodes": 4, "check_episodes": 2}


def same(run: Run) -> Run:
    """The run without what a clock says."""
    return run._replace(seconds=0.0, cpu_seconds=0.0)


def run_of(env="a", name="p", seed=0, mean=1.0, start=0.0, **other) -> Run:
    counts = {"episodes": 5, "generations": 3, "steps": 100, "check_steps": 10, "evaluation_steps": 50}
    rest = {"seconds": 2.0, "cpu_seconds": 3.0, "reason": "steps", "path": "here"}
    return Run(env=env, preset=name, seed=seed, mean_return=mean, start_return=start, **{**counts, **rest, **other})


def test_a_table_is_made_of_training_runs(tmp_path):
    shown: list[Run] = []
    found = table("CartPole-v1", ["default", "ars"], 2, file=tmp_path / "runs.jsonl", callback=shown.append, **TINY)
    alone = train("CartPole-v1", seed=1, **{**preset("ars", "CartPole-v1").settings(), **TINY, "target": np.inf})

    assert [(run.preset, run.seed) for run in shown] == [("default", 0), ("ars", 0), ("default", 1), ("ars", 1)]
    assert [(run.preset, run.seed) for run in found.runs] == [("default", 0), ("default", 1), ("ars", 0), ("ars", 1)]
    run = found.runs[3]
    assert run.mean_return == alone.mean == evaluate(alone.policy, "CartPole-v1", 4, seed=1)[0].mean()
    assert run.start_return == alone.checks["mean_return"][0]
    assert (run.steps, run.check_steps, run.evaluation_steps) == (
        alone.steps,
        alone.check_steps,
        alone.evaluation_steps,
    )
    assert (run.generations, run.reason, run.episodes) == (alone.result.generations, "steps", 4)
    assert "compiled" in run.path
    assert 0.0 < run.seconds < 60.0
    row = found.rows[1]
    assert row.returns == tuple(run.mean_return for run in found.runs[2:])
    assert row.interval == bootstrap_interval([row.returns])
    assert row.steps == np.mean([run.steps + run.check_steps for run in found.runs[2:]])
    assert row.threshold == 475.0  # gymnasium's own


def test_a_table_goes_on_after_a_cut(tmp_path, monkeypatch):
    file = tmp_path / "deep" / "runs.jsonl"
    whole = table("CartPole-v1", "default", 2, file=file, **TINY)
    text = file.read_text()
    assert [json.loads(line)["seed"] for line in text.splitlines()] == [0, 1]

    first = text.splitlines(keepends=True)[0]
    file.write_text(first + text[len(first) : len(first) + 70])  # killed while it wrote the second run
    trained: list[Run] = []
    again = table("CartPole-v1", "default", 2, file=file, callback=trained.append, **TINY)
    assert [run.seed for run in trained] == [1]
    assert again.runs[0] == whole.runs[0]
    assert same(again.runs[1]) == same(whole.runs[1])
    assert len(file.read_text().splitlines()) == 2

    monkeypatch.setattr(module, "train", None)  # nothing is left to train
    assert table("CartPole-v1", "default", 2, file=file, workers=1, **TINY) == again
    assert [path.name for path in tmp_path.rglob("*")] == ["deep", "runs.jsonl"]


def test_other_settings_or_other_files_are_refused_and_not_touched(tmp_path):
    file = tmp_path / "runs.jsonl"
    table("CartPole-v1", "default", 1, file=file, **TINY)
    before = file.read_bytes()
    with pytest.raises(ValueError, match=r"other settings:\n  steps: 1500 in the file, 1600 here\nPass the settings"):
        table("CartPole-v1", "default", 1, file=file, **{**TINY, "steps": 1600})
    mine = {"default": lambda env: replace(preset("default", env), confirm=3)}
    with pytest.raises(ValueError, match=r"confirm: 8 in the file, 3 here"):
        table("CartPole-v1", mine, 1, file=file, **TINY)
    assert file.read_bytes() == before

    for text, line in (("shopping list", 1), (before.decode() + '{"env": "x"}\n', 2), ("[]\n", 1)):
        file.write_text(text)
        with pytest.raises(ValueError, match=f"line {line} of .* is no finished run"):
            table("CartPole-v1", "default", 1, file=file, **TINY)
        assert file.read_text() == text


def test_ctrl_c_keeps_finished_runs_only(tmp_path):
    file = tmp_path / "runs.jsonl"

    def stop(run: Run) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        table("CartPole-v1", "default", 3, file=file, callback=stop, **TINY)
    assert len(file.read_text().splitlines()) == 1


def test_an_interrupted_run_is_no_finished_run(tmp_path, monkeypatch):
    real = train

    def interrupted(*args, **settings):
        result = real(*args, **settings)
        return type(result)(**{**vars(result), "reason": {"interrupted": 3.0}})

    monkeypatch.setattr(module, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        table("CartPole-v1", "default", 1, file=tmp_path / "runs.jsonl", **TINY)
    assert not (tmp_path / "runs.jsonl").exists()


def test_strategies_presets_and_budgets_by_environment():
    mine = {"plain": esopt.ars(n=4, sigma=1.0, lr=1.0), "made": lambda env: preset("default", env)}
    budgets = {"CartPole-v1": 300, "Pendulum-v1": 2000}
    found = table(
        ["CartPole-v1", "Pendulum-v1"],
        mine,
        [7],
        steps=budgets,
        thresholds={"CartPole-v1": 20.0},
        final_episodes=2,
        check_episodes=1,
    )

    assert [(row.env, row.preset) for row in found.rows] == [
        ("CartPole-v1", "plain"),
        ("CartPole-v1", "made"),
        ("Pendulum-v1", "plain"),
        ("Pendulum-v1", "made"),
    ]
    assert [row.threshold for row in found.rows] == [20.0, 20.0, -200.0, -200.0]
    assert all(run.seed == 7 and run.steps + run.check_steps >= budgets[run.env] for run in found.runs)
    assert found.runs[2].steps + found.runs[2].check_steps < 2000 + 5 * 200  # one generation of 4, one check


def test_the_numbers_of_a_row():
    returns = [10.0, 400.0, 340.0, 350.0, 345.0, 351.0, 339.0, 352.0]
    runs = [run_of(seed=k, mean=v, steps=100 * (k + 1), seconds=k + 1.0) for k, v in enumerate(returns)]
    (row,) = summarise(runs, {"a": 340.0}).rows

    assert row.interval.value == np.mean([340.0, 345.0, 350.0, 351.0])
    assert row.interval == bootstrap_interval([returns])
    assert (row.mean, row.median, row.worst) == (np.mean(returns), 347.5, 10.0)
    assert row.share == 6 / 8
    assert (row.steps, row.seconds, row.cpu_seconds) == (450.0 + 10.0, 4.5, 3.0)


def test_scores_are_normalised_by_the_untrained_policy_and_the_threshold():
    # Environment a: 0 -> 100; b: -20 -> -10, whose starts differ by run and are averaged; c has no threshold.
    runs = [run_of("a", "p", k, mean=v) for k, v in enumerate([50.0, 100.0, 150.0])]
    runs += [run_of("b", "p", k, mean=v, start=s) for k, (v, s) in enumerate([(-15.0, -19.0), (-10.0, -21.0)])]
    runs += [run_of("c", "p", 0, mean=1e6)]
    runs += [run_of("a", "q", 0, mean=1.0)]  # not on b: no aggregate
    (only,) = summarise(runs, {"a": 100.0, "b": -10.0, "c": np.nan}).aggregates

    assert (only.preset, only.envs, only.runs) == ("p", ("a", "b"), 5)
    assert only.interval.value == pytest.approx(np.mean([0.5, 1.0, 1.0]), rel=1e-12)  # of 0.5 0.5 1 1 1.5
    assert only.interval == bootstrap_interval([[0.5, 1.0, 1.5], [0.5, 1.0]])


def test_markdown():
    runs = [run_of("a", "p", k, mean=v, steps=1_000_000) for k, v in enumerate([1000.0, 2000.0])]
    runs += [run_of("b", "p", 0, mean=-0.25, start=-1.0, seconds=1234.5, cpu_seconds=0.0123)]
    text = markdown(summarise(runs, {"a": 1500.0, "b": 0.0}))

    assert text.splitlines()[0] == (
        "| environment | preset | seeds | IQM [95 % interval] | mean | median | worst | reached | steps | seconds "
        "| CPU seconds |"
    )
    assert text.splitlines()[2:4] == [
        "| a | p | 2 | 1,500 [1,000, 2,000] | 1,500 | 1,500 | 1,000 | 1 of 2 ≥ 1500 | 1,000,010 | 2 | 3 |",
        "| b | p | 1 | -0.2 | -0.2 | -0.2 | -0.2 | 0 of 1 ≥ 0 | 110 | 1,234 | 0.0123 |",
    ]
    assert text.splitlines()[-1] == "| p | 2 | 3 | 0.917 |"
    assert str(summarise(runs, {})).count("\n") == 3  # no threshold, no scores


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([],), {}, "envs= got nothing"),
        ((["CartPole-v1", "CartPole-v1"],), {}, "envs= got CartPole-v1, CartPole-v1"),
        (("CartPole-v2000",), {}, "CartPole"),
        (("CartPole-v1", "best"), {}, "there is no preset 'best'"),
        (("CartPole-v1", []), {}, "presets= got nothing"),
        (("CartPole-v1", ["ars", "ars"]), {}, "each once, or a mapping"),
        (("CartPole-v1", esopt.ars(n=8)), {}, "which has no name"),
        (("CartPole-v1", {"x": 3}), {}, "a preset got int"),
        (("CartPole-v1", {"x": lambda env: esopt.ars(n=8)}), {}, "returned GradientES for CartPole-v1"),
        (("CartPole-v1", "ars", 0), {}, "seeds= got none"),
        (("CartPole-v1", "ars", [1, 1]), {}, r"seeds= got \[1, 1\]"),
        (("CartPole-v1", "ars", 2.5), {}, "seeds= got float"),
        (("CartPole-v1", "ars", [-1]), {}, "seed must be in"),
        (("CartPole-v1",), {"seed": 3, "out": "x"}, r"table\(\) got out, seed="),
    ],
)
def test_bad_arguments(arguments, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        table(*arguments, **options)


def test_a_run_without_a_return_is_not_left_out():
    with pytest.raises(ValueError, match=r"a, p, seed 1 has the mean return nan"):
        summarise([run_of(), run_of(seed=1, mean=np.nan)], {})
