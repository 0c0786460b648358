"""Parts of the report: functions that turn the tables of a run into sentences and Markdown tables."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from scripts.common.config import BASE
from scripts.common.errors import UserError
from scripts.common.formats import DASH, count, duration, gigabytes, magnitude, p_value, percent, signed_points
from scripts.common.markdown import Cells, Markdown, cut_end, cut_start, finalise, make_table
from scripts.common.records import (
    Ability,
    AnyManifest,
    BaseManifest,
    Comparison,
    Conclusion,
    DataCard,
    Funnel,
    Item,
    MeanScore,
    OriginFacts,
    Registration,
    Score,
    SeedComparison,
    SourceManifest,
    StageForecast,
    StageManifest,
    TrainingStep,
    Verdict,
)
from scripts.report.words import Words

T = TypeVar("T")

Found = Comparison | SeedComparison

VERDICTS: dict[Verdict, str] = {
    "improved": "improved",
    "worsened": "worsened",
    "held": "held",
    "no difference found": "unclear",
}
"""Suffix of the words of each verdict, in the order in which the report lists them."""

NAMED_IN_FULL = 4
"""Most benchmarks with the same verdict whose intervals are given in the text. The table has all of them."""

MODELS_A_TABLE = 5
"""Most models in one table of scores, so that it fits on the page."""

HELD_OUT = ("validation", "test")
"""Splits that are not trained on."""

LANGUAGES = 3
"""Most languages of a data set that are listed."""

SPAN = 80
"""Characters of an overlap with a benchmark that are shown."""

CHOICE_METRICS = ("acc", "acc_norm", "preference_accuracy")
"""Metrics that compare the likelihoods of given texts. Their items have no generated answers to show."""


@dataclass(frozen=True)
class Tables:
    """The data of the report.

    Args:
        cards: card of each data set.
        base: manifest of the base model.
        stages: manifest of each trained model, parents before children.
        forecast: forecast of each stage, in the same order.
        logs: training log of each stage, in the same order.
        scores: score of each model on each benchmark.
        comparisons: paired comparisons of models.
        seed_comparisons: comparisons of stages that were trained with several seeds.
        registered: what was expected of the run, oldest entry first.
        abilities: mean score of each model by ability.
    """

    cards: list[DataCard]
    base: BaseManifest
    stages: list[StageManifest]
    forecast: list[StageForecast]
    logs: list[list[TrainingStep]]
    scores: list[Score]
    comparisons: list[Comparison]
    seed_comparisons: list[SeedComparison]
    registered: list[Registration]
    abilities: list[Ability]

    @property
    def funnels(self) -> list[Funnel]:
        return [card["funnel"] for card in self.cards]

    @property
    def datasets(self) -> list[SourceManifest]:
        return [card["source"] for card in self.cards]

    @property
    def models(self) -> list[AnyManifest]:
        return [self.base, *self.stages]

    @property
    def model_names(self) -> list[str]:
        return [model["name"] for model in self.models]

    @property
    def benchmarks(self) -> list[str]:
        return list(dict.fromkeys(score["benchmark"] for score in self.scores))

    @property
    def manifests(self) -> list[AnyManifest]:
        return [*self.datasets, *self.models, *(score["provenance"] for score in self.scores)]


# --- summary ------------------------------------------------------------------------------------


def summarise(tables: Tables, run: str, words: Words) -> Markdown:
    """The paragraph on what the run trained and scored."""
    return words(
        "summary_stages" if tables.stages else "summary_base",
        run=run,
        origin=tables.base["facts"]["origin"],
        stages=words.enumerate(tables.model_names[1:]) if tables.stages else "",
        models=words.enumerate(tables.model_names),
        benchmarks=words.enumerate(tables.benchmarks),
    )


def key_facts(tables: Tables, seed: int, words: Words) -> Markdown:
    """Table of the base model, the stages, and the time and memory of the run."""
    base = tables.base["facts"]
    origin = join([base["origin"], describe_version(base, words), base.get("note")], "; ")
    rows: list[Cells] = [
        [words("base_model"), origin],
        [words("parameters"), magnitude(base["parameters"])],
        *([words("stage", name=stage["name"]), describe_stage(stage, words)] for stage in tables.stages),
        [words("seed"), seed],
        [words("device"), words.enumerate(unique(manifest["device"] for manifest in tables.models))],
        [words("job_time"), words("job_time_value", time=duration(sum(m["seconds"] for m in tables.manifests)))],
        [words("peak_memory"), words("peak_memory_value", memory=describe_memory(tables.manifests, words))],
    ]
    return make_table([words("key_fact"), words("key_value")], rows, "lw", words("key_facts_caption"))


def describe_stage(stage: StageManifest, words: Words) -> Markdown:
    """Method, parent, data set, tuning, steps and seed of a stage."""
    config = stage["config"]
    return words(
        "stage_value",
        method=config["method"].upper(),
        parent=config["from"],
        dataset=config["dataset"],
        tuning=words(f"tuning_{config['tuning']}", **config["lora"]),
        steps=count(stage["facts"]["steps"]),
        seed=config["seed"],
    )


def describe_version(facts: OriginFacts, words: Words) -> Markdown | None:
    """Abbreviated revision or checksum; None if neither was recorded."""
    if revision := facts.get("revision"):
        return words("revision", revision=revision[:12])
    if sha256 := facts.get("sha256"):
        return words("checksum", sha256=sha256[:12])
    return None


def describe_memory(manifests: Iterable[AnyManifest], words: Words) -> Markdown:
    """Largest peak memory of any process, in main memory and, if there was a GPU, in GPU memory."""
    manifests = list(manifests)
    memory = gigabytes(max(manifest["peak_memory_bytes"] for manifest in manifests))
    on_gpu = [m["peak_gpu_memory_bytes"] for m in manifests if m["peak_gpu_memory_bytes"] is not None]
    return words("gpu_memory", memory=memory, gpu=gigabytes(max(on_gpu))) if on_gpu else memory


# --- verdict ------------------------------------------------------------------------------------


def count_verdicts(comparisons: list[Comparison]) -> dict[str, int]:
    """Numbers of comparisons, in `total` and by verdict; the other keys are the values of VERDICTS."""
    return {"total": len(comparisons)} | {
        word: sum(row["verdict"] == verdict for row in comparisons) for verdict, word in VERDICTS.items()
    }


def verdicts(comparisons: list[Comparison], alpha: float, words: Words) -> list[Markdown]:
    """One sentence for each pair of models: what improved, what got worse, and where no difference was found."""
    return [
        words("verdict_pair", model=model, baseline=baseline, findings=describe_findings(rows, alpha, words))
        for (baseline, model), rows in group(comparisons, lambda row: (row["baseline"], row["model"])).items()
    ]


def seed_verdicts(comparisons: list[SeedComparison], alpha: float, words: Words) -> list[Markdown]:
    """One sentence for each stage that was trained with several seeds, from its comparison over items and seeds."""
    return [
        words(
            "verdict_seeds",
            model=stage,
            baseline=baseline,
            seeds=count(rows[0]["seeds"]),
            findings=describe_findings(rows, alpha, words),
        )
        for (baseline, stage), rows in group(comparisons, lambda row: (row["baseline"], row["stage"])).items()
    ]


def group(rows: list[T], key: Callable[[T], tuple[str, str]]) -> dict[tuple[str, str], list[T]]:
    """Group rows by key, in the order of their first occurrence."""
    groups: dict[tuple[str, str], list[T]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def describe_findings(rows: Sequence[Found], alpha: float, words: Words) -> Markdown:
    """Benchmarks of one pair of models, grouped by verdict."""
    findings = [find(rows, verdict, alpha, words) for verdict in VERDICTS]
    return Markdown(words("verdict_separator").join(finding for finding in findings if finding))


def find(rows: Sequence[Found], verdict: Verdict, alpha: float, words: Words) -> Markdown | None:
    """Benchmarks with this verdict, with intervals if there are few; None if there are none."""
    chosen = [row for row in rows if row["verdict"] == verdict]
    if not chosen:
        return None
    in_full = len(chosen) <= NAMED_IN_FULL
    items = [describe_comparison(row, alpha, words) if in_full else name_comparison(row, words) for row in chosen]
    return words(f"verdict_{VERDICTS[verdict]}", items=words.enumerate(items))


def describe_comparison(row: Found, alpha: float, words: Words) -> Markdown:
    """A benchmark with its difference, interval, n and adjusted p value."""
    return words(
        "verdict_item",
        benchmark=row["benchmark"],
        difference=signed_points(row["difference"]),
        confidence=confidence(alpha),
        low=signed_points(row["ci_low"]),
        high=signed_points(row["ci_high"]),
        n=count(row["n"]),
        p=describe_p(row, words),
    )


def name_comparison(row: Found, words: Words) -> Markdown:
    """A benchmark with its difference and adjusted p value."""
    difference = signed_points(row["difference"])
    return words("verdict_short", benchmark=row["benchmark"], difference=difference, p=describe_p(row, words))


def describe_p(row: Conclusion, words: Words) -> Markdown:
    """The adjusted p value with its sign: `= 0.012` or `< 0.001`."""
    p = row["p_adjusted"]
    return words("p_below" if p < 0.001 else "p_equal", p=p_value(p))


def confidence(alpha: float) -> Markdown:
    """Confidence level in percent: `95` for an alpha of 0.05."""
    return Markdown(f"{100 * (1 - alpha):.6g}")


# --- data ---------------------------------------------------------------------------------------


def check_funnel(funnel: Funnel) -> None:
    """Raise UserError unless every row was either removed by a step or is in a split."""
    name, steps = funnel["dataset"], funnel["steps"]
    for before, after in pairwise(steps):
        if before["rows"] - after["removed"] != after["rows"]:
            raise UserError(
                f"funnel of {name}: step {after['step']} removed {after['removed']} of {before['rows']} rows, but "
                f"{after['rows']} are left; run filter_dataset for {name} again"
            )
    in_splits = sum(funnel["splits"].values())
    if in_splits != steps[-1]["rows"]:
        raise UserError(
            f"funnel of {name}: {steps[-1]['rows']} rows are left, but the splits have {in_splits}; "
            f"run filter_dataset for {name} again"
        )


def data_table(funnels: list[Funnel], words: Words) -> Markdown:
    """Table of the rows of each data set: how many were read, removed by each filter, and left in each split."""
    rows: list[Cells] = []
    for funnel in funnels:
        check_funnel(funnel)
        removed: list[object] = [
            words("removed", step=words.either("step", step["step"]), rows=count(step["removed"]))
            for step in funnel["steps"]
            if step["removed"]
        ]
        rows.append(
            [
                funnel["dataset"],
                count(funnel["steps"][0]["rows"]),
                join(removed, words("list_comma")) if removed else words("removed_nothing"),
                count(funnel["steps"][-1]["rows"]),
                count(funnel["splits"].get("train")),
                *(count(funnel["splits"][split]) for split in HELD_OUT),
            ]
        )
    header = [
        *(words("dataset"), words("read"), words("removed_by"), words("left"), words("train")),
        *(words(split) for split in HELD_OUT),
    ]
    return make_table(header, rows, "lrwrrrr", words("data_caption"))


def card_table(cards: list[DataCard], words: Words) -> Markdown:
    """Table of the sources, licences, lengths and languages of the data sets."""
    rows: list[Cells] = []
    for card in cards:
        facts, summary = card["source"]["facts"], card["summary"]
        train = summary["tokens"]["splits"]["train"]
        found = sum(summary["languages"].values())
        languages = [
            f"{code} {percent(rows / found)}%" for code, rows in list(summary["languages"].items())[:LANGUAGES]
        ]
        rows.append(
            [
                summary["dataset"],
                join([facts["origin"], describe_version(facts, words)], "; "),
                facts.get("licence") or words("licence_unknown"),
                Markdown(f"{count(train['median'])} ({count(train['p5'])}–{count(train['p95'])})")
                if train["counted"]
                else DASH,
                join(languages, ", ") if languages else DASH,
            ]
        )
    header = [words("dataset"), words("source"), words("licence"), words("tokens_of_rows"), words("languages")]
    return make_table(header, rows, "lwlrl", words("card_caption"))


def overlap_table(cards: list[DataCard], words: Words) -> Markdown:
    """Table of the overlap of data sets with benchmarks; a sentence if there is none or if it was not searched for."""
    rows: list[Cells] = []
    is_searched = False
    for card in cards:
        for overlap in card["summary"]["benchmarks"]:
            is_searched = True
            if overlap["rows_hit"]:
                rows.append(
                    [
                        *(card["summary"]["dataset"], overlap["benchmark"]),
                        words("of", part=count(overlap["items_hit"]), whole=count(overlap["items"])),
                        Markdown(f"{count(overlap['rows_hit'])} ({percent(overlap['share'])}%)"),
                        words("overlap_removed" if overlap["removed"] else "overlap_kept"),
                        cut_end(overlap["examples"][0]["span"], SPAN),
                    ]
                )
    if not rows:
        return words("overlap_none" if is_searched else "overlap_unknown")
    header = [
        *(words("dataset"), words("benchmark"), words("items_found"), words("rows_found"), words("these_rows")),
        words("longest_span"),
    ]
    return make_table(header, rows, "lllrlw", words("overlap_caption"))


# --- benchmarks ---------------------------------------------------------------------------------


def score_tables(tables: Tables, words: Words) -> list[Markdown]:
    """Tables of the scores with their intervals. Each has a few of the models."""
    names = tables.model_names
    groups = [names[start : start + MODELS_A_TABLE] for start in range(0, len(names), MODELS_A_TABLE)]
    found = {(score["benchmark"], score["model"]): score for score in tables.scores}
    numbers = {benchmark: count_items(tables.scores, benchmark) for benchmark in tables.benchmarks}
    return [
        make_table(
            [words("benchmark"), words("metric"), "n", *group],
            [
                [
                    *(name, describe_metric(found[name, group[0]], words), count(numbers[name])),
                    *(describe_score(found.get((name, model))) for model in group),
                ]
                for name in tables.benchmarks
            ],
            "lwr" + "r" * len(group),
            words("scores_caption"),
        )
        for group in groups
    ]


def describe_metric(score: Score, words: Words) -> Markdown:
    """Metric, filter and number of few-shot examples of a score."""
    protocol = score["protocol"]
    chosen = protocol.get("filter", "none")
    parts = [words.either("metric", score["metric"]), None if chosen == "none" else chosen]
    return join([*parts, words("shots", shots=protocol["shots"]) if protocol.get("shots") else None], ", ")


def count_items(scores: list[Score], benchmark: str) -> int:
    """Number of items of a benchmark. Raises UserError if models have different numbers."""
    numbers = {score["model"]: score["n"] for score in scores if score["benchmark"] == benchmark}
    if len(set(numbers.values())) > 1:
        given = ", ".join(f"{model} {n}" for model, n in numbers.items())
        raise UserError(
            f"scores of {benchmark}: models have different numbers of items ({given}); score them all again"
        )
    return int(next(iter(numbers.values())))


def describe_score(score: Score | MeanScore | None) -> Markdown:
    """A score in percent with its interval."""
    if score is None:
        return Markdown(DASH)
    return Markdown(f"{percent(score['score'])} [{percent(score['ci_low'])}, {percent(score['ci_high'])}]")


def describe_difference(row: Found) -> Markdown:
    """A difference with its interval: `+4.5 [+1.0, +8.0]`."""
    low, high = signed_points(row["ci_low"]), signed_points(row["ci_high"])
    return Markdown(f"{signed_points(row['difference'])} [{low}, {high}]")


def comparison_table(comparisons: list[Comparison], alpha: float, words: Words) -> Markdown:
    """Table of paired comparisons that were not expected: of all, if nothing was."""
    rows: list[Cells] = [
        [
            row["benchmark"],
            words("comparison_value", model=row["model"], baseline=row["baseline"]),
            count(row["n"]),
            percent(row["baseline_score"]),
            percent(row["model_score"]),
            describe_difference(row),
            Markdown(f"{100 * row['smallest_difference']:.1f}"),
            p_value(row["p_adjusted"]),
            words(f"short_{VERDICTS[row['verdict']]}", margin=f"{100 * (row['margin'] or 0):.1f}"),
        ]
        for row in comparisons
    ]
    header = [
        words("benchmark"),
        words("comparison"),
        "n",
        words("before"),
        words("after"),
        words("difference"),
        words("detectable"),
        words("adjusted_p"),
        words("verdict"),
    ]
    is_exploratory = any(row["family"] == "exploratory" for row in comparisons)
    caption = "exploratory_caption" if is_exploratory else "comparisons_caption"
    return make_table(header, rows, "llrrrrrrl", words(caption, confidence=confidence(alpha)))


# --- sample answers -----------------------------------------------------------------------------


def find_generated(scores: list[Score]) -> str | None:
    """The first benchmark with generated answers; None if there is none."""
    return next((score["benchmark"] for score in scores if score["metric"] not in CHOICE_METRICS), None)


def sample_tables(items: dict[str, list[Item]], benchmark: str, examples: int, words: Words) -> list[Markdown]:
    """One table for each item: its prompt, the expected answer, and the answer of each model.

    Args:
        items: items of each model on the benchmark.
        examples: how many of the items that all models have to show, from the first on.
    """
    by_key = {model: {item["key"]: item for item in own} for model, own in items.items()}
    first = next(iter(items.values()))
    shared = [item for item in first if all(item["key"] in own for own in by_key.values())]
    return [
        make_table(
            [words("question"), cut_start(last_question(item["prompt"])), ""],
            [
                [words("expected"), cut_end(item["target"]), ""],
                *(
                    [model, cut_end(own[item["key"]]["answer"]), judge(own[item["key"]]["score"], words)]
                    for model, own in by_key.items()
                ),
            ],
            "lwl",
            words("sample_caption", number=number, benchmark=benchmark),
        )
        for number, item in enumerate(shared[:examples], start=1)
    ]


def last_question(prompt: str) -> str:
    """The last user turn of a prompt in ChatML. Other prompts are returned unchanged.

    >>> last_question("<|im_start|>user\\n2 + 2 =<|im_end|>\\n<|im_start|>assistant\\n")
    '2 + 2 ='
    """
    _, marker, turn = prompt.rpartition("<|im_start|>user\n")
    return turn.split("<|im_end|>")[0] if marker else prompt


def judge(score: float, words: Words) -> Markdown:
    """`right`, `wrong`, or the percentage of a graded item."""
    if score in (0, 1):
        return words("right") if score else words("wrong")
    return words("partly", score=percent(score))


# --- provenance ---------------------------------------------------------------------------------


def provenance_table(tables: Tables, words: Words) -> Markdown:
    """Table of all artefacts: what each was made from, on which device, and with how much time and memory."""
    sources = [describe_source(manifest, words) for manifest in [*tables.datasets, *tables.models]]
    sources += [words("made_of_scores", task=score["task"], metric=score["metric"]) for score in tables.scores]
    rows: list[Cells] = [
        [
            name_artefact(manifest, words),
            source,
            shorten_commit(manifest["git_commit"]),
            manifest["device"],
            duration(manifest["seconds"]),
            describe_memory([manifest], words),
        ]
        for manifest, source in zip(tables.manifests, sources, strict=True)
    ]
    header = [words("artefact"), words("made_from"), words("commit"), words("device"), words("time"), words("memory")]
    return make_table(header, rows, "lwllrr", words("provenance_caption"))


def name_artefact(manifest: AnyManifest, words: Words) -> Markdown:
    """`model sft`, `scores sft on gsm8k`."""
    return words(f"artefact_{manifest['artefact']}", name=manifest["name"])


def describe_source(manifest: AnyManifest, words: Words) -> Markdown:
    """Parent and data set of a trained model; origin and version of anything else."""
    config, facts = manifest["config"], manifest["facts"]
    if manifest["artefact"] == "model" and manifest["name"] != BASE:
        return words("made_of_stage", parent=config["from"], dataset=config["dataset"])
    return join([facts["origin"], describe_version(facts, words)], "; ")


def shorten_commit(commit: str | None) -> str:
    """The first seven digits of a commit, with `+` if there were uncommitted changes."""
    return DASH if commit is None else commit[:7] + ("+" if commit.endswith("+") else "")


def describe_versions(tables: Tables, words: Words) -> list[Markdown]:
    """A sentence with the versions of packages, or one for each set of versions if they differ."""
    made: dict[str, list[AnyManifest]] = {}
    for manifest in tables.manifests:
        versions = ", ".join(f"{package} {version}" for package, version in manifest["versions"].items())
        made.setdefault(versions, []).append(manifest)
    if len(made) == 1:
        return [words("versions_all", versions=next(iter(made)))]
    return [
        words(
            "versions_some", artefacts=words.enumerate([name_artefact(m, words) for m in manifests]), versions=versions
        )
        for versions, manifests in made.items()
    ]


# --- small helpers ------------------------------------------------------------------------------


def unique(values: Iterable[T]) -> list[T]:
    """Distinct values in the order of their first occurrence."""
    return list(dict.fromkeys(values))


def join(parts: Sequence[object], separator: str) -> Markdown:
    """Join the parts that are not None. Parts that are not Markdown are escaped."""
    return Markdown(separator.join(finalise(part) for part in parts if part is not None))
