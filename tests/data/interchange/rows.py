"""Messages as programs write them, for tests of rows."""


def user(text, **more):
    return {"role": "user", "content": text, **more}


def says(text, **more):
    return {"role": "assistant", "content": text, **more}


def system(text):
    return {"role": "system", "content": text}


def human(text):
    return {"from": "human", "value": text}


def gpt(text, **more):
    return {"from": "gpt", "value": text, **more}


def part(role, text, weight):
    """A message of LLaMA-Factory's second version: its content in parts, and a weight."""
    return {"role": role, "content": [{"type": "text", "value": text}], "loss_weight": weight}
