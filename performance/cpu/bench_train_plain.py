"""SFT as a plain TRL script with TRL's defaults: bfloat16, activation checkpointing, padded batches.

`bench_train.py` compares the pipeline with it.
`python -m performance.cpu.bench_train_plain MODEL ROWS OUTPUT TUNING LEARNING_RATE BATCH R ALPHA`
"""

import sys

from datasets import load_dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer


def main() -> None:
    model, rows, output, tuning, learning_rate, batch, r, alpha = sys.argv[1:]
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=output,
            learning_rate=float(learning_rate),
            num_train_epochs=1,
            per_device_train_batch_size=int(batch),
            assistant_only_loss=True,
            use_cpu=True,
            report_to=[],
        ),
        train_dataset=load_dataset("json", data_files=rows, split="train"),
        peft_config=LoraConfig(r=int(r), lora_alpha=int(alpha), target_modules="all-linear")
        if tuning == "lora"
        else None,
    )
    trainer.train()
    trainer.save_model(output)


if __name__ == "__main__":
    main()
