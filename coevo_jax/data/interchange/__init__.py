"""Import and export: sets of conversations, preference pairs and trajectories in the formats others use."""

from coevo_jax.data.interchange.convert import convert, read_conversations, render_conversation
from coevo_jax.data.interchange.records import Conversation, Message, Speaker, TextPair, to_demonstration
from coevo_jax.data.interchange.sets import FORMATS, DataSet, Problems, open_set, read_records

__all__ = [
    "FORMATS",
    "Conversation",
    "DataSet",
    "Message",
    "Problems",
    "Speaker",
    "TextPair",
    "convert",
    "open_set",
    "read_conversations",
    "read_records",
    "render_conversation",
    "to_demonstration",
]
