"""Public conformance suites: the laws of the protocols, checked for any part, one's own included.

::

    from esopt.testing import check_rule

    def test_my_rule_keeps_the_laws():
        check_rule(MyRule(lr=0.1))

Every ``check_*`` takes an instance, and claims that go beyond its protocol by keyword. It returns nothing, or raises
:class:`ConformanceError`, an AssertionError that says which law is broken, what came out, what should have, and what
to do. Numbers are fixed, so a part passes always or never. :class:`VirtualWorkers` are an evaluator with a clock of its
own, for asynchronous runs without waiting.
"""

from ._check import ConformanceError
from .baselines import check_baseline
from .estimators import check_estimator
from .evaluators import check_evaluator
from .maps import check_map
from .rules import check_rule
from .samplers import check_sampler
from .shaping import check_shaping
from .step_sizes import check_step_size
from .strategies import check_strategy
from .virtual import VirtualWorkers, heavy_tailed
from .worlds import check_world

__all__ = [
    "ConformanceError",
    "VirtualWorkers",
    "check_baseline",
    "check_estimator",
    "check_evaluator",
    "check_map",
    "check_rule",
    "check_sampler",
    "check_shaping",
    "check_step_size",
    "check_strategy",
    "check_world",
    "heavy_tailed",
]
