# Figures, each from one kind of table. A run without data sets or stages has fewer of them.

FIGURES = [
    *(["funnel", "lengths"] if cfg.datasets else []),
    *(["training"] if cfg.stages else []),
    *(["scores"] if cfg.scores else []),
]


rule plot_funnel:
    input:
        funnels=expand("<work>/datasets/{dataset}/funnel.json", dataset=cfg.datasets),
    output:
        svg=report(
            "<results>/figures/funnel.svg",
            caption="../report/captions/funnel.rst",
            category="Data",
        ),
        png="<results>/figures/funnel.png",
    log:
        "<logs>/plot_funnel.log",
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    params:
        config=as_json(cfg.plot),
    shell:
        "exec python -m scripts.plot.plot_funnel --config {params.config:q} --funnels {input.funnels}"
        " --output {output.svg} {output.png} --log {log}"


rule plot_lengths:
    input:
        summaries=expand("<work>/datasets/{dataset}/summary.json", dataset=cfg.datasets),
    output:
        svg=report(
            "<results>/figures/lengths.svg",
            caption="../report/captions/lengths.rst",
            category="Data",
        ),
        png="<results>/figures/lengths.png",
    log:
        "<logs>/plot_lengths.log",
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    params:
        config=as_json(cfg.plot),
    shell:
        "exec python -m scripts.plot.plot_lengths --config {params.config:q} --summaries {input.summaries}"
        " --output {output.svg} {output.png} --log {log}"


rule plot_training:
    input:
        logs=expand("<results>/training/{stage}.parquet", stage=cfg.models[1:]),
    output:
        svg=report(
            "<results>/figures/training.svg",
            caption="../report/captions/training.rst",
            category="Training",
        ),
        png="<results>/figures/training.png",
    log:
        "<logs>/plot_training.log",
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    params:
        config=as_json(cfg.plot),
        stages=cfg.models[1:],
    shell:
        "exec python -m scripts.plot.plot_training --config {params.config:q} --stages {params.stages}"
        " --logs {input.logs} --output {output.svg} {output.png} --log {log}"


rule plot_scores:
    input:
        scores=expand(
            "<results>/scores/{model}/{name}.json",
            name=cfg.scores,
            model=cfg.models,
        ),
    output:
        svg=report(
            "<results>/figures/scores.svg",
            caption="../report/captions/scores.rst",
            category="Benchmarks",
        ),
        png="<results>/figures/scores.png",
    log:
        "<logs>/plot_scores.log",
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    params:
        config=as_json(cfg.plot),
        models=cfg.models,
    shell:
        "exec python -m scripts.plot.plot_scores --config {params.config:q} --models {params.models}"
        " --scores {input.scores} --output {output.svg} {output.png} --log {log}"
