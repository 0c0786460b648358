"""Complete snapshots of models in the Hugging Face cache."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from scripts.common.config import HubModel
from scripts.common.files import read_json

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "config.json")
TOKENIZER = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json")
VOCABULARY = ("tokenizer.json", "tokenizer.model", "vocab.json")
"""Files of which every tokenizer has at least one."""


def find_whole_snapshot(source: HubModel) -> Path | None:
    """The folder of a model in the cache, if it is complete. It may have only the config, or an aborted download."""
    patterns = [*WEIGHTS, *TOKENIZER]
    try:
        folder = snapshot_download(
            source.repository, revision=source.revision, allow_patterns=patterns, local_files_only=True
        )
    except LocalEntryNotFoundError:
        return None
    return Path(folder) if is_whole(Path(folder)) else None


def is_whole(folder: Path) -> bool:
    """Whether a model folder has its config, a tokenizer, and every shard of its weights."""
    shards = {
        shard for index in folder.glob("*.safetensors.index.json") for shard in read_json(index)["weight_map"].values()
    }
    weights = [folder / shard for shard in shards] or [*folder.glob("*.safetensors")]
    has_weights = bool(weights) and all(path.is_file() for path in weights)
    has_tokenizer = any((folder / name).is_file() for name in VOCABULARY)
    return has_weights and has_tokenizer and (folder / "config.json").is_file()
