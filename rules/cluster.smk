# The cluster: how many GPUs it is asked for at once, whether it would run this, and how far the run is. The rules only ask.
from scripts.cluster.gpus_at_once import NAME, limit_gpus

try:
    GPUS_AT_ONCE = limit_gpus(cfg, given=getattr(workflow.global_resources.get(NAME), "value", None))
except UserError as error:
    sys.exit("\n".join(f"error: {line}" for line in str(error).splitlines()))

if GPUS_AT_ONCE:
    workflow.register_resource(NAME, GPUS_AT_ONCE)


rule status:
    log:
        "<logs>/status.log",
    retries: 0
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    container:
        None
    params:
        config=json.dumps(cfg.part(), ensure_ascii=False),
        work=f"work/{cfg.run.name}",
        results=f"results/{cfg.run.name}",
        logs=f"logs/{cfg.run.name}",
    shell:
        "exec python -m scripts.cluster.show_status --config {params.config:q} --work {params.work}"
        " --results {params.results} --logs {params.logs} --log {log}"


rule check_cluster:
    log:
        "<logs>/check_cluster.log",
    retries: 0
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    container:
        None
    params:
        config=json.dumps(cfg.part(), ensure_ascii=False),
        requests=asked_resources,
        settings=executor_settings,
        work=f"work/{cfg.run.name}",
        results=f"results/{cfg.run.name}",
        logs=f"logs/{cfg.run.name}",
    shell:
        "exec python -m scripts.cluster.check_cluster --config {params.config:q} --requests {params.requests:q}"
        " --settings {params.settings:q} --work {params.work} --results {params.results} --logs {params.logs}"
        " --log {log}"
