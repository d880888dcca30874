"""For people who write scorers: a checker and two scorers without a model.

`fake`    `FakeScorer`: deterministic, needs no model.
`faults`  `FaultyScorer`: fails on demand.
`check`   `check_scorer`: whether a scorer keeps the contract.
"""
