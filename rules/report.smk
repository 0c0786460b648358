# The report (Markdown and PDF), the model cards and the sample answers.

TEMPLATES = REPOSITORY / "report"


rule write_report:
    input:
        template=TEMPLATES / "report.md.jinja",
        words=TEMPLATES / "words" / f"{cfg.report.language}.yaml",
        cards=expand(paths.data_card("{dataset}", "json"), dataset=cfg.datasets),
        models=expand(paths.model("{model}"), model=cfg.models),
        forecast=rules.forecast_training.output.forecast,
        logs=expand(paths.training_log("{stage}"), stage=cfg.models[1:]),
        scores=expand(paths.score("{model}", "{name}"), name=cfg.scores, model=cfg.models),
        by_item=expand(paths.items("{model}", "{name}"), name=cfg.scores, model=cfg.models),
        expectations=paths.expectations,
        comparison=paths.comparison,
        seed_comparison=paths.seed_comparison,
        abilities=paths.abilities,
        figures=expand(paths.figure("{figure}", "svg"), figure=FIGURES),
    output:
        report=paths.report,
    log:
        paths.log("write_report"),
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    params:
        config=as_json(cfg.report),
        run=cfg.run.name,
        seed=cfg.run.seed,
        alpha=cfg.comparison.alpha,
        protocols=as_json(cfg.benchmark_of),
    shell:
        "exec python -m scripts.report.write_report --config {params.config:q} --run {params.run} --seed {params.seed}"
        " --alpha {params.alpha} --protocols {params.protocols:q} --template {input.template:q} --words {input.words:q} --cards {input.cards}"
        " --models {input.models} --forecast {input.forecast} --logs {input.logs} --scores {input.scores}"
        " --items {input.by_item} --expectations {input.expectations} --comparison {input.comparison} --seed-comparison {input.seed_comparison}"
        " --abilities {input.abilities} --figures {input.figures} --output {output.report}"
        " --log {log}"


rule build_pdf:
    input:
        report=rules.write_report.output.report,
        page=TEMPLATES / "page.typ",
        figures=rules.write_report.input.figures,
    output:
        pdf=report(
            paths.pdf,
            caption="../report/captions/report.rst",
            category="Report",
        ),
    log:
        paths.log("build_pdf"),
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    shell:
        "exec python -m scripts.report.build_pdf --report {input.report} --page {input.page:q} --output {output.pdf}"
        " --log {log}"


rule write_model_card:
    input:
        models=lambda wildcards: expand(paths.model("{model}"), model=cfg.ancestry(wildcards.stage)),
        cards=lambda wildcards: expand(
            paths.data_card("{dataset}", "md"),
            dataset=dict.fromkeys(cfg.stages[stage].dataset for stage in cfg.ancestry(wildcards.stage)[1:]),
        ),
        scores=expand(paths.score("{{stage}}", "{name}"), name=cfg.scores),
        comparison=paths.comparison,
    output:
        card=paths.model_card("{stage}"),
    log:
        paths.log("write_model_card", "{stage}"),
    wildcard_constraints:
        stage=one_of(cfg.stages),
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    shell:
        "exec python -m scripts.report.write_model_card --models {input.models} --cards {input.cards}"
        " --scores {input.scores} --comparison {input.comparison} --output {output.card} --log {log}"


rule write_examples:
    input:
        by_item=expand(
            paths.items("{model}", "{dataset}"),
            dataset=cfg.held_out_conversations,
            model=cfg.models,
        ),
    output:
        examples=paths.examples,
    log:
        paths.log("write_examples"),
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    params:
        models=cfg.models,
        datasets=list(cfg.held_out_conversations),
    shell:
        "exec python -m scripts.report.write_examples --models {params.models} --datasets {params.datasets} --rows 20"
        " --items {input.by_item} --output {output.examples} --log {log}"
