"""Direct preference optimisation (DPO): prefer chosen to rejected answers, with the parent as the reference model."""

from trl import DPOConfig, DPOTrainer

from scripts.common.console import run_script
from scripts.train.arguments import make_arguments, one_line_errors
from scripts.train.finished_training import take_finished
from scripts.train.job import load_rows, parse_job
from scripts.train.model import load_model, load_tokenizer, make_adapters
from scripts.train.proof import prove_template
from scripts.train.training_loop import fit, save


def main() -> None:
    job = parse_job(__doc__)
    if take_finished(job):
        return
    train, validation = load_rows(job, ["prompt", "chosen", "rejected"])
    tokenizer = load_tokenizer(job)
    arguments = make_arguments(DPOConfig, job, tokenizer, validation is not None)
    proof = prove_template(train, tokenizer, job, arguments.max_length)

    # The reference model is the parent: TRL keeps a frozen copy, or disables the adapters.
    with one_line_errors(job):
        trainer = DPOTrainer(
            model=load_model(job),
            args=arguments,
            train_dataset=train,
            eval_dataset=validation,
            processing_class=tokenizer,
            peft_config=make_adapters(job),
        )

    facts = fit(trainer, job)
    save(trainer, tokenizer, job, {**facts, **proof, "train_rows": len(trainer.train_dataset)})


if __name__ == "__main__":
    run_script(main)
