# posttrain: from one config file to a post-trained model and a PDF that shows what training changed.
#
#   snakemake -n                                         lists the jobs
#   snakemake --cores 1 plan                             estimates steps, memory and hours
#   snakemake --profile slurm                            runs everything on the cluster
#   snakemake --profile slurm sft                        runs one stage, with what it needs
#   snakemake --configfile recipes/demo.yaml --cores 2   runs another config instead of config.yaml
from pathlib import Path

from snakemake.settings.types import DeploymentMethod
from snakemake.utils import min_version

min_version("9.27")

if not workflow.overwrite_configfiles:

    configfile: Path(workflow.basedir) / "config.yaml"


if DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method:

    container: str(Path(workflow.basedir) / "envs" / "posttrain.sif")


include: "rules/common.smk"
include: "rules/plan.smk"
include: "rules/cluster.smk"
include: "rules/data.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/plot.smk"
include: "rules/report.smk"


onstart:
    check_start()
    show_progress()


onsuccess:
    report_outcomes()
    end_at_once()


onerror:
    report_failures()


localrules:
    all,
    data,
    models,
    benchmarks,
    plots,
    report,


rule all:
    default_target: True
    input:
        paths.pdf,
        expand(paths.model("{model}"), model=cfg.models),
        expand(paths.model_card("{stage}"), stage=cfg.stages),
        paths.examples,
        paths.collected,


rule data:
    input:
        expand(paths.data_card("{dataset}", "md"), dataset=cfg.datasets),
        expand(paths.benchmark("{benchmark}"), benchmark=cfg.benchmarks),


rule models:
    input:
        expand(paths.model("{model}"), model=cfg.models),


rule benchmarks:
    input:
        all_scores(),


rule plots:
    input:
        expand(paths.figure("{figure}", "svg"), figure=FIGURES),


rule report:
    input:
        paths.pdf,


# The name of each stage and each benchmark is a target: `snakemake dpo`, `snakemake gsm8k`.
try:
    check_names(cfg, ORIGIN, taken={rule.name for rule in workflow.rules})
except UserError as error:
    stop(error)

for stage in cfg.stages:

    rule:
        name:
            stage
        input:
            paths.model(stage),
        localrule: True


for benchmark in cfg.benchmarks:

    rule:
        name:
            benchmark
        input:
            expand(
                paths.score("{model}", "{score}"),
                model=cfg.models,
                score=[score for score in cfg.protocols if cfg.benchmark_of[score] == benchmark],
            ),
        localrule: True
