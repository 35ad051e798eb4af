"""Makes sample.gguf and gemma2.gguf with the Python package `gguf`, and tokenizer.gguf with what sentencepiece gives.

    pip install gguf numpy safetensors torch sentencepiece
    python make_files.py

gemma2.gguf has the weights of ../gemma2/bf16 under llama.cpp's names, its norms plus one; tokenizer.gguf and
tokenizer.json have a small tokenizer trained on ../text and the ids that sentencepiece gives for some texts.
"""

import io
import json
from pathlib import Path

import gguf
import numpy as np
import sentencepiece
import torch
from gguf import GGMLQuantizationType as T
from gguf import GGUFValueType as V
from safetensors.torch import load_file

HERE = Path(__file__).parent
LAYER = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "post_feedforward_layernorm": "post_ffw_norm",
}
TEXTS = ["", "the king", "  two  spaces ", "HAMLET:\nTo be, or not to be", "naïve 日本 🙂", "aaaaaaa", "tab\there",
         "ends with space ", "<start_of_turn>x", "▁ literal", "thethethe heather another other"]


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def sample():
    w = gguf.GGUFWriter(HERE / "sample.gguf", "none")
    w.add_uint8("a.u8", 200)
    w.add_int8("a.i8", -100)
    w.add_uint16("a.u16", 60000)
    w.add_int16("a.i16", -30000)
    w.add_uint32("a.u32", 4_000_000_000)
    w.add_int32("a.i32", -2_000_000_000)
    w.add_float32("a.f32", 1e-6)
    w.add_bool("a.bool", True)
    w.add_string("a.string", "naïve")
    w.add_uint64("a.u64", 1 << 60)
    w.add_int64("a.i64", -(1 << 60))
    w.add_float64("a.f64", 0.1)
    w.add_array("a.strings", ["", "two words", "日本"])
    w.add_array("a.ints", [3, -4])
    w.add_array("a.floats", [0.5, -1.5])
    w.add_array("a.bools", [True, False])
    w.add_key_value("a.bytes", [1, 2, 255], V.ARRAY, V.UINT8)
    w.add_key_value("a.nested", [[1, 2], [3]], V.ARRAY, V.ARRAY)
    x = np.arange(3 * 64, dtype=np.float32).reshape(3, 64) / 8 - 7
    w.add_tensor("plain", x[:, :5].copy())
    w.add_tensor("half", x[:2, :3].astype(np.float16))
    w.add_tensor("blocks", gguf.quants.quantize(x, T.Q8_0), raw_dtype=T.Q8_0)
    w.add_tensor("cube", np.arange(24, dtype=np.int32).reshape(2, 3, 4))
    w.add_tensor("one", np.array([2.5], np.float32))
    finish(w)


def gemma2():
    folder = HERE.parent / "gemma2/bf16"
    config = json.loads((folder / "config.json").read_text())
    w = gguf.GGUFWriter(HERE / "gemma2.gguf", "gemma2")
    w.add_context_length(config["max_position_embeddings"])
    w.add_embedding_length(config["hidden_size"])
    w.add_block_count(config["num_hidden_layers"])
    w.add_feed_forward_length(config["intermediate_size"])
    w.add_head_count(config["num_attention_heads"])
    w.add_head_count_kv(config["num_key_value_heads"])
    w.add_layer_norm_rms_eps(config["rms_norm_eps"])
    w.add_key_length(config["head_dim"])
    w.add_value_length(config["head_dim"])
    w.add_attn_logit_softcapping(config["attn_logit_softcapping"])
    w.add_final_logit_softcapping(config["final_logit_softcapping"])
    w.add_sliding_window(config["sliding_window"])
    # Not what head_dim implies, so the key is needed.
    w.add_attention_scale(config["query_pre_attn_scalar"] ** -0.5)
    w.add_file_type(32)
    w.add_bos_token_id(2)
    w.add_eos_token_id(1)
    w.add_pad_token_id(0)
    for name, x in load_file(folder / "model.safetensors").items():
        x = x.to(torch.float32)
        stem = name.removesuffix(".weight").removeprefix("model.")
        if stem.startswith("layers."):
            _, layer, rest = stem.split(".", 2)
            stem = f"blk.{layer}.{LAYER[rest]}"
        else:
            stem = {"embed_tokens": "token_embd", "norm": "output_norm"}[stem]
        if stem.endswith("norm"):
            w.add_tensor(f"{stem}.weight", (x + 1).numpy())
        else:
            bits = x.to(torch.bfloat16).view(torch.uint16).numpy().view(np.uint8)
            w.add_tensor(f"{stem}.weight", bits, raw_dtype=T.BF16)
    finish(w)


def tokenizer():
    text = (HERE.parents[2] / "models/gemma2-shakespeare/reference.json").read_text()
    lines = "\n".join(case["text"] for case in json.loads(text)).split("\n")
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, model_type="bpe", vocab_size=420, byte_fallback=True,
        add_dummy_prefix=False, remove_extra_whitespaces=False, normalization_rule_name="identity", pad_id=0, eos_id=1,
        bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>", character_coverage=0.99,
        user_defined_symbols=["<start_of_turn>"], hard_vocab_limit=False, split_digits=True, minloglevel=2)
    sp = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
    kind = lambda i: (2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 5 if sp.is_unused(i) else
                      6 if sp.is_byte(i) else 4 if sp.id_to_piece(i) == "<start_of_turn>" else 1)
    n = sp.get_piece_size()
    w = gguf.GGUFWriter(HERE / "tokenizer.gguf", "gemma2")
    w.add_tokenizer_model("llama")
    w.add_token_list([sp.id_to_piece(i) for i in range(n)])
    w.add_token_scores([sp.get_score(i) for i in range(n)])
    w.add_token_types([kind(i) for i in range(n)])
    w.add_bos_token_id(2)
    w.add_eos_token_id(1)
    w.add_unk_token_id(3)
    w.add_add_bos_token(True)
    w.add_add_space_prefix(False)
    finish(w)
    cases = [{"text": t, "ids": sp.encode(t), "decoded": sp.decode(sp.encode(t))} for t in TEXTS]
    (HERE / "tokenizer.json").write_text(json.dumps(cases, ensure_ascii=False, indent=1) + "\n")


sample()
gemma2()
tokenizer()
