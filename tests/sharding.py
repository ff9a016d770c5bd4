"""Files with weights in several shards, as large checkpoints come."""

import json
from pathlib import Path

from safetensors.torch import load_file, save_file


def split_into_shards(file: Path, count: int = 2) -> list[Path]:
    """Make shards with an index of a file, which goes away."""
    weights = load_file(file)
    file.unlink()
    shards = [
        file.with_name(f"{file.stem}-{number:05}-of-{count:05}.safetensors") for number in range(1, count + 1)
    ]
    placed: dict[str, str] = {}
    for number, shard in enumerate(shards):
        part = {name: weights[name] for name in sorted(weights)[number::count]}
        save_file(part, shard, metadata={"format": "pt"})
        placed |= dict.fromkeys(part, shard.name)
    total = sum(tensor.nbytes for tensor in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": placed}
    file.with_name(f"{file.name}.index.json").write_text(json.dumps(index), encoding="utf-8")
    return shards
