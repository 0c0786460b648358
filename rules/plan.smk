# Estimates: of the run before anything is submitted, and of its stages once all rows are filtered.


# It has no inputs, since it reads whatever exists already; and no outputs, so it always runs.
rule plan:
    log:
        paths.log("plan"),
    retries: 0
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    params:
        config=json.dumps(cfg.as_dict(), ensure_ascii=False),
        # On SLURM, a job that reaches its time limit is submitted again. Local jobs have no time limit.
        attempts=lambda wildcards: f"--attempts {workflow.execution_settings.retries + 1}" if uses_slurm() else "",
    shell:
        "exec python -m scripts.plan.plan --config {params.config:q} {params.attempts} --log {log}"


rule forecast_training:
    input:
        base=paths.model("base"),
        summaries=expand(paths.summary("{dataset}"), dataset=cfg.datasets),
        manifests=expand(paths.filtered("{dataset}"), dataset=cfg.datasets),
    output:
        forecast=paths.forecast,
    log:
        paths.log("forecast_training"),
    priority: 60  # before the stages, whose time and memory it predicts
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    params:
        config=as_json(cfg.forecast_inputs()),
    shell:
        "exec python -m scripts.plan.forecast_training --config {params.config:q} --output {output.forecast} --log {log}"
