"""Load the model of a stage from its parent, add adapters, check packing, and save a complete model."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedModel, Trainer
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

from scripts.common.errors import UserError
from scripts.common.files import hash_file, hash_json
from scripts.common.manifest import find_model
from scripts.common.records import PackingFacts, SavedFacts
from scripts.train import varlen_attention
from scripts.train.job import Job
from scripts.train.lm_head import fit_lm_head

PROBE_TOKENS = 128
"""Tokens of the text on which the logits of two models are compared."""

TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}
"""Largest difference of the saved model's logits, as a share of the trained model's (Euclidean norms), by the saved
precision. Rounding SmolLM2-135M to bfloat16 changed its logits by 0.3 %, and by 1.8 % after training."""

PACKING_TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}
"""The same for packed and separate examples, by the precision in which both are computed."""


def load_tokenizer(job: Job) -> Any:
    """The tokenizer with the run's chat template, which all models of the run share."""
    return AutoTokenizer.from_pretrained(find_model(job.parent))


def load_model(job: Job) -> PreTrainedModel:
    """The parent model. ZeRO-3 shards it while loading if `make_arguments` was called before.

    Trained weights are float32, since bfloat16 loses the updates of a small learning rate. Adapters and DeepSpeed have
    their own float32 weights, so with them the model is loaded in the run's precision.
    """
    stage = job.stage
    fit_lm_head(job.device)
    if stage.strategy == "zero3":
        import deepspeed

        deepspeed.init_distributed(auto_mpi_discovery=False)  # otherwise it assumes a single process
    keeps_copies = stage.tuning != "full" or stage.strategy in ("zero2", "zero3")
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            find_model(job.parent),
            dtype=job.dtype if keeps_copies else "float32",
            attn_implementation=choose_attention(job),
            **quantisation(job),
        )
    except (ImportError, ValueError) as error:  # a library is missing, or does not support this model
        raise UserError(f"stages.{job.name}: {str(error).splitlines()[0]}") from error
    return model


def quantisation(job: Job) -> dict[str, Any]:
    """Arguments for loading a QLoRA model: 4-bit NormalFloat with double quantisation, on this process's device."""
    if job.stage.tuning != "qlora":
        return {}
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, job.dtype),
    )
    return {"quantization_config": config, "device_map": {"": own_device(job)}}


def own_device(job: Job) -> str:
    """The device of this process."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if job.device == "cuda" else "cpu"


def choose_attention(job: Job) -> str:
    """The attention that the stage names, or else the fastest installed one that separates packed examples.

    On a GPU, that is FlashAttention 3, or else 2. Without it, and on CPUs, packed examples use PyTorch's own variable
    length attention if it supports the model. In all other cases it is `sdpa`, which masks other examples.
    """
    if job.stage.attention != "auto":
        return job.stage.attention
    config = AutoConfig.from_pretrained(find_model(job.parent)).get_text_config()
    has_own = getattr(config, "attention_dropout", 0) or getattr(config, "attn_logit_softcapping", None)
    packed = varlen_attention.NAME if job.stage.is_packed and not has_own else "sdpa"
    if job.device == "cuda" and job.dtype == "bfloat16" and torch.cuda.get_device_capability() >= (8, 0):
        if is_flash_attn_3_available():
            return "flash_attention_3"
        if is_flash_attn_2_available():
            return "flash_attention_2"
        return packed
    return packed if job.device == "cpu" else "sdpa"


def check_packing(trainer: Trainer, job: Job) -> PackingFacts:
    """Check on this device that two packed examples have the same logits as each of them alone.

    Returns:
        Facts for the manifest: `packing_difference` is the difference of the logits as a share of their norm, or
        None if nothing is packed, or if the weights are sharded already.

    Raises:
        UserError: packed examples attend to each other, or the attention does not run here.
    """
    if not job.stage.is_packed or job.stage.strategy in ("zero3", "fsdp2"):
        return {"packing_difference": None}
    model, device = trainer.model, trainer.args.device
    if model.device != device:  # DeepSpeed moves it only later
        model = model.to(device)
    tokens = torch.arange(min(PROBE_TOKENS, model.config.vocab_size), device=device)
    examples = [tokens, tokens.flip(0)[1:]]
    positions = torch.cat([torch.arange(len(example), device=device) for example in examples])
    try:
        with trainer.accelerator.autocast():
            packed = read_logits(model, torch.cat(examples)[None], position_ids=positions[None])
            alone = torch.cat([read_logits(model, example[None]) for example in examples], dim=1)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"stages.{job.name}.attention: {str(error).splitlines()[0]}; try sdpa") from error
    difference = compare_logits(packed, alone)
    # Kernels for 4-bit weights may compute in bfloat16 in any precision of the model.
    tolerance = PACKING_TOLERANCE["bfloat16" if job.stage.tuning == "qlora" else job.dtype]
    if not difference <= tolerance:
        raise UserError(
            f"stages.{job.name}.attention: packed examples attend to each other: logits differ from separate ones by "
            f"{difference:.2%}, more than {tolerance:.2%}; set another attention, or disable packing"
        )
    return {"packing_difference": difference}


def make_adapters(job: Job) -> LoraConfig | None:
    """The adapters to train, or None if all weights are trained."""
    if job.stage.tuning == "full":
        return None
    lora = job.stage.lora
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
    )


# --- saving -------------------------------------------------------------------------------------


def save_model(trainer: Trainer, tokenizer: Any, job: Job) -> SavedFacts | None:
    """Save the complete model with merged adapters, and check that it gives the logits of the trained model.

    All processes must call this, since some strategies shard the weights. The main process gathers them in main memory,
    saves the model, and compares both in float32, so the difference is due to merging and rounding only.

    Returns:
        Facts for the manifest in the main process, None in all others.

    Raises:
        UserError: the logits of the saved model differ from those of the trained one.
    """
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    unset_hf_deepspeed_config()  # otherwise models loaded below would be sharded too
    if not job.is_main:
        return None
    weights = {name.removeprefix("_orig_mod."): value for name, value in weights.items()}  # added by torch.compile
    probe = torch.tensor([range(min(PROBE_TOKENS, len(tokenizer)))])
    model: Any = rebuild_model(trainer.accelerator.unwrap_model(trainer.model), weights, job)
    trained = read_logits(model, probe)
    if isinstance(model, PeftModel):
        model = model.merge_and_unload()
    shutil.rmtree(job.folder, ignore_errors=True)
    model.to(getattr(torch, job.dtype)).save_pretrained(job.folder)
    del model
    tokenizer.save_pretrained(job.folder)
    shutil.copyfile(find_model(job.parent) / "generation_config.json", job.folder / "generation_config.json")
    for path in job.folder.iterdir():
        path.chmod(0o664)  # safetensors files are written with 0600, but groups share results

    saved = AutoModelForCausalLM.from_pretrained(job.folder, dtype="float32")
    difference = compare_logits(read_logits(saved, probe), trained)
    if not difference <= TOLERANCE[job.dtype]:
        raise UserError(
            f"stages.{job.name}: the saved model differs from the trained one: its logits differ by "
            f"{difference:.2%}, more than {TOLERANCE[job.dtype]:.2%}; the checkpoint is kept"
        )
    return {
        "weights_sha256": hash_weights(job.folder),
        "reload_difference": difference,
    }


def rebuild_model(trained: PreTrainedModel | PeftModel, weights: dict[str, torch.Tensor], job: Job) -> Any:
    """The parent in float32 in main memory, with the trained weights or adapters loaded.

    QLoRA trains adapters around quantised weights, so they are merged into the dequantised weights.
    """
    parent = AutoModelForCausalLM.from_pretrained(find_model(job.parent), dtype="float32", **quantisation(job))
    if job.stage.tuning == "qlora":
        parent = parent.dequantize(torch.float32).to("cpu")
    if not isinstance(trained, PeftModel):
        missing, left_over = parent.load_state_dict(weights, strict=False)
        if set(missing) - parent.all_tied_weights_keys.keys() or left_over:
            raise AssertionError(f"weights do not match the model: {missing or left_over}")
        return parent
    adapters = get_peft_model_state_dict(trained, state_dict=weights)
    model = get_peft_model(parent, trained.peft_config["default"])
    left_over = set_peft_model_state_dict(model, adapters).unexpected_keys
    if not adapters or left_over:
        raise AssertionError(f"adapters could not be loaded: {left_over or 'all'}")
    return model


def hash_weights(folder: Path) -> str:
    """A hash of the saved weights and their file names."""
    return hash_json({path.name: hash_file(path) for path in sorted(folder.glob("*.safetensors"))})


def compare_logits(given: torch.Tensor, expected: torch.Tensor) -> float:
    """The Euclidean norm of the difference, as a share of the norm of the expected logits."""
    return float(torch.linalg.vector_norm(given - expected) / torch.linalg.vector_norm(expected))


def read_logits(model: Any, tokens: torch.Tensor, **inputs: torch.Tensor) -> torch.Tensor:
    """Logits of a text in float32, shape (1, tokens, vocabulary), computed with full-precision matrix products."""
    was_training, precision = model.training, torch.get_float32_matmul_precision()
    model.eval()
    torch.set_float32_matmul_precision("highest")
    with torch.no_grad():
        logits = model(input_ids=tokens, use_cache=False, **inputs).logits.float()
    torch.set_float32_matmul_precision(precision)
    model.train(was_training)
    return logits
