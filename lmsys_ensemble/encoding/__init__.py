"""From battles to token ids: templates, truncation, batches.

`templates`   Named, versioned templates: how a battle becomes text.
`truncation`  Truncation policies, and how ``balanced`` shares out a budget.
`tokens`      Token ids of battles, with the field that every token came from; cuts what is too long.
`retention`   The account of what truncation kept and cut.
`prefixes`    Beginnings that rows share, so that they are computed once.
`batches`     Batches by token budget, and the way back to the rows' order.
"""
