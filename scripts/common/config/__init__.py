"""The configuration of a run: the meaning of each key, its valid values, and the checks on them.

Each section has a file of the same name. `docs/configuration.md` and `schemas/config.schema.json` are generated from
the docstrings and descriptions in these files.
"""

from scripts.common.config.benchmark import (
    Benchmark,
    BenchmarkSource,
    FileBenchmark,
    HubBenchmark,
    HumanEvalBenchmark,
    LmEvalBenchmark,
    OwnBenchmark,
)
from scripts.common.config.comparison import SeedGroup
from scripts.common.config.dataset import (
    FORMATS,
    Dataset,
    FileDataset,
    Format,
    HubDataset,
    MixtureDataset,
    MixturePart,
    PackageDataset,
    RejectionsDataset,
    RowType,
    Sample,
)
from scripts.common.config.expectation import Expected, ExpectedChange
from scripts.common.config.filters import STEPS, Filters
from scripts.common.config.judge import Judge
from scripts.common.config.model import FileModel, HubModel, Model, ModelSource, PackageModel, RandomModel
from scripts.common.config.plot import Plot
from scripts.common.config.report import Report
from scripts.common.config.resources import JobResources, TrainResources
from scripts.common.config.responses import Responses
from scripts.common.config.root import BASE, Config
from scripts.common.config.stage import ROW_TYPE_BY_METHOD, Lora, Rewards, Stage
from scripts.common.config.verification import Verify

__all__ = [
    "BASE",
    "FORMATS",
    "ROW_TYPE_BY_METHOD",
    "STEPS",
    "Benchmark",
    "BenchmarkSource",
    "Config",
    "Dataset",
    "Expected",
    "ExpectedChange",
    "FileBenchmark",
    "FileDataset",
    "FileModel",
    "Filters",
    "Format",
    "HubBenchmark",
    "HubDataset",
    "HubModel",
    "HumanEvalBenchmark",
    "JobResources",
    "Judge",
    "LmEvalBenchmark",
    "Lora",
    "MixtureDataset",
    "MixturePart",
    "Model",
    "ModelSource",
    "OwnBenchmark",
    "PackageDataset",
    "PackageModel",
    "Plot",
    "RandomModel",
    "RejectionsDataset",
    "Report",
    "Responses",
    "Rewards",
    "RowType",
    "Sample",
    "SeedGroup",
    "Stage",
    "TrainResources",
    "Verify",
]
