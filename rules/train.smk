# One rule a method. Checkpoints stand in an undeclared folder beside the manifest, so that a failed job keeps them.


rule check_stage:
    output:
        checked="<work>/stages/{stage}.json",
    log:
        "<logs>/check_stage/{stage}.log",
    wildcard_constraints:
        stage=one_of(cfg.stages),
    priority: 100  # nothing is submitted while a stage may still be refused
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    params:
        quiet=QUIET,
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
        checked="<work>/stages/{stage}.json",
        parent=lambda wildcards: f"<work>/models/{cfg.stages[wildcards.stage].parent}/manifest.json",
        train=lambda wildcards: f"<work>/datasets/{cfg.stages[wildcards.stage].dataset}/train.parquet",
        validation=lambda wildcards: f"<work>/datasets/{cfg.stages[wildcards.stage].dataset}/validation.parquet",
        functions=lambda wildcards: cfg.stages[wildcards.stage].function_files,
    output:
        steps="<results>/training/{stage}.parquet",
        manifest="<work>/models/{stage}/manifest.json",
    log:
        "<logs>/train_sft/{stage}.log",
    wildcard_constraints:
        stage=stages_by("sft"),
    priority: 50  # what all later stages and scores wait for
    conda:
        "../envs/posttrain.yaml"
    threads: cfg.resources.train.cpus
    resources:
        **training_resources(),
        # Resources are no reason to train again, as a changed parameter would be.
        time_limit=lambda wildcards: str(cfg.stages[wildcards.stage].time_limit or 0),
        over_time=lambda wildcards: cfg.stages[wildcards.stage].over_time,
    params:
        compute=compute("train"),
        config=lambda wildcards: as_json(cfg.stages[wildcards.stage].identity()),
        seed=lambda wildcards: cfg.seed_of(wildcards.stage),
        dtype=cfg.model.dtype,
        cpus=cpus("train"),
        processes=cfg.resources.train.processes,
        launcher=launcher(),
        script=lambda wildcards: f"scripts.train.train_{cfg.stages[wildcards.stage].method}",
    shell:
        "exec {params.compute} {params.launcher} {params.script}"
        " --name {wildcards.stage} --config {params.config:q} --seed {params.seed} --dtype {params.dtype}"
        " --cpus {params.cpus} --processes {params.processes} --time-limit {resources.time_limit}"
        " --over-time {resources.over_time} --parent {input.parent} --train {input.train} --validation {input.validation}"
        " --steps {output.steps} --manifest {output.manifest} --log {log}"


use rule train_sft as train_dpo with:
    log:
        "<logs>/train_dpo/{stage}.log",
    wildcard_constraints:
        stage=stages_by("dpo"),


use rule train_sft as train_orpo with:
    log:
        "<logs>/train_orpo/{stage}.log",
    wildcard_constraints:
        stage=stages_by("orpo"),


use rule train_sft as train_kto with:
    log:
        "<logs>/train_kto/{stage}.log",
    wildcard_constraints:
        stage=stages_by("kto"),


use rule train_sft as train_grpo with:
    log:
        "<logs>/train_grpo/{stage}.log",
    wildcard_constraints:
        stage=stages_by("grpo"),
