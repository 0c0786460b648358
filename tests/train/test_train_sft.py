"""SFT lowers its loss, saves a complete model, and can be killed at any time."""

import fcntl
import shutil
import signal
import stat
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from scripts.common.errors import UserError
from scripts.common.files import hash_file, hash_json, read_json
from scripts.common.manifest import find_model
from tests.common.running import call_main
from tests.train.forked import read_output, run_stage, start_stage, wait_for_steps
from tests.train.learning import TUNINGS, learn
from tests.train.stages import SFT, method_options, read_losses, sft_options, with_args

pytestmark = pytest.mark.slow


def _facts(folder: Path) -> dict[str, Any]:
    return dict(read_json(folder / "sft" / "manifest.json")["facts"])


def test_the_model_learns_the_answer(finished: Path) -> None:
    losses = read_losses(finished / "sft.parquet")
    assert len(losses) == 31, "every step is logged"
    assert losses[0] > 4 and losses[-1] < 0.5
    folder = finished / "sft" / "model"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "say 5"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        written = model.generate(**asked, do_sample=False, max_new_tokens=20)[0, asked["input_ids"].shape[1] :]
    # The model has learned the end of the turn, and the generation config stops there.
    assert tokenizer.decode(written) == "yes yes yes<|im_end|>"


SMALL: dict[str, Any] = {"learning_rate": 5e-3, "per_device_train_batch_size": 4}


@pytest.mark.parametrize("tuning", TUNINGS)
def test_sft_learns(tmp_path: Path, tiny_model: Path, rows: Path, tuning: str) -> None:
    steps = learn("sft", tmp_path, tiny_model, rows, tuning, SMALL)
    assert steps[-1]["loss"] < steps[0]["loss"]


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_sft_learns_in_bfloat16(tmp_path: Path, tiny_model: Path, rows: Path, tuning: str) -> None:
    """Products are in bfloat16, as on GPUs; trained weights are float32 until they are saved."""
    args = SMALL | {"learning_rate": 1e-2, "max_steps": 8, "padding_free": True, "max_length": None}
    section = {"tuning": tuning, "lora": {"r": 16, "alpha": 64}, "args": args}
    options = method_options("sft", tiny_model, rows, section) | {"dtype": "bfloat16"}
    call_main("train.train_sft", tmp_path, **options)
    losses = read_losses(tmp_path / "stage.parquet")
    assert losses[-1] < 0.8 * losses[0]
    facts = read_json(tmp_path / "stage" / "manifest.json")["facts"]
    assert facts["attention"] == "varlen_attention" and facts["packing_difference"] < 0.05
    saved = load_file(tmp_path / "stage" / "model" / "model.safetensors")
    assert {weights.dtype for weights in saved.values()} == {torch.bfloat16}


def test_the_files_of_a_finished_stage(finished: Path, tiny_model: Path) -> None:
    model = finished / "sft" / "model"
    assert {path.name for path in (finished / "sft").iterdir()} == {
        *("checkpoints", "manifest.json", "model", "proof.json")
    }
    (kept,) = (finished / "sft" / "checkpoints").glob("*/*")
    assert kept.name == "finished", "checkpoints are deleted"
    names = {path.name for path in model.iterdir()}
    assert {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "chat_template.jinja",
        "generation_config.json",
    } <= names
    assert list((finished / "tensorboard" / "sft").glob("events.*"))
    for name in ("generation_config.json", "chat_template.jinja"):
        assert (model / name).read_bytes() == (find_model(tiny_model) / name).read_bytes()
    for path in (*model.iterdir(), finished / "sft" / "manifest.json", finished / "sft.parquet"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o060 == 0o060, f"a group cannot read {path.name}"
    written = (finished / "sft" / "manifest.json").stat().st_mtime_ns
    assert all(path.stat().st_mtime_ns <= written for path in (*model.iterdir(), finished / "sft.parquet"))


def test_the_facts_of_the_manifest(finished: Path) -> None:
    facts = _facts(finished)
    weights = finished / "sft" / "model" / "model.safetensors"
    assert facts["weights_sha256"] == hash_json({weights.name: hash_file(weights)})
    assert (facts["steps"], facts["resumed_from"], facts["train_rows"]) == (31, 0, 24)
    assert facts["parameters"] == facts["trainable_parameters"] > 10_000
    # "yes yes yes" and the end of the turn are 12 of about 50 tokens.
    assert 0.2 < facts["trained_token_share"] < 0.35


@pytest.fixture
def failed(finished: Path, tmp_path: Path) -> Path:
    """The finished stage without its declared outputs, as Snakemake leaves it after a failed job."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    (tmp_path / "sft" / "manifest.json").unlink()
    (tmp_path / "sft.parquet").unlink()
    return tmp_path


def test_a_finished_training_is_reused(
    failed: Path, finished: Path, tiny_model: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call_main("train.train_sft", failed, **sft_options(tiny_model, rows, SFT))
    assert "this training is finished already" in capsys.readouterr().err
    for name in ("sft/manifest.json", "sft.parquet"):
        assert (failed / name).read_bytes() == (finished / name).read_bytes()


@pytest.mark.parametrize("change", ["weights", "code", "validation", "stage"])
def test_a_changed_training_is_repeated(
    failed: Path,
    tiny_model: Path,
    rows: Path,
    change: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def train(*_: Any) -> None:
        raise UserError("training starts")

    options = sft_options(tiny_model, rows, SFT)
    monkeypatch.setattr("scripts.train.train_sft.fit", train)
    match change:
        case "weights":
            (failed / "sft/model/model.safetensors").write_bytes(b"torn")
        case "code":
            (failed / "code.py").write_text("new")
            monkeypatch.setattr("scripts.train.finished_training.CODE", failed)
        case "validation":
            options["validation"] = rows / "validation.parquet"
        case "stage":
            options = sft_options(tiny_model, rows, with_args(SFT, max_steps=2))
    with pytest.raises(UserError, match="training starts"):
        call_main("train.train_sft", failed, **options)
    assert "this training is finished already" not in capsys.readouterr().err


def test_a_killed_run_ends_with_the_same_weights(tmp_path: Path, finished: Path, tiny_model: Path, rows: Path) -> None:
    """With `save_strategy: no` nothing is saved during training, except when a signal interrupts it."""
    options = sft_options(tiny_model, rows, SFT)
    (process,) = start_stage("sft", tmp_path, options)
    wait_for_steps(tmp_path, [process], 5)
    process.terminate()
    process.join(timeout=120)
    said = read_output(tmp_path)
    assert process.exitcode == 128 + signal.SIGTERM, said
    (checkpoint,) = (tmp_path / "sft" / "checkpoints").glob("*/checkpoint-*")
    stopped_at = int(checkpoint.name.removeprefix("checkpoint-"))
    assert 5 <= stopped_at < 31
    assert said.splitlines()[-1] == f"train_sft sft: stopped at step {stopped_at}; the next run resumes there"
    assert not (tmp_path / "sft" / "manifest.json").exists() and not (tmp_path / "sft.parquet").exists()

    # A kill while saving leaves a folder with a higher number, without the trainer's state.
    (checkpoint.parent / "checkpoint-30").mkdir()
    run_stage("sft", tmp_path, options)
    assert f"train_sft sft: resuming from checkpoint-{stopped_at}" in read_output(tmp_path).splitlines()
    assert _facts(tmp_path)["resumed_from"] == stopped_at
    assert _facts(tmp_path)["weights_sha256"] == _facts(finished)["weights_sha256"]
    losses = [read_losses(folder / "sft.parquet") for folder in (tmp_path, finished)]
    assert losses[0] == losses[1], "the log has each step of both attempts once"


def test_a_stage_that_failed_after_its_last_step_trains_no_further(
    tmp_path: Path, finished: Path, tiny_model: Path, rows: Path
) -> None:
    """The last checkpoint was saved, but not the model. Then the stage runs again."""
    parent = tmp_path / "base" / "manifest.json"
    shutil.copytree(tiny_model.parent, parent.parent, symlinks=False)
    generation = find_model(parent) / "generation_config.json"
    generation.rename(tmp_path / "hidden.json")
    options = sft_options(parent, rows, with_args(SFT, save_strategy="steps", save_steps=15))
    with pytest.raises(FileNotFoundError, match="generation_config"):
        call_main("train.train_sft", tmp_path, **options)
    assert not (tmp_path / "sft" / "manifest.json").exists()
    (tmp_path / "hidden.json").rename(generation)
    call_main("train.train_sft", tmp_path, **options)
    assert (_facts(tmp_path)["steps"], _facts(tmp_path)["resumed_from"]) == (31, 31)
    assert _facts(tmp_path)["weights_sha256"] == _facts(finished)["weights_sha256"]


def test_a_finished_stage_gives_the_same_again(tmp_path: Path, finished: Path, tiny_model: Path, rows: Path) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    call_main("train.train_sft", tmp_path, **sft_options(tiny_model, rows, SFT))
    assert _facts(tmp_path)["resumed_from"] == 0
    assert _facts(tmp_path)["weights_sha256"] == _facts(finished)["weights_sha256"]


def test_a_wrong_argument_leaves_no_files(tmp_path: Path, tiny_model: Path, rows: Path) -> None:
    stage = SFT | {"args": {"learning_rat": 1e-3}}
    with pytest.raises(UserError, match=r"^stages.sft.args.learning_rat: .* did you mean 'learning_rate'\?$"):
        call_main("train.train_sft", tmp_path, **sft_options(tiny_model, rows, stage))
    assert not (tmp_path / "sft").exists()


def test_a_loss_that_is_not_finite_is_reported_and_never_saved(tmp_path: Path, tiny_model: Path, rows: Path) -> None:
    """Even if steps are saved more often than logged."""
    stage = with_args(SFT, learning_rate=1e38, logging_steps=100, save_strategy="steps", save_steps=4)
    line = r"^stages.sft: the (loss|grad_norm) of step 4 is not a finite number; lower learning_rate"
    with pytest.raises(UserError, match=line):
        call_main("train.train_sft", tmp_path, **sft_options(tiny_model, rows, stage))
    assert not list((tmp_path / "sft" / "checkpoints").glob("*/checkpoint-*"))


def test_two_jobs_do_not_train_one_stage(tmp_path: Path, tiny_model: Path, rows: Path) -> None:
    folder = tmp_path / "sft" / "checkpoints"
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError) as caught:
            call_main("train.train_sft", tmp_path, **sft_options(tiny_model, rows, SFT))
    assert str(caught.value) == (
        "stages.sft: another job is training this stage in sft/checkpoints; wait for it or stop it"
    )


def test_unknown_target_modules_are_reported(tmp_path: Path, tiny_model: Path, rows: Path) -> None:
    stage = SFT | {"tuning": "lora", "lora": {"target_modules": ["q_prj"]}}
    with pytest.raises(UserError, match=r"^stages.sft: Target modules .*q_prj.* not found in the base model"):
        call_main("train.train_sft", tmp_path, **sft_options(tiny_model, rows, stage))


def test_validation_rows_are_evaluated(tmp_path: Path, tiny_model: Path, rows: Path) -> None:
    options = sft_options(tiny_model, rows, with_args(SFT, max_steps=3)) | {"validation": rows / "validation.parquet"}
    call_main("train.train_sft", tmp_path, **options)
    assert any(pq.read_table(tmp_path / "sft.parquet")["eval_loss"].is_valid().to_pylist())


@pytest.fixture(scope="module")
def one_layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of a model with one layer, which compiles in half the time."""
    folder = tmp_path_factory.mktemp("one_layer")
    config = {"source": {"kind": "random", "hidden_size": 32, "layers": 1, "heads": 2}, "dtype": "float32"}
    call_main("data.download_model", folder, config=config, cache="cache", output="manifest.json")
    return folder / "manifest.json"


@pytest.mark.parametrize(("tuning", "stance"), [("full", "default"), ("lora", "force_eager")])
def test_a_compiled_model_keeps_its_names_and_precision(
    tmp_path: Path, one_layer: Path, rows: Path, tuning: str, stance: Any
) -> None:
    """The backend `eager` traces the model without compiling it. The second stage only wraps the model."""
    stage = with_args(SFT, max_steps=2, torch_compile=True, torch_compile_backend="eager")
    stage |= {"tuning": tuning, "lora": {"target_modules": ["q_proj"]}}
    with torch.compiler.set_stance(stance):
        call_main("train.train_sft", tmp_path, **sft_options(one_layer, rows, stage) | {"dtype": "bfloat16"})
    folder = tmp_path / "sft" / "model"
    before, after = (load_file(path / "model.safetensors") for path in (find_model(one_layer), folder))
    assert before.keys() == after.keys() and {weights.dtype for weights in after.values()} == {torch.bfloat16}
    assert read_json(folder / "config.json")["dtype"] == "bfloat16"
    changed = [name for name in after if not after[name].equal(before[name].to(torch.bfloat16))]
    assert any("q_proj" in name for name in changed), "the trained weights are saved"
    assert _facts(tmp_path)["reload_difference"] < 0.05
