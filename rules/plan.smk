# What the run takes, before anything is submitted; and what its stages should take, once all rows are counted.


# It reads what is there and asks for nothing, so it always runs.
rule plan:
    log:
        "<logs>/plan.log",
    retries: 0
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    params:
        config=json.dumps(cfg.part(), ensure_ascii=False),
        work=f"work/{cfg.run.name}",
        results=f"results/{cfg.run.name}",
        # SLURM ends a job at its hours, and Snakemake submits it again; nobody ends one on this machine.
        attempts=lambda wildcards: f"--attempts {workflow.execution_settings.retries + 1}" if uses_slurm() else "",
    shell:
        "exec python -m scripts.plan.make_plan --config {params.config:q} --work {params.work}"
        " --results {params.results} {params.attempts} --log {log}"


rule forecast_training:
    input:
        base="<work>/models/base/manifest.json",
        summaries=expand("<work>/datasets/{dataset}/summary.json", dataset=cfg.datasets),
        manifests=expand("<work>/datasets/{dataset}/manifest.json", dataset=cfg.datasets),
    output:
        forecast="<results>/training/forecast.json",
    log:
        "<logs>/forecast_training.log",
    priority: 60  # before what it foretells, where the rows are there
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    params:
        config=as_json(cfg.training_part()),
    shell:
        "exec python -m scripts.plan.forecast_training --config {params.config:q} --base {input.base}"
        " --output {output.forecast} --log {log}"
