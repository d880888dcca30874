"""Devices, and packed batches on them: sequences one behind the other, without padding.

`hardware`    Devices, number formats, free memory.
`speed`       How fast a device multiplies matrices.
`capacity`    Operations and memory of a model, by its shape.
`packing`     Packed batches: sequences one behind the other.
`attention`   Attention over packed batches, one sequence at a time.
`block_mask`  Which keys a packed batch's tokens see, by blocks.
`kernels`     Compiled attention: sizes, options, what cannot be compiled.
`flex`        Attention over a packed batch in one kernel.
`depth`       Running a part of a decoder's layers.
`decoder`     Decoder layers over packed batches.
"""
