"""Data hygiene: rows that harm training or spoil what is measured are found, put right or dropped, and named.

`normalization`  Texts made comparable: normalised texts, words, scripts, keys of battles.
`prompts`        Which prompts are equal or nearly so.
`settings`       What is done with rows that harm training or spoil what is measured.
`report`         What cleaning did, row by row, and what is left.
`cleaner`        The steps of cleaning.
`hygiene`        Cleaning of tables and of labelled battles.
"""
