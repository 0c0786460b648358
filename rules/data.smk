# Data in: the base model, the data sets, the benchmarks' questions. What downloads runs on the login node.
SAMPLED = [name for name, dataset in cfg.datasets.items() if isinstance(dataset.source, RejectionsDataset)]
DOWNLOADED = [name for name in cfg.datasets if name not in SAMPLED]


rule download_model:
    output:
        manifest="<work>/models/base/manifest.json",
    log:
        "<logs>/download_model.log",
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
        files=lambda wildcards: files_of(cfg.datasets[wildcards.dataset]),
    output:
        rows="<work>/datasets/{dataset}/source.parquet",
        manifest="<work>/datasets/{dataset}/source.json",
    log:
        "<logs>/download_dataset/{dataset}.log",
    wildcard_constraints:
        dataset=one_of(DOWNLOADED),
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    params:
        config=lambda wildcards: as_json(
            {key: cfg.datasets[wildcards.dataset].part()[key] for key in ("source", "format", "rename")}
        ),
        form=lambda wildcards: cfg.form(wildcards.dataset),
        balance=lambda wildcards: cfg.datasets[wildcards.dataset].balance or "",
    shell:
        "exec python -m scripts.data.download_dataset --name {wildcards.dataset} --form {params.form}"
        " --config {params.config:q} --balance={params.balance:q}"
        " --output {output.rows} --manifest {output.manifest} --log {log}"


rule sample_rejections:
    input:
        model=lambda wildcards: f"<work>/models/{cfg.datasets[wildcards.dataset].source.model}/manifest.json",
        questions=lambda wildcards: expand(
            "<work>/datasets/{questions}/{split}.parquet",
            questions=cfg.datasets[wildcards.dataset].source.dataset,
            split=["train", "validation", "test"],
        ),
    output:
        rows="<work>/datasets/{dataset}/source.parquet",
        manifest="<work>/datasets/{dataset}/source.json",
    log:
        "<logs>/sample_rejections/{dataset}.log",
    wildcard_constraints:
        dataset=one_of(SAMPLED),
    priority: 40  # a stage waits for it, and benchmarks would take the GPUs first
    conda:
        "../envs/posttrain.yaml"
    threads: cfg.resources.evaluate.cpus
    resources:
        **job_resources("evaluate"),
    params:
        compute=compute("evaluate"),
        config=lambda wildcards: as_json(cfg.datasets[wildcards.dataset].source),
        dtype=cfg.model.dtype,
        seed=cfg.run.seed,
        cpus=cpus("evaluate"),
    shell:
        "exec {params.compute} python -m scripts.data.sample_rejections"
        " --name {wildcards.dataset} --config {params.config:q} --dtype {params.dtype} --seed {params.seed}"
        " --cpus {params.cpus} --model {input.model} --questions {input.questions}"
        " --output {output.rows} --manifest {output.manifest} --log {log}"


rule download_benchmark:
    input:
        task=lambda wildcards: own_task(wildcards.benchmark),
        files=lambda wildcards: mirror_files(cfg.benchmarks[wildcards.benchmark].source),
    output:
        questions="<work>/benchmarks/{benchmark}/questions.jsonl",
        manifest="<work>/benchmarks/{benchmark}/manifest.json",
    log:
        "<logs>/download_benchmark/{benchmark}.log",
    wildcard_constraints:
        benchmark=one_of(cfg.benchmarks),
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    params:
        config=lambda wildcards: as_json(
            {key: cfg.benchmarks[wildcards.benchmark].part()[key] for key in ("task", "source", "unsafe_code")}
        ),
        tasks=str(OWN_TASKS),
    shell:
        "exec python -m scripts.data.download_benchmark --name {wildcards.benchmark} --config {params.config:q}"
        " --tasks {params.tasks:q} --questions {output.questions} --manifest {output.manifest} --log {log}"


rule inspect_rows:
    input:
        rows="<work>/datasets/{dataset}/source.parquet",
        model="<work>/models/base/manifest.json",
        questions=lambda wildcards: questions_for(wildcards.dataset),
        others=lambda wildcards: expand(
            "<work>/datasets/{other}/train.parquet",
            other=cfg.datasets[wildcards.dataset].filters.not_in,
        ),
        functions=lambda wildcards: cfg.datasets[wildcards.dataset].function_files,
    output:
        rows="<work>/datasets/{dataset}/inspected/{shard}.parquet",
        signatures="<work>/datasets/{dataset}/inspected/{shard}.signatures",
    log:
        "<logs>/inspect_rows/{dataset}.{shard}.log",
    conda:
        "../envs/posttrain.yaml"
    threads: cfg.resources.data.cpus
    resources:
        **job_resources("data"),
    params:
        offline=OFFLINE,
        form=lambda wildcards: cfg.form(wildcards.dataset),
        config=lambda wildcards: as_json(cfg.datasets[wildcards.dataset].filters),
        shards=lambda wildcards: cfg.datasets[wildcards.dataset].shards,
    shell:
        "exec env {params.offline} python -m scripts.data.inspect_rows --name {wildcards.dataset} --form {params.form}"
        " --config {params.config:q} --shard {wildcards.shard} --shards {params.shards} --rows {input.rows}"
        " --model {input.model} --questions {input.questions} --others {input.others} --output {output.rows}"
        " --signatures {output.signatures} --log {log}"


rule filter_dataset:
    input:
        rows="<work>/datasets/{dataset}/source.parquet",
        inspected=lambda wildcards: shards_of(wildcards.dataset, "parquet"),
        signatures=lambda wildcards: shards_of(wildcards.dataset, "signatures"),
        questions=lambda wildcards: questions_for(wildcards.dataset),
        functions=lambda wildcards: cfg.datasets[wildcards.dataset].function_files,
    output:
        train="<work>/datasets/{dataset}/train.parquet",
        validation="<work>/datasets/{dataset}/validation.parquet",
        test="<work>/datasets/{dataset}/test.parquet",
        rejected="<work>/datasets/{dataset}/rejected.parquet",
        contamination="<work>/datasets/{dataset}/contamination.parquet",
        funnel="<work>/datasets/{dataset}/funnel.json",
        summary="<work>/datasets/{dataset}/summary.json",
        manifest="<work>/datasets/{dataset}/manifest.json",
    log:
        "<logs>/filter_dataset/{dataset}.log",
    conda:
        "../envs/posttrain.yaml"
    threads: cfg.resources.data.cpus
    resources:
        **job_resources("data"),
    params:
        form=lambda wildcards: cfg.form(wildcards.dataset),
        config=lambda wildcards: as_json(cfg.datasets[wildcards.dataset].identity()),
        seed=cfg.run.seed,
    shell:
        "exec python -m scripts.data.filter_dataset --name {wildcards.dataset} --form {params.form}"
        " --config {params.config:q} --seed {params.seed} --rows {input.rows} --inspected {input.inspected}"
        " --signatures {input.signatures} --questions {input.questions} --train {output.train}"
        " --validation {output.validation} --test {output.test} --rejected {output.rejected}"
        " --contamination {output.contamination} --funnel {output.funnel} --summary {output.summary}"
        " --manifest {output.manifest} --log {log}"


rule describe_dataset:
    input:
        source="<work>/datasets/{dataset}/source.json",
        train="<work>/datasets/{dataset}/train.parquet",
        funnel="<work>/datasets/{dataset}/funnel.json",
        summary="<work>/datasets/{dataset}/summary.json",
        figures=expand("<results>/figures/{figure}.svg", figure=["funnel", "lengths"]),
    output:
        card="<results>/data/{dataset}.md",
        facts="<results>/data/{dataset}.json",
    log:
        "<logs>/describe_dataset/{dataset}.log",
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    shell:
        "exec python -m scripts.data.describe_dataset --source {input.source} --train {input.train}"
        " --funnel {input.funnel} --summary {input.summary} --figures {input.figures} --card {output.card}"
        " --facts {output.facts} --log {log}"


rule check_data:
    input:
        model="<work>/models/base/manifest.json",
        rows=expand("<work>/datasets/{dataset}/source.parquet", dataset=DOWNLOADED),
    log:
        "<logs>/check_data.log",
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    params:
        forms=[cfg.form(dataset) for dataset in DOWNLOADED],
    shell:
        "exec python -m scripts.data.check_data --model {input.model} --rows {input.rows} --forms {params.forms}"
        " --log {log}"
