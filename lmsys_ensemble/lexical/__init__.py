"""A model of what can be counted: the baseline that every language model must beat, and a cheap, different member.

`settings`   What is fitted.
`features`   Length, format, refusals, overlap and script of battles as numbers.
`tfidf`      TF-IDF vectors of responses, brought down to a few components.
`logistic`   A regression on the features that cannot prefer a place.
`boosting`   Boosted trees on top of it, by LightGBM.
`trees`      Files of trees, checked before LightGBM reads them.
`model`      The fitted model: from battles to logits.
`files`      Its folder: JSON, safetensors and LightGBM's text, with digests and golden rows.
"""
