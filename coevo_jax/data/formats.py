"""The names of the formats of data sets."""

LAYOUT_NAMES = ("eto-sft", "agenttraj", "messages", "eto-pairs")  # rows of JSON or Parquet
TRAJECTORIES, TFDS_EXPERTS, TFDS_TRAJECTORIES = "trajectories", "tfds-experts", "tfds-trajectories"
FORMATS = (*LAYOUT_NAMES, TRAJECTORIES, TFDS_EXPERTS, TFDS_TRAJECTORIES)
