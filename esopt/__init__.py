"""Black-box optimisation with evolution strategies.

Every public name below is imported from its module when it is first used, so ``import esopt`` itself loads nothing.
A new part is one line in ``_HOMES`` and its twin for type checkers; ``tests/test_house.py`` compares the two.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOMES = {
    "Adam": "rules.adam",
    "Antithetic": "samplers.antithetic",
    "AtMean": "baselines.at_mean",
    "AugmentedLagrangian": "strategies.augmented_lagrangian",
    "Auto": "estimators.auto",
    "Averaged": "strategies.averaged",
    "BIPOP": "strategies.restarts",
    "Bonnet": "estimators.bonnet",
    "Bounded": "strategies.bounded",
    "ByDimension": "strategies.by_dimension",
    "CMAES": "strategies.cmaes",
    "CRFMNES": "strategies.cr_fm_nes",
    "CSA": "step_sizes",
    "CenteredRanks": "shaping",
    "CheckpointError": "errors",
    "Clip": "maps",
    "ClipUp": "rules.clipup",
    "Clipped": "rules.clipped",
    "Compiled": "evaluators.compiled",
    "CoordinateSearch": "strategies.coordinate_search",
    "Coordinates": "samplers.coordinates",
    "CosineDecay": "schedules",
    "CurvatureRate": "tuning.curvature_rate",
    "DDCMA": "strategies.dd_cma",
    "DXNESIC": "strategies.dx_nes_ic",
    "Elitist": "strategies.elitist",
    "Endless": "strategies.endless",
    "EsoptError": "errors",
    "Evals": "records",
    "EvaluationError": "errors",
    "Executor": "evaluators.executor",
    "Exponential": "rules.exponential",
    "ExponentialDecay": "schedules",
    "Forward": "estimators.forward",
    "Gaussian": "samplers.gaussian",
    "GaussianFit": "variational",
    "Given": "noise",
    "Gradient": "records",
    "GradientES": "strategies.gradient_es",
    "Guided": "estimators.guided",
    "Hadamard": "samplers.hadamard",
    "Halton": "samplers.halton",
    "Halving": "strategies.halving",
    "Hessian": "smoothing",
    "History": "history",
    "Hybrid": "estimators.hybrid",
    "IPOP": "strategies.restarts",
    "Info": "records",
    "Joblib": "evaluators.joblib",
    "Key": "noise",
    "LMMAES": "strategies.lm_ma_es",
    "LRACMAES": "strategies.lra_cmaes",
    "Law": "noise",
    "LeaveOneOut": "baselines.leave_one_out",
    "Linear": "baselines.linear",
    "LinearDecay": "schedules",
    "LowRank": "samplers.low_rank",
    "MAES": "strategies.ma_es",
    "MSR": "step_sizes",
    "Margin": "strategies.margin",
    "MeasureValued": "estimators.measure_valued",
    "Momentum": "rules.momentum",
    "MovingAverage": "baselines.moving_average",
    "Multistart": "strategies.multistart",
    "NaturalGaussian": "strategies.natural_gaussian",
    "NoBaseline": "baselines.none",
    "NormTest": "tuning.norm_test",
    "Objective": "objective",
    "OnePlusOneCMA": "strategies.one_plus_one_cma",
    "Opening": "strategies.portfolio",
    "OptimalPerCoordinate": "baselines.optimal",
    "OptimalScalar": "baselines.optimal",
    "Optimizer": "optimizer",
    "Orthogonal": "samplers.orthogonal",
    "Outcome": "objective",
    "PSACMA": "strategies.psa_cma",
    "PSR": "step_sizes",
    "Paired": "samplers.paired",
    "Part": "records",
    "Philox": "noise",
    "Plan": "strategies.restarts",
    "Policy": "strategies.restarts",
    "PolicyFileError": "errors",
    "Population": "records",
    "Portfolio": "strategies.portfolio",
    "PowerDecay": "schedules",
    "Price": "estimators.price",
    "Quadratic": "baselines.quadratic",
    "QuasiNewton": "strategies.quasi_newton",
    "RMES": "strategies.rm_es",
    "Rademacher": "samplers.rademacher",
    "Radius": "strategies.gradient_es",
    "RandomSearch": "strategies.random_search",
    "Raw": "shaping",
    "RecombinationWeights": "shaping",
    "Reflect": "maps",
    "Regression": "estimators.regression",
    "Replay": "samplers.replay",
    "Restarts": "strategies.restarts",
    "Result": "result",
    "Rounded": "integers",
    "SGD": "rules.sgd",
    "SNRRate": "tuning.snr_rate",
    "SampleMean": "baselines.leave_one_out",
    "Score": "estimators.score",
    "SepCMA": "strategies.sep_cma",
    "Serial": "evaluators.serial",
    "Smooth": "maps",
    "Sobol": "samplers.sobol",
    "Sphere": "samplers.sphere",
    "Standardize": "shaping",
    "Step": "records",
    "TPA": "step_sizes",
    "TopFraction": "shaping",
    "UncertaintyHandling": "strategies.uncertainty_handling",
    "Vectorized": "evaluators.vectorized",
    "VkDCMA": "strategies.vkd_cma",
    "WarmStart": "strategies.warm_start",
    "ars": "strategies.named",
    "child": "noise",
    "compare_estimators": "comparison",
    "finite_differences": "strategies.finite_differences",
    "fit_gaussian": "variational",
    "fmin": "adapters.pycma",
    "from_jax": "adapters.jax",
    "from_torch": "adapters.torch",
    "gauss_newton": "least_squares",
    "gradient_cost": "timing",
    "minimize": "loop",
    "moment": "noise",
    "openai_es": "strategies.named",
    "pgpe": "strategies.named",
    "project": "noise",
    "scipy_method": "adapters.scipy",
    "smoothed_gradient": "smoothing",
    "smoothed_hessian": "smoothing",
    "smoothed_value": "smoothing",
    "snes": "strategies.named",
    "spsa": "strategies.spsa",
    "warm_start": "strategies.warm_start",
    "xnes": "strategies.natural",
}

__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from .adapters.jax import from_jax as from_jax
    from .adapters.pycma import fmin as fmin
    from .adapters.scipy import scipy_method as scipy_method
    from .adapters.torch import from_torch as from_torch
    from .baselines.at_mean import AtMean as AtMean
    from .baselines.leave_one_out import LeaveOneOut as LeaveOneOut
    from .baselines.leave_one_out import SampleMean as SampleMean
    from .baselines.linear import Linear as Linear
    from .baselines.moving_average import MovingAverage as MovingAverage
    from .baselines.none import NoBaseline as NoBaseline
    from .baselines.optimal import OptimalPerCoordinate as OptimalPerCoordinate
    from .baselines.optimal import OptimalScalar as OptimalScalar
    from .baselines.quadratic import Quadratic as Quadratic
    from .comparison import compare_estimators as compare_estimators
    from .errors import CheckpointError as CheckpointError
    from .errors import EsoptError as EsoptError
    from .errors import EvaluationError as EvaluationError
    from .errors import PolicyFileError as PolicyFileError
    from .estimators.auto import Auto as Auto
    from .estimators.bonnet import Bonnet as Bonnet
    from .estimators.forward import Forward as Forward
    from .estimators.guided import Guided as Guided
    from .estimators.hybrid import Hybrid as Hybrid
    from .estimators.measure_valued import MeasureValued as MeasureValued
    from .estimators.price import Price as Price
    from .estimators.regression import Regression as Regression
    from .estimators.score import Score as Score
    from .evaluators.compiled import Compiled as Compiled
    from .evaluators.executor import Executor as Executor
    from .evaluators.joblib import Joblib as Joblib
    from .evaluators.serial import Serial as Serial
    from .evaluators.vectorized import Vectorized as Vectorized
    from .history import History as History
    from .integers import Rounded as Rounded
    from .least_squares import gauss_newton as gauss_newton
    from .loop import minimize as minimize
    from .maps import Clip as Clip
    from .maps import Reflect as Reflect
    from .maps import Smooth as Smooth
    from .noise import Given as Given
    from .noise import Key as Key
    from .noise import Law as Law
    from .noise import Philox as Philox
    from .noise import child as child
    from .noise import moment as moment
    from .noise import project as project
    from .objective import Objective as Objective
    from .objective import Outcome as Outcome
    from .optimizer import Optimizer as Optimizer
    from .records import Evals as Evals
    from .records import Gradient as Gradient
    from .records import Info as Info
    from .records import Part as Part
    from .records import Population as Population
    from .records import Step as Step
    from .result import Result as Result
    from .rules.adam import Adam as Adam
    from .rules.clipped import Clipped as Clipped
    from .rules.clipup import ClipUp as ClipUp
    from .rules.exponential import Exponential as Exponential
    from .rules.momentum import Momentum as Momentum
    from .rules.sgd import SGD as SGD
    from .samplers.antithetic import Antithetic as Antithetic
    from .samplers.coordinates import Coordinates as Coordinates
    from .samplers.gaussian import Gaussian as Gaussian
    from .samplers.hadamard import Hadamard as Hadamard
    from .samplers.halton import Halton as Halton
    from .samplers.low_rank import LowRank as LowRank
    from .samplers.orthogonal import Orthogonal as Orthogonal
    from .samplers.paired import Paired as Paired
    from .samplers.rademacher import Rademacher as Rademacher
    from .samplers.replay import Replay as Replay
    from .samplers.sobol import Sobol as Sobol
    from .samplers.sphere import Sphere as Sphere
    from .schedules import CosineDecay as CosineDecay
    from .schedules import ExponentialDecay as ExponentialDecay
    from .schedules import LinearDecay as LinearDecay
    from .schedules import PowerDecay as PowerDecay
    from .shaping import CenteredRanks as CenteredRanks
    from .shaping import Raw as Raw
    from .shaping import RecombinationWeights as RecombinationWeights
    from .shaping import Standardize as Standardize
    from .shaping import TopFraction as TopFraction
    from .smoothing import Hessian as Hessian
    from .smoothing import smoothed_gradient as smoothed_gradient
    from .smoothing import smoothed_hessian as smoothed_hessian
    from .smoothing import smoothed_value as smoothed_value
    from .step_sizes import CSA as CSA
    from .step_sizes import MSR as MSR
    from .step_sizes import PSR as PSR
    from .step_sizes import TPA as TPA
    from .strategies.augmented_lagrangian import AugmentedLagrangian as AugmentedLagrangian
    from .strategies.averaged import Averaged as Averaged
    from .strategies.bounded import Bounded as Bounded
    from .strategies.by_dimension import ByDimension as ByDimension
    from .strategies.cmaes import CMAES as CMAES
    from .strategies.coordinate_search import CoordinateSearch as CoordinateSearch
    from .strategies.cr_fm_nes import CRFMNES as CRFMNES
    from .strategies.dd_cma import DDCMA as DDCMA
    from .strategies.dx_nes_ic import DXNESIC as DXNESIC
    from .strategies.elitist import Elitist as Elitist
    from .strategies.endless import Endless as Endless
    from .strategies.finite_differences import finite_differences as finite_differences
    from .strategies.gradient_es import GradientES as GradientES
    from .strategies.gradient_es import Radius as Radius
    from .strategies.halving import Halving as Halving
    from .strategies.lm_ma_es import LMMAES as LMMAES
    from .strategies.lra_cmaes import LRACMAES as LRACMAES
    from .strategies.ma_es import MAES as MAES
    from .strategies.margin import Margin as Margin
    from .strategies.multistart import Multistart as Multistart
    from .strategies.named import ars as ars
    from .strategies.named import openai_es as openai_es
    from .strategies.named import pgpe as pgpe
    from .strategies.named import snes as snes
    from .strategies.natural import xnes as xnes
    from .strategies.natural_gaussian import NaturalGaussian as NaturalGaussian
    from .strategies.one_plus_one_cma import OnePlusOneCMA as OnePlusOneCMA
    from .strategies.portfolio import Opening as Opening
    from .strategies.portfolio import Portfolio as Portfolio
    from .strategies.psa_cma import PSACMA as PSACMA
    from .strategies.quasi_newton import QuasiNewton as QuasiNewton
    from .strategies.random_search import RandomSearch as RandomSearch
    from .strategies.restarts import BIPOP as BIPOP
    from .strategies.restarts import IPOP as IPOP
    from .strategies.restarts import Plan as Plan
    from .strategies.restarts import Policy as Policy
    from .strategies.restarts import Restarts as Restarts
    from .strategies.rm_es import RMES as RMES
    from .strategies.sep_cma import SepCMA as SepCMA
    from .strategies.spsa import spsa as spsa
    from .strategies.uncertainty_handling import UncertaintyHandling as UncertaintyHandling
    from .strategies.vkd_cma import VkDCMA as VkDCMA
    from .strategies.warm_start import WarmStart as WarmStart
    from .strategies.warm_start import warm_start as warm_start
    from .timing import gradient_cost as gradient_cost
    from .tuning.curvature_rate import CurvatureRate as CurvatureRate
    from .tuning.norm_test import NormTest as NormTest
    from .tuning.snr_rate import SNRRate as SNRRate
    from .variational import GaussianFit as GaussianFit
    from .variational import fit_gaussian as fit_gaussian
else:

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            message = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(message, name=name, obj=sys.modules[__name__])
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
