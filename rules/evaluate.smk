# Benchmarks and scores: one job for each model and benchmark, and comparisons of all scores.
from scripts.common.job_inputs import mirror_files, own_scoring, own_task_files
from scripts.common.jobs import benchmark_launcher, benchmark_resources


rule download_benchmark:
    input:
        task=lambda wildcards: own_task_files(cfg.benchmarks[wildcards.benchmark].task),
        files=lambda wildcards: mirror_files(cfg.benchmarks[wildcards.benchmark].source),
    output:
        questions=paths.questions("{benchmark}"),
        manifest=paths.benchmark("{benchmark}"),
    log:
        paths.log("download_benchmark", "{benchmark}"),
    wildcard_constraints:
        benchmark=one_of(cfg.benchmarks),
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    params:
        config=lambda wildcards: as_json(
            {key: cfg.benchmarks[wildcards.benchmark].as_dict()[key] for key in ("task", "source", "unsafe_code")}
        ),
        tasks=str(OWN_TASKS),
        mirror=lambda wildcards: paths.mirror(wildcards.benchmark),
    shell:
        "exec python -m scripts.evaluate.download_benchmark --name {wildcards.benchmark} --config {params.config:q}"
        " --tasks {params.tasks:q} --questions {output.questions} --mirror {params.mirror} --manifest {output.manifest}"
        " --log {log}"


rule run_benchmark:
    input:
        model=paths.model("{model}"),
        benchmark=lambda wildcards: paths.benchmark(cfg.benchmark_of[wildcards.benchmark]),
        task=lambda wildcards: own_task_files(cfg.protocols[wildcards.benchmark].task),
        scoring=lambda wildcards: own_scoring(cfg.protocols[wildcards.benchmark].task),
    output:
        by_item=paths.items("{model}", "{benchmark}"),
        scores=paths.score("{model}", "{benchmark}"),
    log:
        paths.log("run_benchmark", "{model}", "{benchmark}"),
    wildcard_constraints:
        benchmark=one_of(cfg.protocols),
    priority: lambda wildcards: cfg.protocols[wildcards.benchmark].cost
    conda:
        "../envs/posttrain.yaml"
    threads: benchmark_resources(cfg)["cpus_per_task"]
    resources:
        **benchmark_resources(cfg),
    params:
        compute=compute_environment(cfg.resources.evaluate),
        launcher=lambda wildcards: benchmark_launcher(cfg.protocols[wildcards.benchmark]),
        config=lambda wildcards: as_json(cfg.protocols[wildcards.benchmark].identity()),
        dtype=cfg.model.dtype,
        seed=cfg.run.seed,
        cpus=cpu_threads(cfg.resources.evaluate),
        tasks=str(OWN_TASKS),
        mirror=lambda wildcards: paths.mirror(cfg.benchmark_of[wildcards.benchmark]),
        batch_sizes=lambda wildcards: paths.batch_sizes(wildcards.benchmark),
    shell:
        "exec {params.compute} {params.launcher} scripts.evaluate.run_benchmark"
        " --name {wildcards.benchmark} --config {params.config:q} --dtype {params.dtype} --seed {params.seed}"
        " --cpus {params.cpus} --memory-mb {resources.mem_mb} --tasks {params.tasks:q} --model {input.model}"
        " --model-name {wildcards.model} --benchmark {input.benchmark} --mirror {params.mirror}"
        " --batch-sizes {params.batch_sizes} --scores {output.scores} --items {output.by_item} --log {log}"


rule judge_answers:
    input:
        scores=lambda wildcards: paths.score(wildcards.model, cfg.judged[wildcards.judged]),
        by_item=lambda wildcards: paths.items(wildcards.model, cfg.judged[wildcards.judged]),
        rubrics=lambda wildcards: str(OWN_TASKS / f"{cfg.benchmarks[cfg.judged[wildcards.judged]].task}.jsonl"),
    output:
        by_item=paths.items("{model}", "{judged}"),
        scores=paths.score("{model}", "{judged}"),
    log:
        paths.log("judge_answers", "{model}", "{judged}"),
    wildcard_constraints:
        judged=one_of(cfg.judged),
    localrule: True  # it calls an API that compute nodes may not reach
    conda:
        "../envs/posttrain.yaml"
    params:
        config=as_json(cfg.judge) if cfg.judge else "",
    shell:
        "exec python -m scripts.evaluate.judge_answers --config {params.config:q} --name {wildcards.judged}"
        " --model-name {wildcards.model} --answered-scores {input.scores} --answered-items {input.by_item}"
        " --rubrics {input.rubrics:q} --scores {output.scores} --items {output.by_item} --log {log}"


rule score_preferences:
    input:
        model=paths.model("{model}"),
        pairs=paths.rows("{dataset}", "test"),
    output:
        by_item=paths.items("{model}", "{dataset}"),
        scores=paths.score("{model}", "{dataset}"),
    log:
        paths.log("score_preferences", "{model}", "{dataset}"),
    wildcard_constraints:
        dataset=one_of(cfg.held_out_pairs),
    conda:
        "../envs/posttrain.yaml"
    threads: cfg.resources.evaluate.cpus
    resources:
        **job_resources(cfg.resources.evaluate),
    params:
        compute=compute_environment(cfg.resources.evaluate),
        dtype=cfg.model.dtype,
        cpus=cpu_threads(cfg.resources.evaluate),
    shell:
        "exec {params.compute} python -m scripts.evaluate.score_preferences"
        " --dataset {wildcards.dataset} --pairs {input.pairs} --dtype {params.dtype} --cpus {params.cpus}"
        " --model {input.model} --model-name {wildcards.model} --scores {output.scores} --items {output.by_item}"
        " --log {log}"


rule generate_responses:
    input:
        model=paths.model("{model}"),
        rows=lambda wildcards: paths.rows(wildcards.dataset, cfg.held_out_conversations[wildcards.dataset]),
    output:
        responses=paths.responses("{model}", "{dataset}"),
        manifest=paths.responses_manifest("{model}", "{dataset}"),
    log:
        paths.log("generate_responses", "{model}", "{dataset}"),
    wildcard_constraints:
        dataset=one_of(cfg.held_out_conversations),
    conda:
        "../envs/posttrain.yaml"
    threads: cfg.resources.evaluate.cpus
    resources:
        **job_resources(cfg.resources.evaluate),
    params:
        compute=compute_environment(cfg.resources.evaluate),
        config=as_json(cfg.responses),
        dtype=cfg.model.dtype,
        cpus=cpu_threads(cfg.resources.evaluate),
    shell:
        "exec {params.compute} python -m scripts.evaluate.generate_responses"
        " --dataset {wildcards.dataset} --config {params.config:q} --rows {input.rows} --dtype {params.dtype}"
        " --cpus {params.cpus} --model {input.model} --model-name {wildcards.model} --output {output.responses}"
        " --manifest {output.manifest} --log {log}"


rule score_responses:
    input:
        responses=paths.responses("{model}", "{dataset}"),
        manifest=paths.responses_manifest("{model}", "{dataset}"),
    output:
        by_item=paths.items("{model}", "{dataset}"),
        scores=paths.score("{model}", "{dataset}"),
    log:
        paths.log("score_responses", "{model}", "{dataset}"),
    wildcard_constraints:
        dataset=one_of(cfg.held_out_conversations),
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    shell:
        "exec python -m scripts.evaluate.score_responses --dataset {wildcards.dataset} --model-name {wildcards.model}"
        " --responses {input.responses} --manifest {input.manifest} --scores {output.scores} --items {output.by_item}"
        " --log {log}"


# The stages wait for it, but with `ancient`, so a changed expectation trains nothing again.
rule register_expectations:
    output:
        expectations=update(paths.expectations),
    log:
        paths.log("register_expectations"),
    priority: 100
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    params:
        expectations=json.dumps(cfg.expected_changes),
        # Snakemake does not compare parameters that depend on the output, so only changed expectations run this again.
        sha256=lambda wildcards, output: hash_json(cfg.as_dict()),
        stages=lambda wildcards, output: [paths.model(stage).parent for stage in cfg.stages],
    shell:
        "exec python -m scripts.evaluate.register_expectations --expectations {params.expectations:q}"
        " --config-sha256 {params.sha256} --stages {params.stages} --output {output.expectations} --log {log}"


rule compare_models:
    input:
        expectations=paths.expectations,
        scores=all_scores(),
        by_item=all_items(),
    output:
        comparison=paths.comparison,
        manifest=paths.comparison_manifest,
    log:
        paths.log("compare_models"),
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    params:
        alpha=cfg.comparison.alpha,
        seed=cfg.run.seed,
        margins=as_json({name: benchmark.margin for name, benchmark in cfg.protocols.items() if benchmark.margin}),
        pairs=[f"{baseline}:{model}" for baseline, model in cfg.comparisons],
    shell:
        "exec python -m scripts.evaluate.compare_models --alpha {params.alpha} --seed {params.seed}"
        " --margins {params.margins:q} --pairs {params.pairs} --expectations {input.expectations} --scores {input.scores} --items {input.by_item}"
        " --output {output.comparison} --manifest {output.manifest} --log {log}"


rule compare_seeds:
    input:
        expectations=paths.expectations,
        scores=all_scores(),
        by_item=all_items(),
    output:
        comparison=paths.seed_comparison,
        manifest=paths.seed_comparison_manifest,
    log:
        paths.log("compare_seeds"),
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    params:
        alpha=cfg.comparison.alpha,
        seed=cfg.run.seed,
        comparisons=json.dumps(cfg.seed_comparisons),
    shell:
        "exec python -m scripts.evaluate.compare_seeds --alpha {params.alpha} --seed {params.seed}"
        " --comparisons {params.comparisons:q} --expectations {input.expectations} --scores {input.scores} --items {input.by_item}"
        " --output {output.comparison} --manifest {output.manifest} --log {log}"


rule grade_abilities:
    input:
        scores=expand(paths.score("{model}", "{benchmark}"), model=cfg.models, benchmark=cfg.abilities),
    output:
        abilities=paths.abilities,
    log:
        paths.log("grade_abilities"),
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
        models=expand(paths.model("{model}"), model=cfg.models),
        logs=expand(paths.training_log("{stage}"), stage=cfg.models[1:]),
        scores=all_scores(),
        answers=expand(
            paths.items("{model}", "{dataset}"),
            model=cfg.models,
            dataset=cfg.held_out_conversations,
        ),
        comparison=rules.compare_models.output.comparison,
        seed_comparison=rules.compare_seeds.output.comparison,
        abilities=rules.grade_abilities.output.abilities,
    output:
        results=paths.collected,
    log:
        paths.log("collect_results"),
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    params:
        run=cfg.run.name,
        answered=lambda wildcards, input: expand(
            "{model}:{dataset}", model=cfg.models, dataset=cfg.held_out_conversations
        ),
    shell:
        "exec python -m scripts.evaluate.collect_results --run {params.run} --models {input.models}"
        " --logs {input.logs} --scores {input.scores} --answers {input.answers} --answered {params.answered} --comparison {input.comparison}"
        " --seed-comparison {input.seed_comparison} --abilities {input.abilities} --output {output.results} --log {log}"


rule check_benchmarks:
    log:
        paths.log("check_benchmarks"),
    retries: 0
    localrule: True
    conda:
        "../envs/posttrain.yaml"
    params:
        offline=assign(OFFLINE),
        benchmarks=as_json({name: benchmark.as_dict() for name, benchmark in cfg.benchmarks.items()}),
        tasks=str(OWN_TASKS),
    shell:
        "exec env {params.offline} python -m scripts.evaluate.check_benchmarks --benchmarks {params.benchmarks:q}"
        " --tasks {params.tasks:q} --log {log}"
