"""From battles to token ids: templates, truncation, batches.

`templates`   Named, versioned templates: how a battle becomes text.
`truncation`  Truncation policies, and how ``balanced`` shares out a budget.
`tokens`      Token ids of battles, with the field that every token came from; cuts what is too long.
`retention`   The account of what truncation kept and cut.
`choice_prompts`  Prompts that ask which response is better, and the labels that answer.
`label_tokens`    The tokens of labels, derived and checked for a tokenizer.
`choices`     Battles as questions whose last token is followed by a label.
`rewards`     Battles as two conversations, one with each response, for reward models.
`prefixes`    Beginnings that rows share, so that they are computed once.
`batches`     Batches by token budget, and the way back to the rows' order.
"""
