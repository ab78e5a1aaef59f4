"""Chat formats and their tokenizers: from text to tokens and back."""
