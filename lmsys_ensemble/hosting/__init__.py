"""Where scorers are held and told: devices, slots, time limits, progress, and what stays loaded between runs.

`devices`     Which scorer may run where.
`slots`       Places where one worker thread computes.
`budget`      Deadline, speed, what still fits, which rows are needed most.
`scope`       The stop scope: deadline, failures, whether results still count.
`interrupt`   Ctrl-C and SIGTERM.
`ending`      Workers that stop when told to, and those that do not.
`display`     Bars on a terminal.
`progress`    What a scorer has done, and when it must stop.
`residence`   What stays loaded between runs, and who may use it.
`preloading`  Loading scorers ahead of runs.
`keeper`      `Ensemble`'s loading, freeing, copying and locking.
"""
