"""A committed record with every field of one filled."""

from hashlib import sha256

from coevo_jax.run_folder.manifest import Manifest, PhaseRecord

EMPTY = sha256(b"").hexdigest()
COMMITTED = Manifest(
    config_sha256=EMPTY,
    done=(
        PhaseRecord(
            name="prepare", seconds=1.5, files={"tokenizer/tokenizer.json": EMPTY}, records={"experts": 3}
        ),
        PhaseRecord(name="warm_start", position=4, seconds=2.0, records={"checkpoint": 0}),
    ),
    running=PhaseRecord(name="round-00/evaluate_target", position=1, records={"summary": {"n": 1}}),
    seconds=3.5,
    peak_memory_bytes=10,
)
