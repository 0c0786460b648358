# The cluster: a limit on the GPUs of all jobs together, progress of the run, and checks of the cluster.
from scripts.cluster.gpus_at_once import NAME, limit_gpus
from scripts.cluster.head import executor_settings, requested_resources

try:
    GPUS_AT_ONCE = limit_gpus(cfg, given=getattr(workflow.global_resources.get(NAME), "value", None))
except UserError as error:
    stop(error)

if GPUS_AT_ONCE:
    workflow.register_resource(NAME, GPUS_AT_ONCE)


rule status:
    log:
        paths.log("status"),
    retries: 0
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    container:
        None
    params:
        config=json.dumps(cfg.as_dict(), ensure_ascii=False),
    shell:
        "exec python -m scripts.cluster.status --config {params.config:q} --log {log}"


rule check_cluster:
    log:
        paths.log("check_cluster"),
    retries: 0
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    container:
        None
    params:
        config=json.dumps(cfg.as_dict(), ensure_ascii=False),
        requests=lambda wildcards: as_json(requested_resources(cfg, workflow)),
        settings=lambda wildcards: as_json(executor_settings(workflow)),
        latency=lambda wildcards: workflow.execution_settings.latency_wait,
    shell:
        "exec python -m scripts.cluster.check_cluster --config {params.config:q} --requests {params.requests:q}"
        " --settings {params.settings:q} --latency-wait {params.latency} --log {log}"
