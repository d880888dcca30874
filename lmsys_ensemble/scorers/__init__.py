"""Scorers: from battles to logits.

`base`             `Scorer`: the contract.
`recipes`          Which recipe a classifier follows.
`identity`         What a classifier is made of: checks and fingerprint.
`model`            What scorers have in common that run a model.
`sequences`        What those have in common that make several sequences of a battle.
`classifier`       `ClassifierScorer`: any sequence-classification model.
`gemma`            `GemmaScorer`.
`llama`            `LlamaScorer`.
`choice_identity`  What a choice scorer is made of: checks and fingerprint.
`choice`           `ChoiceScorer`: a language model that is asked which response is better.
`reward_identity`  What a reward scorer is made of: checks and fingerprint.
`reward`           `RewardScorer`: a reward model that scores each response.
`lexical`          `LexicalScorer`: what can be counted in the texts.
`saved`            `SavedScorer`: probabilities that somebody else has computed.
`registry`         Scorers by name, built-in and third-party alike.
"""
