# One rule a method. Checkpoints stand in an undeclared folder beside the manifest, so that a failed job keeps them.


rule train_sft:
    input:
        parent=lambda wildcards: f"<work>/models/{cfg.stages[wildcards.stage].parent}/manifest.json",
        train=lambda wildcards: f"<work>/datasets/{cfg.stages[wildcards.stage].dataset}/train.parquet",
        validation=lambda wildcards: f"<work>/datasets/{cfg.stages[wildcards.stage].dataset}/validation.parquet",
    output:
        steps="<results>/training/{stage}.jsonl",
        manifest="<work>/models/{stage}/manifest.json",
    log:
        "<logs>/train_sft/{stage}.log",
    wildcard_constraints:
        stage=stages_by("sft"),
    conda:
        "../envs/posttrain.yaml"
    threads: cfg.resources.train.cpus
    resources:
        **job_resources("train"),
    params:
        compute=compute("train"),
        config=lambda wildcards: as_json(cfg.stages[wildcards.stage]),
        seed=cfg.run.seed,
        dtype=cfg.model.dtype,
        cpus=cpus("train"),
        launcher=launcher(),
        script="scripts.train.train_sft",
    shell:
        "exec {params.compute} {params.launcher} {params.script}"
        " --name {wildcards.stage} --config {params.config:q} --seed {params.seed} --dtype {params.dtype}"
        " --cpus {params.cpus} --parent {input.parent} --train {input.train} --validation {input.validation}"
        " --steps {output.steps} --manifest {output.manifest} --log {log}"


use rule train_sft as train_dpo with:
    log:
        "<logs>/train_dpo/{stage}.log",
    wildcard_constraints:
        stage=stages_by("dpo"),
    params:
        compute=compute("train"),
        config=lambda wildcards: as_json(cfg.stages[wildcards.stage]),
        seed=cfg.run.seed,
        dtype=cfg.model.dtype,
        cpus=cpus("train"),
        launcher=launcher(),
        script="scripts.train.train_dpo",
