"""Kahneman-Tversky optimisation: learn from answers that are labelled desirable or not, against the parent."""

from trl import KTOConfig, KTOTrainer

from scripts.common.console import run_script
from scripts.train.recipe import fit, load_model, load_rows, make_adapters, make_arguments, parse_job, save


def main() -> None:
    job = parse_job(__doc__)
    train, validation = load_rows(job, ["prompt", "completion", "label"])
    model, tokenizer = load_model(job)

    # The reference model is the parent: TRL keeps a frozen copy of it, or turns the adapters off.
    trainer = KTOTrainer(
        model=model,
        args=make_arguments(KTOConfig, job, tokenizer, validation is not None),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
        peft_config=make_adapters(job),
    )

    facts = fit(trainer, job)
    save(trainer, tokenizer, job, facts | {"train_rows": len(train)})


if __name__ == "__main__":
    run_script(main)
