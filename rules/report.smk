# The report: Markdown from the tables, PDF from the Markdown.

TEMPLATES = Path(workflow.basedir) / "report"


rule write_report:
    input:
        template=TEMPLATES / "report.md.jinja",
        words=TEMPLATES / "words" / f"{cfg.report.language}.yaml",
        cards=expand("<results>/data/{dataset}.json", dataset=cfg.datasets),
        models=expand("<work>/models/{model}/manifest.json", model=cfg.models),
        forecast=rules.forecast_training.output.forecast,
        logs=expand("<results>/training/{stage}.parquet", stage=cfg.models[1:]),
        scores=expand(
            "<results>/scores/{model}/{name}.json",
            name=cfg.scores,
            model=cfg.models,
        ),
        by_item=expand(
            "<results>/scores/{model}/{name}.items.jsonl",
            name=cfg.scores,
            model=cfg.models,
        ),
        comparison="<results>/comparison.json",
        seed_comparison="<results>/seed_comparison.json",
        abilities="<results>/abilities.json",
        figures=expand("<results>/figures/{figure}.svg", figure=FIGURES),
    output:
        report="<results>/report.md",
    log:
        "<logs>/write_report.log",
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    params:
        config=as_json(cfg.report),
        run=cfg.run.name,
        seed=cfg.run.seed,
        alpha=cfg.comparison.alpha,
    shell:
        "exec python -m scripts.report.write_report --config {params.config:q} --run {params.run} --seed {params.seed}"
        " --alpha {params.alpha} --template {input.template:q} --words {input.words:q} --cards {input.cards}"
        " --models {input.models} --forecast {input.forecast} --logs {input.logs} --scores {input.scores}"
        " --items {input.by_item} --comparison {input.comparison} --seed-comparison {input.seed_comparison}"
        " --abilities {input.abilities} --figures {input.figures} --output {output.report}"
        " --log {log}"


rule build_pdf:
    input:
        report=rules.write_report.output.report,
        page=TEMPLATES / "page.typ",
        figures=rules.write_report.input.figures,
    output:
        pdf=report(
            "<results>/report.pdf",
            caption="../report/captions/report.rst",
            category="Report",
        ),
    log:
        "<logs>/build_pdf.log",
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    shell:
        "exec python -m scripts.report.build_pdf --report {input.report} --page {input.page:q} --output {output.pdf}"
        " --log {log}"


rule write_model_card:
    input:
        models=lambda wildcards: expand("<work>/models/{model}/manifest.json", model=cfg.ancestry(wildcards.stage)),
        cards=lambda wildcards: expand(
            "<results>/data/{dataset}.md",
            dataset=dict.fromkeys(cfg.stages[stage].dataset for stage in cfg.ancestry(wildcards.stage)[1:]),
        ),
        scores=expand("<results>/scores/{{stage}}/{name}.json", name=cfg.scores),
        comparison="<results>/comparison.json",
    output:
        card="<results>/models/{stage}.md",
    log:
        "<logs>/write_model_card/{stage}.log",
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
            "<results>/scores/{model}/{dataset}.items.jsonl",
            dataset=cfg.held_out_conversations,
            model=cfg.models,
        ),
    output:
        examples="<results>/examples.md",
    log:
        "<logs>/write_examples.log",
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    params:
        models=cfg.models,
        datasets=list(cfg.held_out_conversations),
    shell:
        "exec python -m scripts.report.write_examples --models {params.models} --datasets {params.datasets} --rows 20"
        " --items {input.by_item} --output {output.examples} --log {log}"
