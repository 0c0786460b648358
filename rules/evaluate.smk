# One job a (model, benchmark) pair, and one comparison of them all.
rule run_benchmark:
    input:
        model="<work>/models/{model}/manifest.json",
        benchmark="<work>/benchmarks/{benchmark}/manifest.json",
        task=lambda wildcards: own_task(wildcards.benchmark),
        scoring=lambda wildcards: own_scoring(wildcards.benchmark),
    output:
        by_item="<results>/scores/{model}/{benchmark}.items.jsonl",
        scores="<results>/scores/{model}/{benchmark}.json",
    log:
        "<logs>/run_benchmark/{model}/{benchmark}.log",
    wildcard_constraints:
        benchmark=one_of(cfg.benchmarks),
    priority: lambda wildcards: cfg.benchmarks[wildcards.benchmark].cost
    conda:
        "../envs/posttrain.yaml"
    threads: for_each_process(cfg.resources.evaluate.cpus)
    resources:
        **benchmark_resources(),
    params:
        compute=compute("evaluate"),
        launcher=lambda wildcards: benchmark_launcher(wildcards.benchmark),
        config=lambda wildcards: as_json(cfg.benchmarks[wildcards.benchmark].identity()),
        dtype=cfg.model.dtype,
        seed=cfg.run.seed,
        cpus=cpus("evaluate"),
        tasks=str(OWN_TASKS),
    shell:
        "exec {params.compute} {params.launcher} scripts.evaluate.run_benchmark"
        " --name {wildcards.benchmark} --config {params.config:q} --dtype {params.dtype} --seed {params.seed}"
        " --cpus {params.cpus} --memory-mb {resources.mem_mb} --tasks {params.tasks:q} --model {input.model} --model-name {wildcards.model}"
        " --benchmark {input.benchmark} --scores {output.scores} --items {output.by_item} --log {log}"


rule judge_answers:
    input:
        scores=lambda wildcards: f"<results>/scores/{wildcards.model}/{cfg.judged[wildcards.judged]}.json",
        by_item=lambda wildcards: f"<results>/scores/{wildcards.model}/{cfg.judged[wildcards.judged]}.items.jsonl",
        rubrics=lambda wildcards: str(OWN_TASKS / f"{cfg.benchmarks[cfg.judged[wildcards.judged]].task}.jsonl"),
    output:
        by_item="<results>/scores/{model}/{judged}.items.jsonl",
        scores="<results>/scores/{model}/{judged}.json",
    log:
        "<logs>/judge_answers/{model}/{judged}.log",
    wildcard_constraints:
        judged=one_of(cfg.judged),
    localrule: True  # it asks an endpoint, which compute nodes may not reach
    conda:
        "../envs/posttrain.yaml"
    params:
        config=as_json(cfg.judge) if cfg.judge else "",
    shell:
        "exec python -m scripts.evaluate.judge_answers --config {params.config:q} --name {wildcards.judged}"
        " --model-name {wildcards.model} --scores {input.scores} --rubrics {input.rubrics:q} --output {output.scores}"
        " --items {output.by_item} --log {log}"


rule score_preferences:
    input:
        model="<work>/models/{model}/manifest.json",
        pairs="<work>/datasets/{dataset}/test.parquet",
    output:
        by_item="<results>/scores/{model}/{dataset}.items.jsonl",
        scores="<results>/scores/{model}/{dataset}.json",
    log:
        "<logs>/score_preferences/{model}/{dataset}.log",
    wildcard_constraints:
        dataset=one_of(cfg.held_out_pairs),
    conda:
        "../envs/posttrain.yaml"
    threads: cfg.resources.evaluate.cpus
    resources:
        **job_resources("evaluate"),
    params:
        compute=compute("evaluate"),
        dtype=cfg.model.dtype,
        cpus=cpus("evaluate"),
    shell:
        "exec {params.compute} python -m scripts.evaluate.score_preferences"
        " --dataset {wildcards.dataset} --pairs {input.pairs} --dtype {params.dtype} --cpus {params.cpus}"
        " --model {input.model} --model-name {wildcards.model} --scores {output.scores} --items {output.by_item}"
        " --log {log}"


rule generate_responses:
    input:
        model="<work>/models/{model}/manifest.json",
        rows=lambda wildcards: (
            f"<work>/datasets/{wildcards.dataset}/{cfg.held_out_conversations[wildcards.dataset]}.parquet"
        ),
    output:
        responses="<work>/responses/{model}/{dataset}.jsonl",
        manifest="<work>/responses/{model}/{dataset}.manifest.json",
    log:
        "<logs>/generate_responses/{model}/{dataset}.log",
    wildcard_constraints:
        dataset=one_of(cfg.held_out_conversations),
    conda:
        "../envs/posttrain.yaml"
    threads: cfg.resources.evaluate.cpus
    resources:
        **job_resources("evaluate"),
    params:
        compute=compute("evaluate"),
        config=as_json(cfg.responses),
        dtype=cfg.model.dtype,
        cpus=cpus("evaluate"),
    shell:
        "exec {params.compute} python -m scripts.evaluate.generate_responses"
        " --dataset {wildcards.dataset} --config {params.config:q} --rows {input.rows} --dtype {params.dtype}"
        " --cpus {params.cpus} --model {input.model} --model-name {wildcards.model} --output {output.responses}"
        " --manifest {output.manifest} --log {log}"


rule score_responses:
    input:
        responses="<work>/responses/{model}/{dataset}.jsonl",
        manifest="<work>/responses/{model}/{dataset}.manifest.json",
    output:
        by_item="<results>/scores/{model}/{dataset}.items.jsonl",
        scores="<results>/scores/{model}/{dataset}.json",
    log:
        "<logs>/score_responses/{model}/{dataset}.log",
    wildcard_constraints:
        dataset=one_of(cfg.held_out_conversations),
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    shell:
        "exec python -m scripts.evaluate.score_responses --dataset {wildcards.dataset} --model-name {wildcards.model}"
        " --responses {input.responses} --manifest {input.manifest} --scores {output.scores} --items {output.by_item}"
        " --log {log}"


rule compare_models:
    input:
        scores=expand(
            "<results>/scores/{model}/{benchmark}.json",
            model=cfg.models,
            benchmark=cfg.scores,
        ),
        by_item=expand(
            "<results>/scores/{model}/{benchmark}.items.jsonl",
            model=cfg.models,
            benchmark=cfg.scores,
        ),
    output:
        comparison="<results>/comparison.json",
        manifest="<results>/comparison.manifest.json",
    log:
        "<logs>/compare_models.log",
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    params:
        alpha=cfg.comparison.alpha,
        seed=cfg.run.seed,
        margins=as_json({name: benchmark.margin for name, benchmark in cfg.benchmarks.items() if benchmark.margin}),
        pairs=[f"{baseline}:{model}" for baseline, model in cfg.comparisons],
    shell:
        "exec python -m scripts.evaluate.compare_models --alpha {params.alpha} --seed {params.seed}"
        " --margins {params.margins:q} --pairs {params.pairs} --scores {input.scores} --output {output.comparison} --manifest {output.manifest}"
        " --log {log}"


rule compare_seeds:
    input:
        scores=rules.compare_models.input.scores,
        by_item=rules.compare_models.input.by_item,
    output:
        comparison="<results>/seed_comparison.json",
        manifest="<results>/seed_comparison.manifest.json",
    log:
        "<logs>/compare_seeds.log",
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    params:
        alpha=cfg.comparison.alpha,
        seed=cfg.run.seed,
        comparisons=json.dumps(cfg.seed_comparisons),
    shell:
        "exec python -m scripts.evaluate.compare_seeds --alpha {params.alpha} --seed {params.seed}"
        " --comparisons {params.comparisons:q} --scores {input.scores} --output {output.comparison}"
        " --manifest {output.manifest} --log {log}"


rule grade_abilities:
    input:
        scores=expand("<results>/scores/{model}/{benchmark}.json", model=cfg.models, benchmark=cfg.abilities),
    output:
        abilities="<results>/abilities.json",
    log:
        "<logs>/grade_abilities.log",
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    params:
        grades=as_json(cfg.comparison.grades),
        abilities=as_json(cfg.abilities),
    shell:
        "exec python -m scripts.evaluate.grade_abilities --grades {params.grades:q} --abilities {params.abilities:q}"
        " --scores {input.scores} --output {output.abilities} --log {log}"


rule collect_results:
    input:
        models=model_manifests(),
        logs=expand("<results>/training/{stage}.parquet", stage=cfg.models[1:]),
        scores=rules.compare_models.input.scores,
        answers=expand(
            "<results>/scores/{model}/{dataset}.items.jsonl",
            model=cfg.models,
            dataset=cfg.held_out_conversations,
        ),
        comparison=rules.compare_models.output.comparison,
        seed_comparison=rules.compare_seeds.output.comparison,
        abilities=rules.grade_abilities.output.abilities,
    output:
        results="<results>/results.json",
    log:
        "<logs>/collect_results.log",
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    params:
        run=cfg.run.name,
    shell:
        "exec python -m scripts.evaluate.collect_results --run {params.run} --models {input.models}"
        " --logs {input.logs} --scores {input.scores} --answers {input.answers} --comparison {input.comparison}"
        " --seed-comparison {input.seed_comparison} --abilities {input.abilities} --output {output.results} --log {log}"


rule check_benchmarks:
    log:
        "<logs>/check_benchmarks.log",
    retries: 0
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    params:
        offline=OFFLINE,
        benchmarks=as_json({name: benchmark.part() for name, benchmark in cfg.benchmarks.items()}),
        tasks=str(OWN_TASKS),
    shell:
        "exec env {params.offline} python -m scripts.evaluate.check_benchmarks --benchmarks {params.benchmarks:q}"
        " --tasks {params.tasks:q} --log {log}"
