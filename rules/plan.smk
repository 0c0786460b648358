# What the run takes, before anything is submitted. It reads what is there and asks for nothing, so it always runs.


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
    shell:
        "exec python -m scripts.plan.make_plan --config {params.config:q} --work {params.work}"
        " --results {params.results} --log {log}"
