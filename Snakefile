# posttrain: one config in, a post-trained language model and the report that proves what training did out.
#
#   snakemake -n                          what would run
#   snakemake --cores 1 plan              what it takes: steps, memory, hours, and whether that fits
#   snakemake --profile slurm             everything, on the cluster
#   snakemake --profile slurm sft         one stage by its name, with what it needs
#   snakemake --configfile recipes/demo.yaml --cores 2
#
# A recipe is a whole run and takes the place of config.yaml.
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
    refuse_second_head()
    refuse_missing_vllm()


onsuccess:
    end_at_once()


onerror:
    tell_failures()


localrules:
    all,
    data,
    models,
    benchmarks,
    plots,


rule all:
    default_target: True
    input:
        rules.build_pdf.output.pdf,
        model_manifests(),
        expand("<results>/models/{stage}.md", stage=cfg.stages),
        rules.write_examples.output.examples,
        rules.collect_results.output.results,


rule data:
    input:
        expand("<results>/data/{dataset}.md", dataset=cfg.datasets),
        expand("<work>/benchmarks/{benchmark}/manifest.json", benchmark=cfg.benchmarks),


rule models:
    input:
        model_manifests(),


rule benchmarks:
    input:
        expand(
            "<results>/scores/{model}/{benchmark}.json",
            model=cfg.models,
            benchmark=cfg.scores,
        ),


rule plots:
    input:
        expand("<results>/figures/{figure}.svg", figure=FIGURES),


rule report:
    input:
        rules.build_pdf.output.pdf,
    localrule: True


# Every stage and every benchmark is a target of its own: `snakemake dpo`, `snakemake gsm8k`.
for target, files in named_targets().items():

    rule:
        name:
            target
        input:
            files,
        localrule: True
