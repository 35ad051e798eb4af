"""Writes figures.json: what evaluation and sampling must find, by other programs.

    pip install torch transformers sacrebleu
    python make.py            # beside text.txt, in the repository

Perplexity: transformers on models/gemma2-shakespeare, f32 arithmetic on the bf16 weights, eager
attention. BLEU: sacrebleu, without smoothing, on token numbers. Divergence: torch and numpy in f64.
Sampling: the logits processors of transformers. text.txt is the beginning of
The Tempest, which the model was not trained on.
"""

import json
import math
import pathlib
import random

import numpy as np
import torch
from sacrebleu.metrics import BLEU
from tokenizers import Tokenizer
from transformers import Gemma2ForCausalLM
from transformers.generation import logits_process as lp

HERE = pathlib.Path(__file__).parent
MODEL = HERE.parents[2] / "models" / "gemma2-shakespeare"
BOS = 2
torch.manual_seed(0)
torch.set_num_threads(1)


@torch.no_grad()
def perplexity():
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    model = Gemma2ForCausalLM.from_pretrained(
        MODEL, attn_implementation="eager", dtype=torch.float32
    ).eval()
    ids = tokenizer.encode((HERE / "text.txt").read_text(), add_special_tokens=False).ids
    cases = []
    for bos, context, stride in [
        (True, 128, 128),
        (True, 96, 40),
        (False, 128, 128),
        (False, 96, 40),
    ]:
        first = 0 if bos else 1
        total, count, done, start = 0.0, 0, first, first
        while done < len(ids):
            end = min(len(ids), start + context)
            targets = ids[start:end]
            inputs = [BOS] + targets[:-1] if bos else ids[start - 1 : end - 1]
            logits = model(input_ids=torch.tensor([inputs])).logits[0].double()
            loss = torch.nn.functional.cross_entropy(
                logits, torch.tensor(targets), reduction="none"
            )
            new = loss[done - start :]
            total, count = total + new.sum().item(), count + len(new)
            done, start = end, start + stride
        cases.append(
            {
                "bos": bos,
                "context": context,
                "stride": stride,
                "tokens": count,
                "nats": total / count,
            }
        )
    return cases


def bleu():
    rng = random.Random(0)
    cases = []
    for n, vocab, change in [(1, 9, 0.3), (5, 30, 0.2), (20, 200, 0.1), (3, 4, 0.9), (4, 50, 0.0)]:
        texts, references = [], []
        for _ in range(n):
            reference = [rng.randrange(vocab) for _ in range(rng.randrange(5, 30))]
            text = [rng.randrange(vocab) if rng.random() < change else t for t in reference]
            text = text[: rng.randrange(4, 32)] + [rng.randrange(vocab)] * rng.randrange(3)
            texts.append(text)
            references.append(reference)

        def words(lists):
            return [" ".join(map(str, one)) for one in lists]

        scores, found = [], None
        for order in range(1, 5):
            metric = BLEU(tokenize="none", smooth_method="none", max_ngram_order=order, force=True)
            found = metric.corpus_score(words(texts), [words(references)])
            scores.append(found.score)
        cases.append(
            {
                "texts": texts,
                "references": references,
                "scores": scores,
                "precisions": found.precisions,
                "brevity_penalty": found.bp,
            }
        )
    return cases


def divergence():
    reference = torch.randn(40, 24) * 3
    model = reference + torch.randn(40, 24) * torch.linspace(0, 1.5, 40)[:, None]
    targets = torch.randint(0, 24, (40,))
    a, b = reference.double(), model.double()
    p, q = torch.log_softmax(a, 1), torch.log_softmax(b, 1)
    kl = torch.nn.functional.kl_div(q, p, reduction="none", log_target=True).sum(1)
    pick = targets[:, None]
    delta = (q.gather(1, pick).exp() - p.gather(1, pick).exp()).square().mean().sqrt()
    nats = torch.nn.functional.cross_entropy(b, targets).item()
    return {
        "reference": reference.tolist(),
        "model": model.tolist(),
        "targets": targets.tolist(),
        "kl_mean": kl.mean().item(),
        "kl_p99": float(np.quantile(kl.numpy(), 0.99)),
        "kl_median": float(np.quantile(kl.numpy(), 0.5)),
        "agreement": (a.argmax(1) == b.argmax(1)).double().mean().item(),
        "rms_delta_p": delta.item(),
        "logit_mse": torch.nn.functional.mse_loss(b, a).item(),
        "logit_cosine": torch.nn.functional.cosine_similarity(a, b).mean().item(),
        "perplexity": math.exp(nats),
    }


def sampling():
    cases = []
    for temperature, top_k, top_p, min_p, penalty in [
        (1.0, 0, 1.0, 0.0, 1.0),
        (0.7, 10, 1.0, 0.0, 1.0),
        (1.3, 0, 0.8, 0.0, 1.0),
        (1.0, 0, 1.0, 0.1, 1.0),
        (1.0, 0, 1.0, 0.0, 1.5),
        (0.8, 20, 0.9, 0.05, 1.2),
        (2.0, 15, 0.95, 0.2, 0.8),
    ]:
        logits = torch.randn(1, 40) * 2.5
        seen = torch.randint(0, 40, (1, 12))
        steps = [
            lp.RepetitionPenaltyLogitsProcessor(penalty),
            lp.TemperatureLogitsWarper(temperature),
        ]
        if top_k:
            steps.append(lp.TopKLogitsWarper(top_k))
        if top_p < 1:
            steps.append(lp.TopPLogitsWarper(top_p))
        if min_p:
            steps.append(lp.MinPLogitsWarper(min_p))
        scores = logits
        for step in steps:
            scores = step(seen, scores.clone())
        probabilities = torch.softmax(scores.double(), 1)[0]
        kept = torch.nonzero(torch.isfinite(scores[0]))[:, 0].tolist()
        cases.append(
            {
                "temperature": temperature,
                "top_k": top_k,
                "top_p": top_p,
                "min_p": min_p,
                "repeat_penalty": penalty,
                "logits": logits[0].tolist(),
                "seen": seen[0].tolist(),
                "kept": kept,
                "probabilities": [probabilities[i].item() for i in kept],
            }
        )
    return cases


figures = {
    "perplexity": perplexity(),
    "bleu": bleu(),
    "divergence": divergence(),
    "sampling": sampling(),
}
(HERE / "figures.json").write_text(json.dumps(figures) + "\n")
print(json.dumps(figures["perplexity"], indent=1))
print([case["scores"] for case in figures["bleu"]])
