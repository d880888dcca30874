"""Running scorers over rows, on all devices, to an end that loses nothing.

`options`     `RunOptions`: what a caller may ask of a run.
`readiness`   All that can be known to be wrong before anything is loaded.
`items`       Distinct battles, longest first, cut into chunks; their keys in the journal.
`planning`    Which chunks a run scores, at first and after the original passes.
`chunks`      The queue of chunks that nobody has begun, and their cost.
`results`     What came of one scorer's items.
`jobs`        One scorer's work: what waits, what was begun, what it took.
`placement`   Which scorer a slot had best work for; work stealing.
`scheduler`   Who does what next.
`preparing`   The thread that prepares rows ahead.
`workers`     The threads that load, score and free, one per slot.
`instances`   Loaded scorers of a run: one per slot, or one per device.
`failures`    How a run says what went wrong, and how to go on.
`restoring`   What a run takes over from earlier ones.
`selection`   Choosing rows for swapped passes, and queueing these.
`combining`   Whether a blender belongs to the scorers; blending rows that miss some of them.
`margins`     How close rows are by what has been scored so far.
`outcome`     Both passes of every row, what they average to, and what is missing.
`summary`     What a run did, as values for JSON.
`sampling`    A sample that is timed before a run: how many rows, which, how long.
`estimate`    How long a run will take.
`plan`        All that a run has to do at first.
`run`         `Run`: all of it together.
`predictor`   What `Ensemble` does without labels: predictions.
"""
