"""Models: recipes, loading, adapters, heads, forward pass.

`tensorfiles`     Safetensors headers, read without loading.
`patterns`        Regular expressions from strangers, tried under a time limit.
`adapter_config`  ``adapter_config.json``, bounded and checked.
`checkpoints`     What a base model's folder must be before it is read: no pickles, no code.
`skeleton`        A model without weights: which tensors an adapter must bring.
`inspection`      All that can be known of a model without loading it.
`settings`        How a classifier computes, whatever it was trained as.
`recipe`          ``recipe.json``: how a model was trained.
`learned_rows`    Which rows a model has learned from, as hashes.
`digests`         Hashes of base model, adapter and encoding.
`tokenization`    The encoder that a recipe asks for.
`prequantized`    Base models that are stored quantised: known methods, packages, contradictions.
`quantization`    4-bit and 8-bit weights, and unpacking them.
`building`        One model or tokenizer at a time, without transformers' words.
`loading`         Base models and tokenizers, one load at a time.
`transfer`        Copying weights to a GPU beside the loads of other GPUs.
`adapters`        LoRA adapters with their heads: every key is accounted for.
`pooling`         From a sequence's hidden states to the input of its head.
`forward`         Token ids in, float32 logits out.
`heads`           Heads that lie in a model's own folder.
`rescue`          A batch that runs out of memory is halved; what overflows goes to float32.
`golden`          ``golden.json``: inputs with the logits they must give.
`warming`         Compiling kernels while loading.
`assembly`        Base, head and adapter put together and checked.
`language`        Language models with their output matrix, and adapters for them.
`label_head`      A language model's output for the label tokens only.
`chat`            What stands around the texts of a battle: a chat template, or plain words.
`choices`         Language model, adapter, label head put together; contextual calibration.
`rewards`         Reward models: how conversations are written for them.
`importing`       Other people's checkpoints become safetensors with a recipe.
"""

import logging

# On a CPU bitsandbytes says with every matrix product that it converts its input, and when it is imported that it
# misses an optional kernel. Neither is anything that a user could act upon.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
