"""From text to tokens and back: chat formats and their tokenizers."""
