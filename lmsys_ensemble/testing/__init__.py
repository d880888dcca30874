"""For people who write scorers: a checker and two scorers without a model.

`fake`      `FakeScorer`: deterministic, needs no model.
`faults`    `FaultyScorer`: fails on demand.
`identity`  Settings and fingerprint tell one scorer from another.
`results`   A row's own texts alone decide its logits.
`conduct`   Nothing is left behind.
`check`     `check_scorer`: whether a scorer keeps the contract.
"""
