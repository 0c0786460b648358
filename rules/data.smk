# The base model and the data sets: download, filters, data cards. Jobs that download run on the login node.
from scripts.common.config import RejectionsDataset
from scripts.common.job_inputs import local_files

SAMPLED = [name for name, dataset in cfg.datasets.items() if isinstance(dataset.source, RejectionsDataset)]
DOWNLOADED = [name for name in cfg.datasets if name not in SAMPLED]


rule download_model:
    output:
        manifest=paths.model("base"),
    log:
        paths.log("download_model"),
    priority: 100  # almost everything waits for it
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    params:
        config=as_json(cfg.model),
        cache=cfg.run.cache,
    shell:
        "exec python -m scripts.data.download_model --config {params.config:q} --cache {params.cache:q}"
        " --output {output.manifest} --log {log}"


rule download_dataset:
    input:
        files=lambda wildcards: local_files(cfg.datasets[wildcards.dataset]),
    output:
        rows=paths.source_rows("{dataset}"),
        manifest=paths.source("{dataset}"),
    log:
        paths.log("download_dataset", "{dataset}"),
    wildcard_constraints:
        dataset=one_of(DOWNLOADED),
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    params:
        config=lambda wildcards: as_json(
            {key: cfg.datasets[wildcards.dataset].as_dict()[key] for key in ("source", "format", "rename")}
        ),
        row_type=lambda wildcards: cfg.row_type(wildcards.dataset),
        balance=lambda wildcards: cfg.datasets[wildcards.dataset].balance or "",
    shell:
        "exec python -m scripts.data.download_dataset --name {wildcards.dataset} --row-type {params.row_type}"
        " --config {params.config:q} --balance={params.balance:q}"
        " --output {output.rows} --manifest {output.manifest} --log {log}"


rule sample_rejections:
    input:
        model=lambda wildcards: paths.model(cfg.datasets[wildcards.dataset].source.model),
        questions=lambda wildcards: expand(
            paths.rows("{questions}", "{split}"),
            questions=cfg.datasets[wildcards.dataset].source.dataset,
            split=["train", "validation", "test"],
        ),
    output:
        rows=paths.source_rows("{dataset}"),
        manifest=paths.source("{dataset}"),
    log:
        paths.log("sample_rejections", "{dataset}"),
    wildcard_constraints:
        dataset=one_of(SAMPLED),
    priority: 40  # before benchmarks, since a stage waits for it
    conda:
        "../envs/posttrain.yaml"
    threads: cfg.resources.evaluate.cpus
    resources:
        **job_resources(cfg.resources.evaluate),
    params:
        compute=compute_environment(cfg.resources.evaluate),
        config=lambda wildcards: as_json(cfg.datasets[wildcards.dataset].source),
        dtype=cfg.model.dtype,
        seed=cfg.run.seed,
        cpus=cpu_threads(cfg.resources.evaluate),
    shell:
        "exec {params.compute} python -m scripts.data.sample_rejections"
        " --name {wildcards.dataset} --config {params.config:q} --dtype {params.dtype} --seed {params.seed}"
        " --cpus {params.cpus} --model {input.model} --questions {input.questions}"
        " --output {output.rows} --manifest {output.manifest} --log {log}"


rule inspect_rows:
    input:
        rows=paths.source_rows("{dataset}"),
        model=paths.model("base"),
        questions=lambda wildcards: expand(
            paths.questions("{benchmark}"), benchmark=cfg.compared_benchmarks(wildcards.dataset)
        ),
        others=lambda wildcards: expand(
            paths.rows("{other}", "train"),
            other=cfg.datasets[wildcards.dataset].filters.not_in,
        ),
        functions=lambda wildcards: cfg.datasets[wildcards.dataset].function_files,
    output:
        rows=paths.inspected("{dataset}", "{shard}"),
        signatures=paths.signatures("{dataset}", "{shard}"),
    log:
        paths.log("inspect_rows", "{dataset}.{shard}"),
    priority: 40  # before benchmarks, since a stage waits for it
    conda:
        "../envs/posttrain.yaml"
    threads: cfg.resources.data.cpus
    resources:
        **job_resources(cfg.resources.data),
    params:
        offline=assign(OFFLINE),
        row_type=lambda wildcards: cfg.row_type(wildcards.dataset),
        config=lambda wildcards: as_json(cfg.datasets[wildcards.dataset].filters),
        shards=lambda wildcards: cfg.datasets[wildcards.dataset].shards,
        benchmarks=lambda wildcards, input: cfg.compared_benchmarks(wildcards.dataset),
    shell:
        "exec env {params.offline} python -m scripts.data.inspect_rows --name {wildcards.dataset} --row-type {params.row_type}"
        " --config {params.config:q} --shard {wildcards.shard} --shards {params.shards} --rows {input.rows}"
        " --model {input.model} --benchmarks {params.benchmarks} --questions {input.questions} --others {input.others} --output {output.rows}"
        " --signatures {output.signatures} --log {log}"


rule filter_dataset:
    input:
        rows=paths.source_rows("{dataset}"),
        inspected=lambda wildcards: [
            paths.inspected(wildcards.dataset, str(shard)) for shard in range(cfg.datasets[wildcards.dataset].shards)
        ],
        signatures=lambda wildcards: [
            paths.signatures(wildcards.dataset, str(shard)) for shard in range(cfg.datasets[wildcards.dataset].shards)
        ],
        questions=lambda wildcards: expand(
            paths.questions("{benchmark}"), benchmark=cfg.compared_benchmarks(wildcards.dataset)
        ),
        functions=lambda wildcards: cfg.datasets[wildcards.dataset].function_files,
    output:
        train=paths.rows("{dataset}", "train"),
        validation=paths.rows("{dataset}", "validation"),
        test=paths.rows("{dataset}", "test"),
        rejected=paths.rejected("{dataset}"),
        contamination=paths.contamination("{dataset}"),
        funnel=paths.funnel("{dataset}"),
        summary=paths.summary("{dataset}"),
        manifest=paths.filtered("{dataset}"),
    log:
        paths.log("filter_dataset", "{dataset}"),
    priority: 40  # before benchmarks, since a stage waits for it
    conda:
        "../envs/posttrain.yaml"
    threads: cfg.resources.data.cpus
    resources:
        **job_resources(cfg.resources.data),
    params:
        row_type=lambda wildcards: cfg.row_type(wildcards.dataset),
        config=lambda wildcards: as_json(cfg.datasets[wildcards.dataset].identity()),
        seed=cfg.run.seed,
        benchmarks=lambda wildcards, input: cfg.compared_benchmarks(wildcards.dataset),
    shell:
        "exec python -m scripts.data.filter_dataset --name {wildcards.dataset} --row-type {params.row_type}"
        " --config {params.config:q} --seed {params.seed} --rows {input.rows} --inspected {input.inspected}"
        " --signatures {input.signatures} --benchmarks {params.benchmarks} --questions {input.questions} --train {output.train}"
        " --validation {output.validation} --test {output.test} --rejected {output.rejected}"
        " --contamination {output.contamination} --funnel {output.funnel} --summary {output.summary}"
        " --manifest {output.manifest} --log {log}"


rule describe_dataset:
    input:
        source=paths.source("{dataset}"),
        train=paths.rows("{dataset}", "train"),
        funnel=paths.funnel("{dataset}"),
        summary=paths.summary("{dataset}"),
        figures=expand(paths.figure("{figure}", "svg"), figure=["funnel", "lengths"]),
    output:
        card=paths.data_card("{dataset}", "md"),
        facts=paths.data_card("{dataset}", "json"),
    log:
        paths.log("describe_dataset", "{dataset}"),
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    shell:
        "exec python -m scripts.data.describe_dataset --source {input.source} --train {input.train}"
        " --funnel {input.funnel} --summary {input.summary} --figures {input.figures} --card {output.card}"
        " --facts {output.facts} --log {log}"


rule check_data:
    input:
        model=paths.model("base"),
        rows=expand(paths.source_rows("{dataset}"), dataset=DOWNLOADED),
        manifests=expand(paths.source("{dataset}"), dataset=DOWNLOADED),
    log:
        paths.log("check_data"),
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    params:
        row_types=[cfg.row_type(dataset) for dataset in DOWNLOADED],
    shell:
        "exec python -m scripts.data.check_data --model {input.model} --rows {input.rows} --manifests {input.manifests}"
        " --row-types {params.row_types} --log {log}"
