"""Golden trajectories: twenty generations of every named setting, as they were when this file was written.

The noise has its own hashes in ``tests/kernels``; these numbers notice a change anywhere else. If a change is meant,
paste what ``python -m tests.regression.test_golden`` prints.
"""

from __future__ import annotations

import numpy as np
import pytest

import esopt
from tests.reference.runs import bumpy, bumpy_grad

X0 = np.linspace(-2.0, 2.5, 10)
RUNS = {
    "default": esopt.GradientES(n=12),
    "openai_es": esopt.openai_es(n=12),
    "ars": esopt.ars(n=12, top=4),
    "pgpe": esopt.pgpe(n=12),
    "snes": esopt.snes(),
    "bonnet": esopt.GradientES(sigma=0.2, n=4, estimator=esopt.Bonnet(with_scale=True), rule=esopt.Adam(0.1)),
    "momentum": esopt.GradientES(
        n=8,
        sampler=esopt.Gaussian(),
        estimator=esopt.Score(esopt.AtMean(), with_scale=True),
        rule=esopt.Momentum(1e-4),
        scale_rule=esopt.Clipped(esopt.SGD(1e-2), 0.1),
    ),
    "moving_average": esopt.GradientES(
        sigma=esopt.CosineDecay(0.5, 0.1, 15),
        n=8,
        sampler=esopt.Gaussian(),
        estimator=esopt.Score(esopt.MovingAverage(0.8)),
        rule=esopt.SGD(esopt.ExponentialDecay(0.005, 0.5, every=10)),
        natural=True,
    ),
}

# Entries 0, 4 and 9 of the mean, the largest sigma, the best value.
GOLDEN = {
    "default": (-1.9553991607580847, 0.05825387890376503, 2.3135754575490557, 0.1, 74.1073959270033),
    "openai_es": (-1.948724071588338, 0.03580045105337424, 2.3109777225616823, 0.02, 81.54261912182687),
    "ars": (-1.881433742053153, 0.15912879663738708, 1.720527631458034, 0.03, 54.67017449621706),
    "pgpe": (-1.6063303552526704, 0.3987461748988075, 0.7796483313214833, 0.7111731143932988, 17.05252575524223),
    "snes": (-0.3986121616504248, 0.5832253706700221, 0.35950305539665023, 0.3897673170283754, 2.207371749060353),
    "bonnet": (-0.10341916201924288, 0.35206817347106273, 0.7320963933646321, 0.2, 2.6748050143784807),
    "momentum": (-1.9392258481989113, 0.1158248026406359, 1.9531550426804196, 0.09354301588955599, 62.73025714167779),
    "moving_average": (-1.9918994902819431, 0.05994087225163909, 2.2227483840180193, 0.1, 58.65533160554932),
}


def final(name: str) -> esopt.Optimizer:
    es = esopt.Optimizer(RUNS[name], X0, seed=2**40 + 7, generations=20)
    while not es.stop():
        rows = es.ask()
        grads = np.array([bumpy_grad(x) for x in rows]) if name == "bonnet" else None
        es.tell([bumpy(x) for x in rows], grads)
    return es


def numbers(es: esopt.Optimizer) -> tuple[float, ...]:
    mean = es.mean.tolist()
    return mean[0], mean[4], mean[9], float(np.max(es.population().scale)), es.result.value


@pytest.mark.parametrize("name", RUNS)
def test_trajectory(name: str):
    np.testing.assert_allclose(numbers(final(name)), GOLDEN[name], rtol=1e-9, atol=1e-9)


if __name__ == "__main__":
    for run in RUNS:
        print(f'    "{run}": {numbers(final(run))},')
