// How llama.cpp reads texts and continues them at temperature 0.
//
//   llama_cpp MODEL.gguf TEXTS N OUT.json
//
// TEXTS are separated by the byte 0x1e; special tokens in them count. OUT has for each its ids and, for N tokens, the id
// and the logit of the best and of the second best. With N = 0 only the vocabulary is loaded.
//
//   c++ -O2 -std=c++17 -I$LLAMA/include -I$LLAMA/ggml/include llama_cpp.cpp -lllama -lggml -lggml-base
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "llama.h"

static std::vector<llama_token> tokenize(const llama_vocab * vocab, const std::string & text) {
    std::vector<llama_token> ids(text.size() + 16);
    ids.resize(llama_tokenize(vocab, text.data(), text.size(), ids.data(), ids.size(), true, true));
    return ids;
}

static void continue_greedily(llama_model * model, std::vector<llama_token> feed, int n, FILE * out) {
    auto params = llama_context_default_params();
    params.n_ctx = params.n_batch = 1024;
    params.type_k = params.type_v = GGML_TYPE_F32;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    llama_context * context = llama_init_from_model(model, params);
    const int size = llama_vocab_n_tokens(llama_model_get_vocab(model));
    for (int step = 0; step < n; step++) {
        llama_decode(context, llama_batch_get_one(feed.data(), feed.size()));
        const float * logits = llama_get_logits_ith(context, -1);
        int best = 0;
        for (int i = 1; i < size; i++) {
            best = logits[i] > logits[best] ? i : best;
        }
        int second = best == 0 ? 1 : 0;
        for (int i = 0; i < size; i++) {
            second = i != best && logits[i] > logits[second] ? i : second;
        }
        fprintf(out, "%s[%d,%.5f,%d,%.5f]", step ? "," : "", best, logits[best], second, logits[second]);
        feed.assign(1, best);
    }
    llama_free(context);
}

int main(int argc, char ** argv) {
    if (argc != 5) {
        return 2;
    }
    const int n = atoi(argv[3]);
    auto params = llama_model_default_params();
    params.vocab_only = n == 0;
    llama_model * model = llama_model_load_from_file(argv[1], params);
    if (!model) {
        return 1;
    }
    std::ifstream file(argv[2], std::ios::binary);
    std::string texts((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    FILE * out = fopen(argv[4], "w");
    const char * before = "[";
    for (size_t at = 0, end = 0; end != texts.size(); at = end + 1) {
        end = std::min(texts.find('\x1e', at), texts.size());
        auto ids = tokenize(llama_model_get_vocab(model), texts.substr(at, end - at));
        fprintf(out, "%s\n{\"ids\":[", before);
        before = ",";
        for (size_t i = 0; i < ids.size(); i++) {
            fprintf(out, "%s%d", i ? "," : "", ids[i]);
        }
        fprintf(out, "],\"steps\":[");
        if (n > 0) {
            continue_greedily(model, ids, n, out);
        }
        fprintf(out, "]}");
    }
    fprintf(out, "\n]\n");
    fclose(out);
    return 0;
}
