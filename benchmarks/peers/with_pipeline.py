"""``pipeline("text-classification")`` of transformers, with its default batch size of one."""

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline


def load(job):
    tokenizer = AutoTokenizer.from_pretrained(job["checkpoint"])
    model = AutoModelForSequenceClassification.from_pretrained(job["checkpoint"], dtype=torch.float32)
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    classes = [model.config.id2label[number] for number in range(model.config.num_labels)]

    def score(rows):
        texts = [job["texts"][row] for row in rows]
        found = classify(texts, top_k=None, function_to_apply="softmax")
        by_class = [{entry["label"]: entry["score"] for entry in entries} for entries in found]
        return [[row[name] for name in classes] for row in by_class]

    return score
