"""Group relative policy optimisation: sample several answers to each prompt, and prefer those that earn more reward."""

from trl import GRPOConfig, GRPOTrainer

from scripts.common.console import run_script
from scripts.train.recipe import fit, load_model, load_rows, make_adapters, make_arguments, parse_job, save
from scripts.train.rewards import make_rewards


def main() -> None:
    job = parse_job(__doc__)
    train, validation = load_rows(job, ["prompt", "answer"])
    model, tokenizer = load_model(job)

    trainer = GRPOTrainer(
        model=model,
        reward_funcs=make_rewards(job.stage.rewards, job.name, train),
        args=make_arguments(GRPOConfig, job, tokenizer, validation is not None),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
        peft_config=make_adapters(job),
    )

    facts = fit(trainer, job)
    save(trainer, tokenizer, job, facts | {"train_rows": len(train)})


if __name__ == "__main__":
    run_script(main)
