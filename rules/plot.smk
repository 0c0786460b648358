# Figures, each from one kind of table. A run without data sets or without stages has fewer figures.

FIGURES = [
    *(["funnel", "lengths"] if cfg.datasets else []),
    *(["training"] if cfg.stages else []),
    *(["scores"] if cfg.scores else []),
    *(["differences"] if cfg.scores and cfg.comparisons else []),
]


rule plot_funnel:
    input:
        funnels=expand(paths.funnel("{dataset}"), dataset=cfg.datasets),
    output:
        svg=report(
            paths.figure("funnel", "svg"),
            caption="../report/captions/funnel.rst",
            category="Data",
        ),
        png=paths.figure("funnel", "png"),
    log:
        paths.log("plot_funnel"),
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
        summaries=expand(paths.summary("{dataset}"), dataset=cfg.datasets),
    output:
        svg=report(
            paths.figure("lengths", "svg"),
            caption="../report/captions/lengths.rst",
            category="Data",
        ),
        png=paths.figure("lengths", "png"),
    log:
        paths.log("plot_lengths"),
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
        logs=expand(paths.training_log("{stage}"), stage=cfg.models[1:]),
    output:
        svg=report(
            paths.figure("training", "svg"),
            caption="../report/captions/training.rst",
            category="Training",
        ),
        png=paths.figure("training", "png"),
    log:
        paths.log("plot_training"),
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
        scores=expand(paths.score("{model}", "{name}"), name=cfg.scores, model=cfg.models),
    output:
        svg=report(
            paths.figure("scores", "svg"),
            caption="../report/captions/scores.rst",
            category="Benchmarks",
        ),
        png=paths.figure("scores", "png"),
    log:
        paths.log("plot_scores"),
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    params:
        config=as_json(cfg.plot),
        models=cfg.models,
    shell:
        "exec python -m scripts.plot.plot_scores --config {params.config:q} --models {params.models}"
        " --scores {input.scores} --output {output.svg} {output.png} --log {log}"


rule plot_differences:
    input:
        comparison=paths.comparison,
    output:
        svg=report(
            paths.figure("differences", "svg"),
            caption="../report/captions/differences.rst",
            category="Benchmarks",
        ),
        png=paths.figure("differences", "png"),
    log:
        paths.log("plot_differences"),
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    params:
        config=as_json(cfg.plot),
    shell:
        "exec python -m scripts.plot.plot_differences --config {params.config:q} --comparison {input.comparison}"
        " --output {output.svg} {output.png} --log {log}"
