"""Tables in, battles out; predictions and submissions.

`formats`        Which format a file's name says, and its bytes, from wherever they come.
`delimited`      Comma- and tab-separated values: every row's fields are counted.
`json_lines`     JSON lines: one object per line.
`tables`         Reading and writing tables; ids, groups and columns are checked here.
`frames`         Paths, Arrow and polars tables and lists of rows, as DataFrames.
`battles`        A prompt and two responses, each a sequence of turns.
`labels`         One column per class, or the winner's name.
`languages`      Script and language of texts.
`labelled`       Labelled battles, as fitting and measuring take them.
`corpus`         Labelled battles of one file or several, with sources and groups, as training takes them.
`merging`        Labelled battles of several origins in one table.
`conversations`  Lists of messages and transcripts, split into turns.
`sources`        Public preference data, read from their own files.
`predictions`    Predictions and labels in files, brought together by id.
`submission`     A checked submission, written whole or not at all.
"""
