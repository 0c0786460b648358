"""SFT learns, leaves a whole model behind, and can be killed at any time."""

import fcntl
import shutil
import signal
import stat
import subprocess
import time
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
from tests.common.running import call_main, error_lines, run_script, start_script
from tests.train.stages import SFT, read_losses, sft_options, with_args

pytestmark = pytest.mark.slow


def _facts(folder: Path) -> dict[str, Any]:
    return dict(read_json(folder / "sft" / "manifest.json")["facts"])


def test_it_learns(finished: Path) -> None:
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
    # The end of the turn was learnt as well, and the generation config stops there.
    assert tokenizer.decode(written) == "yes yes yes<|im_end|>"


def test_what_it_leaves_behind(finished: Path, tiny_model: Path) -> None:
    model = finished / "sft" / "model"
    assert {path.name for path in (finished / "sft").iterdir()} == {
        *("checkpoints", "manifest.json", "model", "proof.json")
    }
    (kept,) = (finished / "sft" / "checkpoints").glob("*/*")
    assert kept.name == "finished", "checkpoints have served"
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


def test_the_manifest_tells_what_was_done(finished: Path) -> None:
    facts = _facts(finished)
    weights = finished / "sft" / "model" / "model.safetensors"
    assert facts["weights_sha256"] == hash_json({weights.name: hash_file(weights)})
    assert (facts["steps"], facts["resumed_from"], facts["train_rows"]) == (31, 0, 24)
    assert facts["parameters"] == facts["trainable_parameters"] > 10_000
    # "yes yes yes" and the end of the turn: 12 of some 50 tokens of a byte tokenizer.
    assert 0.2 < facts["trained_token_share"] < 0.35


@pytest.fixture
def undeclared(finished: Path, tmp_path: Path) -> Path:
    """The finished run without what its job declares: what Snakemake leaves when the job ended badly after all."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    (tmp_path / "sft" / "manifest.json").unlink()
    (tmp_path / "sft.parquet").unlink()
    return tmp_path


def test_what_was_trained_to_its_end_is_taken(
    undeclared: Path, finished: Path, tiny_model: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call_main("train.train_sft", undeclared, **sft_options(tiny_model, rows, SFT))
    assert "was trained to its end before" in capsys.readouterr().err
    for name in ("sft/manifest.json", "sft.parquet"):
        assert (undeclared / name).read_bytes() == (finished / name).read_bytes()


@pytest.mark.parametrize("change", ["weights", "code", "validation", "stage"])
def test_what_would_not_be_the_same_is_trained_again(
    undeclared: Path,
    tiny_model: Path,
    rows: Path,
    change: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def train(*_: Any) -> None:
        raise UserError("it trains")

    options = sft_options(tiny_model, rows, SFT)
    monkeypatch.setattr("scripts.train.train_sft.fit", train)
    match change:
        case "weights":
            (undeclared / "sft/model/model.safetensors").write_bytes(b"torn")
        case "code":
            (undeclared / "code.py").write_text("new")
            monkeypatch.setattr("scripts.train.finished.CODE", undeclared)
        case "validation":
            options["validation"] = rows / "validation.parquet"
        case "stage":
            options = sft_options(tiny_model, rows, with_args(SFT, max_steps=2))
    with pytest.raises(UserError, match="it trains"):
        call_main("train.train_sft", undeclared, **options)
    assert "was trained to its end before" not in capsys.readouterr().err


def _wait_for_steps(log: Path, steps: int, process: subprocess.Popen[str]) -> None:
    for _ in range(12_000):
        if log.exists() and log.read_text().count("'loss'") >= steps:
            return
        assert process.poll() is None, f"training ended too early: {log.read_text()}"
        time.sleep(0.005)
    raise TimeoutError


def test_a_killed_run_ends_with_the_same_weights(tmp_path: Path, finished: Path, tiny_model: Path, rows: Path) -> None:
    """With `save_strategy: no` nothing is saved on the way, but what a signal interrupts is."""
    options = sft_options(tiny_model, rows, SFT)
    with start_script("train.train_sft", tmp_path, **options) as process:
        _wait_for_steps(tmp_path / "sft.log", 5, process)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, said
    (checkpoint,) = (tmp_path / "sft" / "checkpoints").glob("*/checkpoint-*")
    stopped_at = int(checkpoint.name.removeprefix("checkpoint-"))
    assert 5 <= stopped_at < 31
    assert said.splitlines()[-1] == f"train_sft sft: stopped at step {stopped_at}; the next run goes on from there"
    assert not (tmp_path / "sft" / "manifest.json").exists() and not (tmp_path / "sft.parquet").exists()

    # What a kill in the middle of writing leaves: a folder with a higher number, and no state in it.
    (checkpoint.parent / "checkpoint-30").mkdir()
    run = run_script("train.train_sft", tmp_path, **options)
    assert run.returncode == 0, run.stderr
    assert f"train_sft sft: going on from checkpoint-{stopped_at}" in run.stderr.splitlines()
    assert _facts(tmp_path)["resumed_from"] == stopped_at
    assert _facts(tmp_path)["weights_sha256"] == _facts(finished)["weights_sha256"]
    losses = [read_losses(folder / "sft.parquet") for folder in (tmp_path, finished)]
    assert losses[0] == losses[1], "the log has every step of both attempts, once"


def test_a_run_that_failed_after_its_last_step_does_not_train_on(
    tmp_path: Path, finished: Path, tiny_model: Path, rows: Path
) -> None:
    """The last checkpoint stands, but the model could not be saved; then the same is run again."""
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


def test_a_finished_run_again_gives_the_same(tmp_path: Path, finished: Path, tiny_model: Path, rows: Path) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    call_main("train.train_sft", tmp_path, **sft_options(tiny_model, rows, SFT))
    assert _facts(tmp_path)["resumed_from"] == 0
    assert _facts(tmp_path)["weights_sha256"] == _facts(finished)["weights_sha256"]


def test_a_wrong_argument_leaves_nothing(tmp_path: Path, tiny_model: Path, rows: Path) -> None:
    stage = SFT | {"args": {"learning_rat": 1e-3}}
    with pytest.raises(UserError, match=r"^stages.sft.args.learning_rat: .* did you mean 'learning_rate'\?$"):
        call_main("train.train_sft", tmp_path, **sft_options(tiny_model, rows, stage))
    assert not (tmp_path / "sft").exists()


def test_a_loss_that_is_no_number_is_told_and_never_saved(tmp_path: Path, tiny_model: Path, rows: Path) -> None:
    """Also where it would be logged much later than saved."""
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
        run = run_script("train.train_sft", tmp_path, **sft_options(tiny_model, rows, SFT))
    (line,) = [line for line in error_lines(run) if line.startswith("error: ")]
    assert line == ("error: stages.sft: another job is training this stage in sft/checkpoints; wait for it, or end it")


def test_modules_that_the_model_does_not_have_are_told(tmp_path: Path, tiny_model: Path, rows: Path) -> None:
    stage = SFT | {"tuning": "lora", "lora": {"target_modules": ["q_prj"]}}
    with pytest.raises(UserError, match=r"^stages.sft: Target modules .*q_prj.* not found in the base model"):
        call_main("train.train_sft", tmp_path, **sft_options(tiny_model, rows, stage))


def test_held_out_rows_are_measured(tmp_path: Path, tiny_model: Path, rows: Path) -> None:
    options = sft_options(tiny_model, rows, with_args(SFT, max_steps=3)) | {"validation": rows / "validation.parquet"}
    call_main("train.train_sft", tmp_path, **options)
    assert any(pq.read_table(tmp_path / "sft.parquet")["eval_loss"].is_valid().to_pylist())


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_compiled_model_is_saved_under_its_own_names_and_in_its_precision(
    tmp_path: Path, tiny_model: Path, rows: Path, tuning: str
) -> None:
    """The backend that compiles nothing wraps the model as the others do."""
    stage = with_args(SFT, max_steps=6, torch_compile=True, torch_compile_backend="eager") | {"tuning": tuning}
    call_main("train.train_sft", tmp_path, **sft_options(tiny_model, rows, stage) | {"dtype": "bfloat16"})
    folder = tmp_path / "sft" / "model"
    before, after = (load_file(path / "model.safetensors") for path in (find_model(tiny_model), folder))
    assert before.keys() == after.keys() and {weights.dtype for weights in after.values()} == {torch.bfloat16}
    assert read_json(folder / "config.json")["dtype"] == "bfloat16"
    changed = [name for name in after if not after[name].equal(before[name].to(torch.bfloat16))]
    assert any("q_proj" in name for name in changed), "what was trained is in it"
    assert _facts(tmp_path)["reload_difference"] < 0.05
