"""The model of a stage: loaded from its parent, with adapters or without, and saved whole."""

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
from scripts.train import varlen_attention
from scripts.train.job import Job
from scripts.train.lm_head import fit_lm_head

PROBE_TOKENS = 128
"""Tokens of the text by which models are compared."""

TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}
"""Largest difference of the saved model's logits, as a share of the trained one's (both as Euclidean norms), by the
precision that it is saved in. Rounding SmolLM2-135M to bfloat16 changed them by 0.3 %, and by 1.8 % after training."""

PACKING_TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}
"""The same for packed examples and separate ones, by the precision in which both are computed."""


def load_tokenizer(job: Job) -> Any:
    """The tokenizer of the run, which every model has, with the run's chat template."""
    return AutoTokenizer.from_pretrained(find_model(job.parent))


def load_model(job: Job) -> PreTrainedModel:
    """The parent model. ZeRO-3 spreads it over the processes at once when the arguments were made before.

    Weights that are trained stay float32: an update of a small learning rate is lost in bfloat16. Adapters and
    DeepSpeed keep float32 copies of their own, so there the model takes the run's precision.
    """
    stage = job.stage
    fit_lm_head(job.device)
    if stage.strategy == "zero3":
        import deepspeed

        deepspeed.init_distributed(auto_mpi_discovery=False)  # or it would take this for the only process
    keeps_copies = stage.tuning != "full" or stage.strategy in ("zero2", "zero3")
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            find_model(job.parent),
            dtype=job.dtype if keeps_copies else "float32",
            attn_implementation=choose_attention(job),
            **quantisation(job),
        )
    except (ImportError, ValueError) as error:  # what is not installed, or not for this model
        raise UserError(f"stages.{job.name}: {str(error).splitlines()[0]}") from error
    return model


def quantisation(job: Job) -> dict[str, Any]:
    """How QLoRA loads the model: 4-bit normal floats, whose scales are quantised again, on this process's device."""
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
    """The attention that the stage names, or else the fastest that keeps packed examples apart and is installed here.

    That is, on a GPU, FlashAttention where it is installed (3 before 2); for packed examples, there and on a CPU,
    PyTorch's own attention of the same kind, where it knows all that the model asks of it; everywhere else `sdpa`,
    which masks what lies between examples.
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


def check_packing(trainer: Trainer, job: Job) -> dict[str, Any]:
    """Two examples that lie end to end get the logits that each gets alone, with this attention on this device.

    Returns:
        Facts for the manifest: `packing_difference` of the logits, as a share of them; None where nothing is packed, or
        where the strategy has spread the weights over the processes already.

    Raises:
        UserError: the examples see each other, or the attention does not run here.
    """
    if not job.stage.is_packed or job.stage.strategy in ("zero3", "fsdp2"):
        return {"packing_difference": None}
    model, device = trainer.model, trainer.args.device
    if model.device != device:  # DeepSpeed would bring it there later
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
    # The kernels of 4-bit weights may compute in bfloat16 whatever the model's precision is.
    tolerance = PACKING_TOLERANCE["bfloat16" if job.stage.tuning == "qlora" else job.dtype]
    if not difference <= tolerance:
        raise UserError(
            f"stages.{job.name}.attention: packed examples see each other: logits differ from separate ones by "
            f"{difference:.2%}, more than {tolerance:.2%}; set another attention, or do not pack"
        )
    return {"packing_difference": difference}


def make_adapters(job: Job) -> LoraConfig | None:
    """The adapters to train, or None when all weights are trained."""
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


def save_model(trainer: Trainer, tokenizer: Any, job: Job) -> dict[str, Any]:
    """Write the whole model, adapters merged, and check that what was written answers as what was trained.

    All processes call it, since some strategies spread the weights over them; the main one writes. It does so from main
    memory, where both are compared in float32: what differs is what merging and rounding changed.

    Returns:
        Facts for the manifest: checksum of the weights, and `reload_difference` of the logits.

    Raises:
        UserError: the saved model is not the trained one.
    """
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    unset_hf_deepspeed_config()  # or models that are loaded from here on would be spread over the processes too
    if not job.is_main:
        return {}
    weights = {name.removeprefix("_orig_mod."): value for name, value in weights.items()}  # torch.compile's
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
        path.chmod(0o664)  # the writer of safetensors leaves 0600, and a group shares the results

    saved = AutoModelForCausalLM.from_pretrained(job.folder, dtype="float32")
    difference = compare_logits(read_logits(saved, probe), trained)
    if not difference <= TOLERANCE[job.dtype]:
        raise UserError(
            f"stages.{job.name}: the saved model does not answer as the trained one: its logits differ by "
            f"{difference:.2%}, more than {TOLERANCE[job.dtype]:.2%}; the checkpoint is kept"
        )
    return {
        "weights_sha256": hash_weights(job.folder),
        "reload_difference": difference,
    }


def rebuild_model(trained: PreTrainedModel | PeftModel, weights: dict[str, torch.Tensor], job: Job) -> Any:
    """The parent in float32 and main memory, with the trained weights in it, or the adapters on it.

    QLoRA's adapters were trained around the quantised weights, so it is these that they go onto.
    """
    parent = AutoModelForCausalLM.from_pretrained(find_model(job.parent), dtype="float32", **quantisation(job))
    if job.stage.tuning == "qlora":
        parent = parent.dequantize(torch.float32).to("cpu")
    if not isinstance(trained, PeftModel):
        missing, left_over = parent.load_state_dict(weights, strict=False)
        if set(missing) - parent.all_tied_weights_keys.keys() or left_over:
            raise AssertionError(f"weights that are not those of the model: {missing or left_over}")
        return parent
    adapters = get_peft_model_state_dict(trained, state_dict=weights)
    model = get_peft_model(parent, trained.peft_config["default"])
    left_over = set_peft_model_state_dict(model, adapters).unexpected_keys
    if not adapters or left_over:
        raise AssertionError(f"adapters that are not taken: {left_over or 'all'}")
    return model


def hash_weights(folder: Path) -> str:
    """A hash of the saved weights, by the names of their files."""
    return hash_json({path.name: hash_file(path) for path in sorted(folder.glob("*.safetensors"))})


def compare_logits(given: torch.Tensor, expected: torch.Tensor) -> float:
    """The Euclidean norm of the difference, as a share of the expected logits' norm."""
    return float(torch.linalg.vector_norm(given - expected) / torch.linalg.vector_norm(expected))


def read_logits(model: Any, tokens: torch.Tensor, **inputs: torch.Tensor) -> torch.Tensor:
    """Logits (1, tokens, vocabulary) of a text, in float32 and from products in full precision."""
    was_training, precision = model.training, torch.get_float32_matmul_precision()
    model.eval()
    torch.set_float32_matmul_precision("highest")
    with torch.no_grad():
        logits = model(input_ids=tokens, use_cache=False, **inputs).logits.float()
    torch.set_float32_matmul_precision(precision)
    model.train(was_training)
    return logits
