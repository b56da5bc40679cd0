"""Make tiny-chat.gguf and tiny-embed.gguf, the models of the demo and the tests. Run by hand; needs `gguf` and `numpy`.

They know nothing. tiny-chat is a llama whose weights spell out a small grammar: the class of the last word says which
classes may follow, random vectors choose the word, and an attention layer makes words that were just used less likely.
So its answers are readable, always valid UTF-8, differ with the prompt, and end. tiny-embed averages random word
vectors, so texts that share words lie close together. The seed is fixed: every run writes the same bytes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Layer = dict[str, Matrix]

SEED = 20260901
SPECIAL = ("<unk>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>")
UNKNOWN, BEGIN, END, ASSISTANT = 0, 1, 2, 5
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
HEADS = 4
CONTEXT = 8192
SPACE = "▁"

CLASSES = {
    "first": "The Our Your",
    "first_subject": "We You They",
    "greeting": "Hello Thanks Sorry Yes Sure Please",
    "opening": "▁The ▁Our ▁Your",
    "subject": "▁We ▁You ▁They",
    "determiner": "▁the ▁our ▁your ▁this ▁every",
    "adjective": "▁new ▁old ▁clean ▁small ▁heavy ▁safe ▁sharp ▁spare ▁late ▁early ▁free ▁next",
    "person": "▁driver ▁customer ▁crew ▁shop ▁team ▁workshop ▁colleague ▁neighbour ▁builder",
    "noun": (
        "▁drill ▁saw ▁ladder ▁mixer ▁sander ▁pump ▁heater ▁mower ▁trailer ▁battery ▁charger ▁blade ▁order ▁deposit "
        "▁invoice ▁refund ▁counter ▁weekend ▁morning ▁hour ▁day ▁week ▁key ▁manual ▁garden ▁roof ▁floor ▁wall"
    ),
    "modal": "▁can ▁will ▁may ▁should ▁must",
    "verb": (
        "▁bring ▁return ▁check ▁extend ▁rent ▁book ▁replace ▁charge ▁collect ▁repair ▁cancel ▁move ▁send ▁find ▁keep"
    ),
    "preposition": "▁for ▁with ▁from ▁at ▁near ▁before ▁after ▁without",
    "adverb": "▁today ▁tomorrow ▁online ▁again ▁soon",
    "conjunction": "▁and ▁but ▁because ▁so",
    "pronoun": "▁we ▁you ▁they",
    "comma": ",",
    "stop": ".",
    "end": "</s>",
    "start": "<|assistant|>",
}
# What may follow a class, and how likely it is before chance has its say; what is not named never follows.
FOLLOWS = {
    "start": {"first": 0.0, "first_subject": 0.0, "greeting": 0.0},
    "first": {"person": 0.0},
    "first_subject": {"modal": 0.0},
    "greeting": {"comma": 0.0},
    "opening": {"person": 0.0},
    "subject": {"modal": 0.0},
    "determiner": {"adjective": -0.3, "noun": 0.0},
    "adjective": {"noun": 0.0},
    "person": {"modal": 0.0},
    "noun": {"preposition": -0.9, "stop": 1.0, "conjunction": -1.6, "adverb": 0.0},
    "modal": {"verb": 0.0},
    "verb": {"determiner": 0.0},
    "preposition": {"determiner": 0.0},
    "adverb": {"stop": 1.2, "conjunction": 0.0},
    "conjunction": {"pronoun": 0.0},
    "pronoun": {"modal": 0.0},
    "comma": {"pronoun": 0.0},
    "stop": {"opening": 0.0, "subject": 0.0, "end": 1.5},
    "end": {"end": 0.0},
}
NEVER = -30.0
# The dimensions of a token's vector: one that is the same for all, one for each class, the rest random.
CONSTANT = 0
NAMES = tuple(CLASSES)
FIRST_RANDOM = 1 + len(NAMES)
STRENGTH = 4.0


def main() -> None:
    parser = argparse.ArgumentParser(description="Write tiny-chat.gguf and tiny-embed.gguf.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parent)
    folder = parser.parse_args().folder
    write_chat_model(folder / "tiny-chat.gguf")
    write_embedding_model(folder / "tiny-embed.gguf")


def make_vocabulary() -> list[str]:
    """Special tokens, the 256 bytes, the words, and each word's beginnings, through which the tokenizer builds it."""
    words = [word for names in CLASSES.values() for word in names.split() if word not in SPECIAL]
    beginnings = {word[:end] for word in words if word[0] == SPACE for end in range(1, len(word))}
    return [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *words, *sorted(beginnings - set(words))]


def make_classes(pieces: list[str]) -> list[str]:
    """The class of each token; "" for what is never said (bytes, beginnings of words, the other special tokens)."""
    found = {word: name for name, words in CLASSES.items() for word in words.split()}
    return [found.get(piece, "") for piece in pieces]


def write_chat_model(path: Path, *, width: int = 64, feed_forward: int = 96) -> None:
    random = np.random.default_rng(SEED)
    pieces = make_vocabulary()
    classes = make_classes(pieces)
    size = width - FIRST_RANDOM
    vectors = _unit_rows(random.normal(size=(len(pieces), size)))
    turn = np.linalg.qr(random.normal(size=(size, size)))[0]

    embedding = np.zeros((len(pieces), width))
    embedding[:, CONSTANT] = STRENGTH
    for token, name in enumerate(classes):
        # A prompt for completion may end in anything: go on as after a noun.
        embedding[token, 1 + NAMES.index(name or "noun")] = STRENGTH
    embedding[:, FIRST_RANDOM:] = vectors * STRENGTH

    output = np.zeros((len(pieces), width))
    for token, name in enumerate(classes):
        output[token, 1:FIRST_RANDOM] = [FOLLOWS[before].get(name, NEVER) for before in NAMES]
    output[:, FIRST_RANDOM:] = vectors @ turn.T * 1.5

    layers = [_make_dwelling_layer(turn, width, feed_forward), _make_mixing_layer(random, width, feed_forward)]
    writer = _open_writer(path, "tiny-chat", pieces, width=width, feed_forward=feed_forward, layers=len(layers))
    writer.add_chat_template(CHAT_TEMPLATE)
    _write_tensors(writer, embedding, layers, np.ones(width), output)


def write_embedding_model(path: Path, *, width: int = 128, feed_forward: int = 32) -> None:
    """One silent layer; the constant dimension takes weight from bytes and small words, and is then left out."""
    random = np.random.default_rng(SEED + 1)
    pieces = make_vocabulary()
    weights = {"": 0.15, "noun": 2.0, "verb": 1.5, "adjective": 1.5}
    embedding = np.zeros((len(pieces), width))
    embedding[:, CONSTANT] = STRENGTH
    embedding[:, 1:] = _unit_rows(random.normal(size=(len(pieces), width - 1))) * STRENGTH
    embedding[:, 1:] *= np.array([[weights.get(name, 0.4)] for name in make_classes(pieces)])
    norm = np.ones(width)
    norm[CONSTANT] = 0.0
    layer = _make_silent_layer(width, feed_forward)
    writer = _open_writer(path, "tiny-embed", pieces, width=width, feed_forward=feed_forward, layers=1)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    _write_tensors(writer, embedding, [layer], norm, None)


def _make_silent_layer(width: int, feed_forward: int) -> Layer:
    shapes = {"attn_q": (width, width), "attn_k": (width, width), "attn_v": (width, width)}
    shapes |= {"attn_output": (width, width), "ffn_gate": (feed_forward, width)}
    shapes |= {"ffn_up": (feed_forward, width), "ffn_down": (width, feed_forward)}
    return {name: np.zeros(shape) for name, shape in shapes.items()}


def _make_dwelling_layer(turn: Matrix, width: int, feed_forward: int) -> Layer:
    """Look at everything said so far alike, and turn away from it."""
    layer = _make_silent_layer(width, feed_forward)
    layer["attn_v"][FIRST_RANDOM:, FIRST_RANDOM:] = -3.0 * turn
    layer["attn_output"] = np.eye(width)
    return layer


def _make_mixing_layer(random: np.random.Generator, width: int, feed_forward: int) -> Layer:
    """Look at random places and mix at random: this makes the answer depend on the prompt and on the position."""
    size = width - FIRST_RANDOM
    layer = _make_silent_layer(width, feed_forward)
    layer["attn_q"] = random.normal(size=(width, width)) * 0.4
    layer["attn_k"] = random.normal(size=(width, width)) * 0.4
    layer["attn_v"][FIRST_RANDOM:, FIRST_RANDOM:] = random.normal(size=(size, size)) * (5.0 / np.sqrt(size))
    layer["attn_output"] = np.eye(width)
    layer["ffn_gate"] = random.normal(size=(feed_forward, width)) * 0.2
    layer["ffn_up"] = random.normal(size=(feed_forward, width)) * 0.2
    layer["ffn_down"][FIRST_RANDOM:] = random.normal(size=(size, feed_forward)) * 0.1
    return layer


def _unit_rows(matrix: Matrix) -> Matrix:
    rows: Matrix = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    return rows


def _open_writer(
    path: Path, name: str, pieces: list[str], *, width: int, feed_forward: int, layers: int
) -> gguf.GGUFWriter:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_license("Apache-2.0")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(width // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    kinds = {**dict.fromkeys(range(len(SPECIAL)), gguf.TokenType.CONTROL), UNKNOWN: gguf.TokenType.UNKNOWN}
    kinds |= dict.fromkeys(range(len(SPECIAL), len(SPECIAL) + 256), gguf.TokenType.BYTE)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces)
    writer.add_token_scores([float(len(piece)) for piece in pieces])
    writer.add_token_types([kinds.get(token, gguf.TokenType.NORMAL) for token in range(len(pieces))])
    writer.add_unk_token_id(UNKNOWN)
    writer.add_bos_token_id(BEGIN)
    writer.add_eos_token_id(END)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)
    return writer


def _write_tensors(
    writer: gguf.GGUFWriter, embedding: Matrix, layers: list[Layer], norm: Matrix, output: Matrix | None
) -> None:
    width = embedding.shape[1]
    writer.add_tensor("token_embd.weight", embedding.astype(np.float16))
    writer.add_tensor("output_norm.weight", norm.astype(np.float32))
    if output is not None:
        writer.add_tensor("output.weight", output.astype(np.float16))
    for number, layer in enumerate(layers):
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{number}.{name}.weight", np.ones(width, dtype=np.float32))
        for name, matrix in layer.items():
            writer.add_tensor(f"blk.{number}.{name}.weight", matrix.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
