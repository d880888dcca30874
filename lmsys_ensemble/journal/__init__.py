"""The durable record of a run: nothing that is finished is lost or falsified. Knows nothing of running.

`folder`        A run's folder: its files, its lock, errors of disks and databases in words.
`fingerprints`  Fingerprints of scorers: JSON text, digest, differences.
`records`       One finished chunk as a record, and its checksum; keys of rows.
`plan_record`   The recorded plan of chunks, as a chain of digests.
`database`      The SQLite file: its tables, opening and transactions.
`upgrade`       Journals of earlier versions, brought up to date.
`finished`      Finished rows of one scorer, put together from records.
`journal`       `Journal`: open, read what is finished, commit a chunk.
`status`        What a run's folder tells, also while the run goes on.
"""
