# Training: one rule for each method. No rule declares the checkpoints, so Snakemake keeps them when a job fails.
from scripts.common.jobs import training_launcher, training_resources


rule check_stage:
    output:
        checked=paths.checked_stage("{stage}"),
    log:
        paths.log("check_stage", "{stage}"),
    wildcard_constraints:
        stage=one_of(cfg.stages),
    priority: 100  # before everything else, so that a wrong argument stops the run early
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    params:
        quiet=assign(QUIET),
        config=lambda wildcards: as_json(cfg.stages[wildcards.stage].identity()),
        validated=lambda wildcards: (
            "--validated" if cfg.datasets[cfg.stages[wildcards.stage].dataset].validation else ""
        ),
        processes=cfg.resources.train.processes,
        nodes=cfg.resources.train.nodes,
    shell:
        "exec env {params.quiet} python -m scripts.train.check_stage --name {wildcards.stage}"
        " --config {params.config:q} {params.validated} --processes {params.processes} --nodes {params.nodes}"
        " --output {output.checked} --log {log}"


rule train_sft:
    input:
        registered=ancient(paths.expectations),
        checked=paths.checked_stage("{stage}"),
        parent=lambda wildcards: paths.model(cfg.stages[wildcards.stage].parent),
        train=lambda wildcards: paths.rows(cfg.stages[wildcards.stage].dataset, "train"),
        validation=lambda wildcards: paths.rows(cfg.stages[wildcards.stage].dataset, "validation"),
        functions=lambda wildcards: cfg.stages[wildcards.stage].function_files,
    output:
        steps=paths.training_log("{stage}"),
        manifest=paths.model("{stage}"),
    log:
        paths.log("train_sft", "{stage}"),
    wildcard_constraints:
        stage=one_of(cfg.stages_by("sft")),
    priority: 50  # before benchmarks, since later stages and scores wait for it
    conda:
        "../envs/posttrain.yaml"
    threads: cfg.resources.train.cpus
    resources:
        **training_resources(cfg.resources.train),
        # They are resources because a changed parameter would train the stage again.
        time_limit=lambda wildcards: str(cfg.stages[wildcards.stage].time_limit or 0),
        over_time=lambda wildcards: cfg.stages[wildcards.stage].over_time,
    params:
        compute=compute_environment(cfg.resources.train),
        config=lambda wildcards: as_json(cfg.stages[wildcards.stage].identity()),
        seed=lambda wildcards: cfg.seed_of(wildcards.stage),
        dtype=cfg.model.dtype,
        cpus=cpu_threads(cfg.resources.train),
        processes=cfg.resources.train.processes,
        launcher=training_launcher(cfg.resources.train),
        tensorboard=lambda wildcards: paths.tensorboard(wildcards.stage),
        checkpoints=lambda wildcards: paths.checkpoints(wildcards.stage),
        proof=lambda wildcards: paths.proof(wildcards.stage),
        script="scripts.train.train_sft",
    shell:
        "exec {params.compute} {params.launcher} {params.script}"
        " --name {wildcards.stage} --config {params.config:q} --seed {params.seed} --dtype {params.dtype}"
        " --cpus {params.cpus} --processes {params.processes} --time-limit {resources.time_limit}"
        " --over-time {resources.over_time} --parent {input.parent} --train {input.train} --validation {input.validation}"
        " --steps {output.steps} --tensorboard {params.tensorboard} --checkpoints {params.checkpoints}"
        " --proof {params.proof} --manifest {output.manifest} --log {log}"


use rule train_sft as train_dpo with:
    log:
        paths.log("train_dpo", "{stage}"),
    wildcard_constraints:
        stage=one_of(cfg.stages_by("dpo")),
    params:
        script="scripts.train.train_dpo",


use rule train_sft as train_orpo with:
    log:
        paths.log("train_orpo", "{stage}"),
    wildcard_constraints:
        stage=one_of(cfg.stages_by("orpo")),
    params:
        script="scripts.train.train_orpo",


use rule train_sft as train_kto with:
    log:
        paths.log("train_kto", "{stage}"),
    wildcard_constraints:
        stage=one_of(cfg.stages_by("kto")),
    params:
        script="scripts.train.train_kto",


use rule train_sft as train_grpo with:
    log:
        paths.log("train_grpo", "{stage}"),
    wildcard_constraints:
        stage=one_of(cfg.stages_by("grpo")),
    params:
        script="scripts.train.train_grpo",
