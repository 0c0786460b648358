"""Group relative policy optimisation (GRPO): sample several answers to each prompt, and reinforce the better ones."""

from typing import Any

from trl import GRPOConfig, GRPOTrainer

from scripts.common.console import run_script
from scripts.train.arguments import make_arguments, one_line_errors
from scripts.train.finished_training import take_finished
from scripts.train.job import load_rows, parse_job
from scripts.train.model import load_model, load_tokenizer, make_adapters
from scripts.train.proof import prove_template
from scripts.train.rewards import make_rewards
from scripts.train.training_loop import fit, save


def main() -> None:
    job = parse_job(__doc__)
    if take_finished(job):
        return
    train, validation = load_rows(job, ["prompt", "answer"])
    tokenizer = load_tokenizer(job)
    arguments = make_arguments(GRPOConfig, job, tokenizer, validation is not None)
    proof = prove_template(train, tokenizer, job, None)

    with one_line_errors(job):
        trainer = GRPOTrainer(
            model=load_model(job),
            reward_funcs=make_rewards(job.stage.rewards, job.name, train),
            args=arguments,
            train_dataset=train,
            eval_dataset=validation,
            processing_class=tokenizer,
            peft_config=make_adapters(job),
        )

    order_by_epoch(trainer, job.seed)

    facts = fit(trainer, job)
    save(trainer, tokenizer, job, {**facts, **proof, "train_rows": len(train)})


def order_by_epoch(trainer: Any, seed: int) -> None:
    """Shuffle each epoch by its number. TRL's generator has a running state, which a resumed run would not have."""
    draw_sampler = trainer._get_train_sampler

    def draw(*given: Any) -> Any:
        sampler = draw_sampler(*given)
        sampler.set_epoch = lambda epoch: sampler.generator.manual_seed(seed + epoch)
        return sampler

    trainer._get_train_sampler = draw


if __name__ == "__main__":
    run_script(main)
