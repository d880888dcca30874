from tiny import checkpoints

__all__ = ["checkpoints"]
