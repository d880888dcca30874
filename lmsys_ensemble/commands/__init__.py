"""What each command does: reads files, calls the library, returns what is to be printed.

`options`           What each command is asked for.
`training_options`  The same of commands that make models.
`table`             The commands by name; the parser of the command line.
`output`            The shape of results; what is said meanwhile; how results are written.
`targets`           Where results may go, checked before anything is loaded.
`members`           NAME=FILE: files of predictions and the members that they belong to.
`scoring`           predict, submit, evaluate.
`planning`          plan.
`blending`          blend, report.
`cleaning`          clean.
`labelling`         pseudo-label.
`preparation`       train, import-checkpoint, models, validate.
`lexical`           fit-lexical.
`merging`           merge-adapters, merge.
`scorers`           scorers.
`runs`              runs show.
"""
