"""Odds ratio preference optimisation: learn the chosen answer and push the rejected one down, with no reference."""

from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from scripts.common.console import run_script
from scripts.train.recipe import fit, load_model, load_rows, make_adapters, make_arguments, parse_job, save


def main() -> None:
    job = parse_job(__doc__)
    train, validation = load_rows(job, ["prompt", "chosen", "rejected"])
    model, tokenizer = load_model(job)

    trainer = ORPOTrainer(
        model=model,
        args=make_arguments(ORPOConfig, job, tokenizer, validation is not None),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
        peft_config=make_adapters(job),
    )

    facts = fit(trainer, job)
    save(trainer, tokenizer, job, facts | {"train_rows": len(train)})


if __name__ == "__main__":
    run_script(main)
