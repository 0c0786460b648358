"""Supervised fine-tuning: learn the assistant's turns of conversations."""

from trl import SFTConfig, SFTTrainer

from scripts.common.console import run_script
from scripts.train.recipe import fit, load_model, load_rows, make_adapters, make_arguments, parse_job, prove_mask, save


def main() -> None:
    job = parse_job(__doc__)
    train, validation = load_rows(job, ["messages"])
    model, tokenizer = load_model(job)
    arguments = make_arguments(SFTConfig, job, tokenizer, validation is not None)
    proof = prove_mask(train, tokenizer, job, arguments.max_length)

    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
        peft_config=make_adapters(job),
    )

    facts = fit(trainer, job)
    save(trainer, tokenizer, job, facts | {"train_rows": len(train)} | proof)


if __name__ == "__main__":
    run_script(main)
