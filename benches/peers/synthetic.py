"""Writes a Hugging Face folder of Gemma 2 2B's shape (Gemma Team 2024, table 1) with random weights in bf16, 5.2 GB.

    python3 benches/peers/synthetic.py FOLDER

Speed does not depend on what the numbers are, and the real weights may not be passed on. The pieces of the vocabulary
are made up.
"""

import itertools
import json
import math
import pathlib
import random
import string
import struct
import sys

VOCABULARY, WIDTH, INNER, LAYERS, HEADS, KV_HEADS, HEAD = 256_000, 2304, 9216, 26, 8, 4, 256
# Bytes written at once, and the bits in so many: sign and mantissa of each bf16 are random, its exponent is that of 2^-7.
CHUNK = 1 << 24
CHOSEN = int.from_bytes(b"\x7f\x80" * (CHUNK // 2), "little")
SMALL = int.from_bytes(b"\x00\x3c" * (CHUNK // 2), "little")
CONFIG = {
    "architectures": ["Gemma2ForCausalLM"],
    "model_type": "gemma2",
    "dtype": "bfloat16",
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD,
    "query_pre_attn_scalar": HEAD,
    "attention_bias": False,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "sliding_window": 4096,
    "max_position_embeddings": 8192,
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
    "tie_word_embeddings": True,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}


def shapes():
    """Every tensor's name and shape."""
    yield "model.embed_tokens.weight", (VOCABULARY, WIDTH)
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        yield at + "self_attn.q_proj.weight", (HEADS * HEAD, WIDTH)
        yield at + "self_attn.k_proj.weight", (KV_HEADS * HEAD, WIDTH)
        yield at + "self_attn.v_proj.weight", (KV_HEADS * HEAD, WIDTH)
        yield at + "self_attn.o_proj.weight", (WIDTH, HEADS * HEAD)
        yield at + "mlp.gate_proj.weight", (INNER, WIDTH)
        yield at + "mlp.up_proj.weight", (INNER, WIDTH)
        yield at + "mlp.down_proj.weight", (WIDTH, INNER)
        for norm in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
            yield f"{at}{norm}_layernorm.weight", (WIDTH,)
    yield "model.norm.weight", (WIDTH,)


def write_weights(path):
    """One safetensors file: a header that says where each tensor lies, then the tensors."""
    header, end = {}, 0
    for name, shape in shapes():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    numbers = random.Random(0)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for at in range(0, end, CHUNK):
            n = min(end - at, CHUNK)
            bits = int.from_bytes(numbers.randbytes(n), "little")
            file.write((bits & CHOSEN | SMALL).to_bytes(CHUNK, "little")[:n])


def write_tokenizer(path):
    """Byte-fallback BPE as Gemma's, whose pieces are the first strings over an alphabet: all parts of one are pieces."""
    letters = "\u2581" + string.ascii_letters + string.digits[:7]
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    first = special + [f"<0x{byte:02X}>" for byte in range(256)]
    strings = ("".join(piece) for n in itertools.count(1) for piece in itertools.product(letters, repeat=n))
    pieces = list(itertools.islice(strings, VOCABULARY - len(first)))
    tokenizer = {
        "version": "1.0",
        "added_tokens": [
            {"id": token, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}
            for token, content in enumerate(special)
        ],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
        ]},
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {piece: token for token, piece in enumerate(first + pieces)},
            "merges": [[p[:cut], p[cut:]] for p in pieces for cut in range(len(p) - 1, 0, -1)],
        },
    }
    path.write_text(json.dumps(tokenizer))


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2))
    write_tokenizer(folder / "tokenizer.json")
    # Last: a folder with weights is whole.
    part = folder / "model.safetensors.part"
    write_weights(part)
    part.rename(folder / "model.safetensors")


if __name__ == "__main__":
    main()
