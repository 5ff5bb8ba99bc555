"""Mistakes in arguments: each has an error of its own, before anything is evaluated."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import esopt

Array = np.ndarray[Any, Any]
ES = esopt.GradientES
X0 = np.ones(3)
BONNET = ES(n=4, estimator=esopt.Bonnet())


class Untouched:
    """An objective that must not be called."""

    def __call__(self, *arguments: Any) -> float:
        raise AssertionError("f was called")


OBJECTIVE = esopt.Objective(Untouched())

X0S = [
    ("nan", [1.0, math.nan], ValueError, "x0 has 1 entries that are not finite"),
    ("inf", [math.inf, -math.inf], ValueError, "x0 has 2 entries that are not finite"),
    ("empty", [], ValueError, r"x0 is empty \(shape \(0,\)\)"),
    ("empty matrix", np.zeros((2, 0)), ValueError, r"x0 is empty \(shape \(2, 0\)\)"),
    ("complex", [1j], TypeError, "x0 must hold real numbers, got dtype complex128"),
    ("None", None, TypeError, "x0 must hold real numbers, got dtype object"),
    ("object", [1.0, None], TypeError, "x0 must hold real numbers, got dtype object"),
    ("ragged", [[1.0], [1.0, 2.0]], TypeError, r"x0 must hold real numbers, got dtype object \(ragged"),
    ("str", "start", TypeError, "x0 must hold real numbers, got dtype <U5"),
    ("strs", ["1", "2"], TypeError, "x0 must hold real numbers, got dtype <U1"),
    ("dict", {"a": 1.0}, TypeError, "x0 must hold real numbers, got dtype object"),
]


@pytest.mark.parametrize(("x0", "kind", "message"), [c[1:] for c in X0S], ids=[c[0] for c in X0S])
def test_x0(x0: Any, kind: type[Exception], message: str):
    with pytest.raises(kind, match=message):
        esopt.minimize(Untouched(), x0)
    with pytest.raises(kind, match=message):
        esopt.Optimizer(ES(), x0)


SIGMAS = [
    (0.0, ValueError, "sigma must be positive and finite, got 0.0"),
    (-1, ValueError, "sigma must be positive and finite, got -1"),
    (math.nan, ValueError, "sigma must be positive and finite, got nan"),
    (math.inf, ValueError, "sigma must be positive and finite, got inf"),
    ([0.1, 0.0, 0.1], ValueError, r"sigma must be positive and finite, got \[0.1, 0.0, 0.1\]"),
    ([], ValueError, "sigma must be positive and finite"),
    ("0.1", TypeError, "sigma must be a number or one per coordinate, got '0.1'"),
    (1j, TypeError, "sigma must be a number or one per coordinate"),
    (True, TypeError, "sigma must be a number or one per coordinate, got True"),
    ([[0.1], [0.1, 0.2]], TypeError, "sigma must be a number or one per coordinate"),
    ([0.1, 0.1], ValueError, "sigma has 2 entries for x0 of size 3. Pass one positive number, one per coordinate"),
    (np.full(4, 0.1), ValueError, "sigma has 4 entries for x0 of size 3"),
]


@pytest.mark.parametrize(("sigma", "kind", "message"), SIGMAS, ids=[repr(s[0]) for s in SIGMAS])
@pytest.mark.parametrize("grad", [None, lambda x: x], ids=["values", "grad"])
def test_sigma(sigma: Any, kind: type[Exception], message: str, grad: Any):
    with pytest.raises(kind, match=message):
        esopt.minimize(Untouched(), X0, sigma=sigma, grad=grad)


@pytest.mark.parametrize(("sigma", "kind", "message"), SIGMAS, ids=[repr(s[0]) for s in SIGMAS])
@pytest.mark.parametrize("make", [ES, esopt.snes], ids=["GradientES", "snes"])
def test_sigma_of_a_strategy(sigma: Any, kind: type[Exception], message: str, make: Any):
    with pytest.raises(kind, match=message):
        esopt.Optimizer(make(sigma=sigma), X0)


def test_sigma_none_means_nothing_to_a_strategy():
    with pytest.raises(TypeError, match="sigma must be a number or one per coordinate, got None"):
        ES(sigma=None)


@pytest.mark.parametrize("start", [0.0, -1.0, math.nan, math.inf])
def test_sigma_schedules_start_with_a_sigma(start: float):
    with pytest.raises(ValueError, match="sigma must be positive and finite, but the schedule starts with"):
        esopt.Optimizer(ES(sigma=lambda generation: start), X0)


@pytest.mark.parametrize("n", [0, -2, 3, 4.0, 4.5, math.nan, "4", True, [4]])
@pytest.mark.parametrize("make", [ES, esopt.openai_es, esopt.pgpe, esopt.ars], ids=lambda make: make.__name__)
def test_n_of_antithetic_pairs(n: Any, make: Any):
    with pytest.raises(
        ValueError, match=r"n must be a positive (multiple of 2|even number).*, got n=.*Pass for example n="
    ):
        make(n=n)


@pytest.mark.parametrize("n", [0, -1, 4.0, True])
def test_n_of_independent_rows(n: Any):
    with pytest.raises(ValueError, match=r"n must be a positive multiple of 1 with the sampler Gaussian, got n="):
        esopt.snes(n=n)


def test_n_may_be_any_integer_type():
    assert len(esopt.Optimizer(ES(n=np.int64(6)), X0).ask()) == 6
    assert len(esopt.Optimizer(esopt.snes(n=5), X0).ask()) == 5


PARTS = [
    (
        lambda: ES(sampler=esopt.Antithetic),
        TypeError,
        r"sampler must be an instance, got the class Antithetic\. Write sa",
    ),
    (lambda: ES(shaping=esopt.CenteredRanks), TypeError, "shaping must be an instance, got the class CenteredRanks"),
    (lambda: ES(estimator=esopt.Bonnet), TypeError, "estimator must be an instance, got the class Bonnet"),
    (lambda: ES(rule=esopt.Adam), TypeError, "rule must be an instance, got the class Adam"),
    (lambda: ES(rule=0.1), TypeError, "rule must follow esopt.protocols.Rule, got 0.1"),
    (lambda: ES(rule=None), TypeError, "rule must follow esopt.protocols.Rule, got None"),
    (lambda: ES(scale_rule="sgd"), TypeError, "scale_rule must follow esopt.protocols.Rule, got 'sgd'"),
    (lambda: ES(shaping="ranks"), TypeError, "shaping must follow esopt.protocols.Shaping, got 'ranks'"),
    (lambda: ES(sampler=7), TypeError, "sampler must follow esopt.protocols.Sampler, got 7"),
    (
        lambda: ES(estimator=esopt.LeaveOneOut()),
        TypeError,
        "estimator must follow esopt.protocols.Estimator, got Leave",
    ),
    (lambda: ES(share="pairs"), ValueError, r"share must be one of \('pair', 'generation', 'none'\), got 'pairs'"),
    (lambda: ES(weight_decay=-0.1), ValueError, "weight_decay must be 0 or a positive number, got -0.1"),
    (lambda: ES(weight_decay=math.nan), ValueError, "weight_decay must be 0 or a positive number, got nan"),
    (
        lambda: ES(estimator=esopt.Bonnet(), shaping=esopt.CenteredRanks()),
        ValueError,
        r"the estimator Bonnet.* needs the values as they are, but the shaping is CenteredRanks\(\)",
    ),
    (
        lambda: ES(estimator=esopt.Score(esopt.AtMean()), shaping=esopt.CenteredRanks()),
        ValueError,
        r"the estimator Score.*AtMean.* needs the values as they are",
    ),
    (
        lambda: ES(scale_rule=esopt.SGD(0.1)),
        ValueError,
        r"scale_rule needs the gradient of the scale\. Pass Score\(with_s",
    ),
    (
        lambda: ES(sigma=lambda g: 0.1, estimator=esopt.Score(with_scale=True), scale_rule=esopt.SGD(0.1)),
        ValueError,
        "sigma is a schedule and scale_rule would change it too",
    ),
    (lambda: esopt.ars(n=8, top=5), ValueError, r"top must be a whole number in \[1, n / 2 = 4\], got 5"),
    (lambda: esopt.ars(n=8, top=0), ValueError, r"top must be a whole number in \[1, n / 2 = 4\], got 0"),
    (lambda: esopt.ars(lr=-1.0), ValueError, r"lr must be a positive number or a schedule, got -1\.0"),
    (lambda: esopt.ars(sigma=0.0), ValueError, "sigma must be .*positive"),
    (lambda: esopt.openai_es(sigma=0.0), ValueError, "sigma must be positive and finite"),
    (lambda: esopt.openai_es(lr=0.0), ValueError, "lr must be a positive number"),
    (lambda: esopt.pgpe(max_speed=-1.0), ValueError, "max_speed must be a positive number"),
    (lambda: esopt.pgpe(momentum=1.0), ValueError, r"momentum must be in \[0, 1\)"),
    (lambda: esopt.pgpe(sigma_max_change=0.0), ValueError, r"sigma_max_change must be in \(0, 1\), got 0\.0"),
    (lambda: esopt.snes(sigma_lr=-1.0), ValueError, "lr must be a positive number"),
    (lambda: esopt.MovingAverage(1.0), ValueError, r"decay must be in \[0, 1\)"),
    (lambda: esopt.Antithetic(esopt.Antithetic()), ValueError, "mirrored already"),
]


@pytest.mark.parametrize(("make", "kind", "message"), PARTS)
def test_parts_that_do_not_fit(make: Any, kind: type[Exception], message: str):
    with pytest.raises(kind, match=message):
        make()


@pytest.mark.parametrize("strategy", ["cma", ES, None, esopt.Adam(), 3])
def test_strategies(strategy: Any):
    with pytest.raises(
        TypeError, match=r"strategy must have init, ask, tell and stop, got .*Pass for example GradientES"
    ):
        esopt.Optimizer(strategy, X0)


@pytest.mark.parametrize(
    ("seed", "kind", "message"),
    [
        (-1, ValueError, r"seed must be in \[0, 2\*\*64\), got -1"),
        (2**64, ValueError, r"seed must be in \[0, 2\*\*64\)"),
        (1.0, TypeError, "seed must be an integer, got float"),
        (True, TypeError, "seed must be an integer, got bool"),
        (None, TypeError, "seed must be an integer, got NoneType"),
        ("1", TypeError, "seed must be an integer, got str"),
    ],
)
def test_seed(seed: Any, kind: type[Exception], message: str):
    with pytest.raises(kind, match=message):
        esopt.minimize(Untouched(), X0, seed=seed)


def test_seeds_of_64_bits():
    found = [esopt.Optimizer(ES(), X0, seed=s).ask()[0, 0] for s in (0, 1, 2**32, 2**63, 2**64 - 1, np.uint64(5))]

    assert len(set(found)) == 6


BUDGETS = ["evaluations", "generations", "steps", "seconds", "final_evaluations"]


@pytest.mark.parametrize("name", BUDGETS[:-1])
@pytest.mark.parametrize("limit", [0, -5, math.nan])
def test_budgets_are_positive(name: str, limit: float):
    with pytest.raises(
        ValueError, match=f"{name} must be positive|{name} must be a positive whole number, got {limit}"
    ):
        esopt.minimize(Untouched(), X0, noisy=True, **{name: limit})


@pytest.mark.parametrize("name", BUDGETS)
@pytest.mark.parametrize("limit", ["100", True, [100], 1j])
def test_budgets_are_numbers(name: str, limit: Any):
    with pytest.raises(TypeError, match=f"{name} must be a number, got {type(limit).__name__}"):
        esopt.minimize(Untouched(), X0, noisy=True, **{name: limit})


@pytest.mark.parametrize(
    ("final", "kind", "message"),
    [
        (None, TypeError, "final_evaluations must be a number, got NoneType. Pass for example final_evaluations=30"),
        (-1, ValueError, "final_evaluations must be a whole number, 0 or more, got -1. Pass for example"),
        (2.5, ValueError, "final_evaluations must be a whole number, 0 or more, got 2.5"),
        (math.nan, ValueError, "final_evaluations must be a whole number, 0 or more, got nan"),
        (math.inf, ValueError, "final_evaluations must be a whole number, 0 or more, got inf"),
    ],
)
@pytest.mark.parametrize("noisy", [False, True])
def test_final_evaluations(final: Any, kind: type[Exception], message: str, noisy: bool):
    with pytest.raises(kind, match=message):
        esopt.minimize(Untouched(), X0, noisy=noisy, final_evaluations=final)


@pytest.mark.parametrize("name", ["evaluations", "generations", "steps"])
def test_counts_are_whole(name: str):
    with pytest.raises(ValueError, match=f"{name} must be a positive whole number, got 10.5"):
        esopt.minimize(Untouched(), X0, **{name: 10.5})


def test_counts_may_be_written_as_floats():
    assert esopt.minimize(lambda x: 0.0, X0, strategy=ES(n=4), evaluations=1e1).evaluations == 9
    assert esopt.minimize(lambda x: 0.0, X0, strategy=ES(n=4), generations=2.0, evaluations=math.inf).evaluations == 9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"evaluations": 1}, "evaluations=1 leaves nothing beside the 1 of the final mean"),
        ({"evaluations": 6}, "evaluations=6 is less than one generation of 8 and the final mean"),
        ({"evaluations": 8}, "evaluations=8 is less than one generation of 8 and the final mean"),
        ({"evaluations": 30, "seeded": True}, "evaluations=30 leaves nothing beside the 30 of the final mean"),
        ({"evaluations": 37, "noisy": True}, "evaluations=37 is less than one generation of 8 and the final mean"),
    ],
)
def test_budgets_too_small_for_anything(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        esopt.minimize(Untouched(), X0, strategy=ES(n=8), **settings)


@pytest.mark.parametrize("target", [math.nan, "0", True, [0.0]])
@pytest.mark.parametrize("noisy", [False, True])
def test_target(target: Any, noisy: bool):
    with pytest.raises(ValueError, match="target must be a number, got"):
        esopt.minimize(Untouched(), X0, target=target, noisy=noisy)


FUNCTIONS = [
    ({"f": None}, TypeError, "got neither f nor evaluator"),
    ({"f": 3.0}, TypeError, "f must be a function, got float"),
    ({"f": "sphere"}, TypeError, "f must be a function, got str"),
    ({"grad": 1.0}, TypeError, "grad must be a function, got float"),
    ({"args": 2.0}, TypeError, r"args must be a tuple, got float\. Write args=\(a,\)"),
    ({"args": [2.0]}, TypeError, "args must be a tuple, got list"),
    ({"callback": 1}, TypeError, "callback must be a function, got int"),
    ({"on_error": "ignore"}, ValueError, "on_error must be .*got 'ignore'"),
    ({"on_error": None}, ValueError, "on_error must be .*got None"),
    ({"vectorized": True, "workers": 2}, ValueError, "vectorized=True and workers= exclude each other"),
    ({"workers": 0}, ValueError, "workers must be a positive integer.*got 0"),
    ({"workers": -1}, ValueError, "workers must be a positive integer.*got -1"),
    ({"workers": 2.0}, ValueError, "workers must be a positive integer.*got 2.0"),
    ({"workers": "2"}, ValueError, "workers must be a positive integer.*got '2'"),
    ({"strategy": ES(), "sigma": 0.1}, ValueError, "sigma= is for the default strategy"),
    ({"strategy": ES(), "grad": lambda x: x}, ValueError, "grad= is given, but the strategy makes no use of it"),
    ({"strategy": BONNET}, ValueError, r"the strategy needs gradients\. Pass grad="),
    ({"checkpoint_seconds": -1.0}, ValueError, r"checkpoint_seconds must be 0 or more, got -1\.0"),
    ({"checkpoint_seconds": math.nan}, ValueError, "checkpoint_seconds must be 0 or more, got nan"),
    ({"checkpoint_seconds": "60"}, ValueError, "checkpoint_seconds must be 0 or more, got '60'"),
    ({"checkpoint": 3.0}, TypeError, r"checkpoint must be the name of a file, got 3\.0"),
    ({"checkpoint": ""}, ValueError, "checkpoint is an empty name. Pass the name of a file"),
    ({"f": OBJECTIVE, "grad": lambda x: x}, TypeError, r"got both an Objective and grad\. Set them there"),
    ({"f": OBJECTIVE, "args": (1,), "seeded": True}, TypeError, "got both an Objective and args, seeded"),
    (
        {"f": esopt.Objective(Untouched(), shape=(2, 2))},
        ValueError,
        r"the Objective has shape \(2, 2\), but x0 has \(3,\)",
    ),
    (
        {"f": None, "evaluator": esopt.Serial(OBJECTIVE), "seeded": True},
        ValueError,
        "got seeded=True, but the evaluator's objective takes no seed",
    ),
]


@pytest.mark.parametrize(("settings", "kind", "message"), FUNCTIONS, ids=[",".join(c[0]) for c in FUNCTIONS])
def test_functions_and_settings(settings: dict[str, Any], kind: type[Exception], message: str):
    with pytest.raises(kind, match=message):
        esopt.minimize(**{"f": Untouched(), "x0": X0, **settings})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"f": Untouched()}, "got both evaluator and f, but an evaluator has its own objective"),
        ({"args": (1,), "grad": lambda x: x}, "got both evaluator and grad, args"),
        ({"workers": 2}, "got both evaluator and workers"),
        ({"vectorized": True}, "got both evaluator and vectorized"),
        ({"on_error": "nan"}, "got both evaluator and on_error"),
        ({"evaluator": esopt.Serial}, "evaluator must have init, evaluate and close, got type"),
        ({"evaluator": lambda x: 0.0}, "evaluator must have init, evaluate and close, got function"),
    ],
)
def test_evaluators_of_ones_own(settings: dict[str, Any], message: str):
    """Arguments that an evaluator would not see are refused instead of ignored."""
    with pytest.raises(TypeError, match=message):
        esopt.minimize(**{"f": None, "x0": X0, "evaluator": esopt.Serial(Untouched()), **settings})


def test_a_checkpoint_in_a_missing_folder_is_refused_at_once(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no such folder for checkpoint=; make it first: .*none'"):
        esopt.minimize(Untouched(), X0, checkpoint=tmp_path / "none" / "run.npz")


def test_a_checkpoint_that_is_a_folder_is_refused_at_once(tmp_path: Path):
    with pytest.raises(IsADirectoryError, match="checkpoint= is a folder; pass the name of a file"):
        esopt.minimize(Untouched(), X0, checkpoint=tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_checkpoint_in_a_folder_of_others_is_refused_at_once(tmp_path: Path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="no permission to write a checkpoint"):
        esopt.minimize(Untouched(), X0, checkpoint=tmp_path / "run.npz")


def test_a_checkpoint_in_the_current_folder_needs_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    esopt.minimize(lambda x: 0.0, X0, generations=1, checkpoint="run.npz")

    assert (tmp_path / "run.npz").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "seed: 0 in the file, 1 here"),
        ({"sigma": 0.25}, r"strategy\.sigma: 0\.5 in the file, 0\.25 here"),
        ({"x0": X0 + 1.0}, "x0: array"),
        ({"strategy": ES()}, "strategy: Portfolio in the file, GradientES here"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused_and_kept(changes: dict[str, Any], message: str, tmp_path: Path):
    path = tmp_path / "run.npz"
    esopt.minimize(lambda x: float(x @ x), X0, generations=3, checkpoint=path)
    written = path.read_bytes()

    with pytest.raises(esopt.CheckpointError, match=message):
        esopt.minimize(**{"f": Untouched(), "x0": X0, "generations": 5, "checkpoint": path, **changes})
    assert path.read_bytes() == written


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + bytes(100)])
def test_a_file_that_is_no_checkpoint_is_refused_and_kept(content: bytes, tmp_path: Path):
    path = tmp_path / "thesis.txt"
    path.write_bytes(content)

    with pytest.raises(esopt.CheckpointError, match=r"thesis\.txt is damaged, or no esopt checkpoint"):
        esopt.minimize(Untouched(), X0, checkpoint=path)
    assert path.read_bytes() == content


SETTINGS = [
    (lambda: esopt.openai_es(sigma="a"), TypeError, "sigma must be a number or one per coordinate, got 'a'"),
    (lambda: esopt.openai_es(sigma=esopt.Radius(1.0)), TypeError, r"got sigma=Radius\(norm=1.0\). Pass a number"),
    (lambda: esopt.openai_es(sigma=0.0), ValueError, "sigma must be positive and finite, got 0.0"),
    (lambda: esopt.openai_es(weight_decay="a"), ValueError, "weight_decay must be 0 or a positive number, got 'a'"),
    (lambda: esopt.ars(top=1.5), ValueError, r"top must be a whole number in \[1, n / 2 = 8\], got 1.5"),
    (lambda: esopt.ars(top=9), ValueError, r"top must be a whole number in \[1, n / 2 = 8\], got 9"),
    (lambda: esopt.ars(top=True), ValueError, "top must be a whole number"),
    (lambda: esopt.pgpe(sigma_max_change=5), ValueError, r"sigma_max_change must be in \(0, 1\), got 5"),
    (lambda: esopt.pgpe(sigma_max_change=1.0), ValueError, r"sigma_max_change must be in \(0, 1\), got 1.0"),
    (lambda: esopt.pgpe(sigma_max_change="a"), ValueError, r"sigma_max_change must be in \(0, 1\), got 'a'"),
    (lambda: esopt.Antithetic(esopt.Gaussian), TypeError, r"got the class Gaussian. Write Gaussian\(\)"),
    (lambda: esopt.Antithetic(3), TypeError, "base of .* must follow esopt.protocols.Sampler, got 3"),
]


@pytest.mark.parametrize(("make", "kind", "message"), SETTINGS, ids=[case[2] for case in SETTINGS])
def test_named_settings_and_samplers(make: Any, kind: type[Exception], message: str):
    with pytest.raises(kind, match=message):
        make()


def test_a_baseline_must_be_an_instance():
    with pytest.raises(TypeError, match=r"Write LeaveOneOut\(\)"):
        esopt.Score(esopt.LeaveOneOut)
    with pytest.raises(TypeError, match="baseline must follow"):
        esopt.Score("mean")
