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
        files=lambda wildcards: files_of(cfg.datasets[wildcards.dataset].source),
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
        config=lambda wildcards: as_json(cfg.datasets[wildcards.dataset].source),
    shell:
        "exec python -m scripts.data.download_dataset --name {wildcards.dataset} --config {params.config:q}"
        " --output {output.rows} --manifest {output.manifest} --log {log}"


rule sample_rejections:
    input:
        model=lambda wildcards: f"<work>/models/{cfg.datasets[wildcards.dataset].source.model}/manifest.json",
        questions=lambda wildcards: expand(
            "<work>/datasets/{questions}/{split}.parquet",
            questions=cfg.datasets[wildcards.dataset].source.dataset,
            split=["train", "validation"],
        ),
    output:
        rows="<work>/datasets/{dataset}/source.parquet",
        manifest="<work>/datasets/{dataset}/source.json",
    log:
        "<logs>/sample_rejections/{dataset}.log",
    wildcard_constraints:
        dataset=one_of(SAMPLED),
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


rule filter_dataset:
    input:
        rows="<work>/datasets/{dataset}/source.parquet",
        model="<work>/models/base/manifest.json",
        questions=lambda wildcards: expand(
            "<work>/benchmarks/{benchmark}/questions.jsonl",
            benchmark=cfg.benchmarks if cfg.datasets[wildcards.dataset].filters.benchmark_overlap else [],
        ),
        others=lambda wildcards: expand(
            "<work>/datasets/{other}/train.parquet",
            other=cfg.datasets[wildcards.dataset].filters.not_in,
        ),
    output:
        train="<work>/datasets/{dataset}/train.parquet",
        validation="<work>/datasets/{dataset}/validation.parquet",
        rejected="<work>/datasets/{dataset}/rejected.parquet",
        funnel="<work>/datasets/{dataset}/funnel.json",
        manifest="<work>/datasets/{dataset}/manifest.json",
    log:
        "<logs>/filter_dataset/{dataset}.log",
    conda:
        "../envs/posttrain.yaml"
    threads: cfg.resources.data.cpus
    resources:
        **job_resources("data"),
    params:
        offline=OFFLINE,
        form=lambda wildcards: cfg.form(wildcards.dataset),
        config=lambda wildcards: as_json(cfg.datasets[wildcards.dataset]),
        seed=cfg.run.seed,
    shell:
        "exec env {params.offline} python -m scripts.data.filter_dataset --name {wildcards.dataset} --form {params.form}"
        " --config {params.config:q} --seed {params.seed} --rows {input.rows} --model {input.model}"
        " --questions {input.questions} --others {input.others} --train {output.train} --validation {output.validation}"
        " --rejected {output.rejected} --funnel {output.funnel} --manifest {output.manifest} --log {log}"
