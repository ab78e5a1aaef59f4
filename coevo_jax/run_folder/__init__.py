"""What a run keeps on disk: its folder, the record of what is finished, checkpoints and metrics."""
