"""What is done with rows that harm training or spoil what is measured."""

from typing import Literal

from pydantic import Field

from lmsys_ensemble.settings import Settings


class HygieneSettings(Settings):
    """Rules of cleaning; every row that they touch is reported.

    Parameters
    ----------
    empty : {"drop", "tie", "keep"}
        Rows whose two responses are both null or blank. Default: drop, because their labels say nothing of texts.
    identical : {"tie", "drop", "keep"}
        Rows whose two responses are the same text, white space at the ends of turns aside. Default: relabel them as
        ties; a task without ties gets one half each.
    duplicates : {"battle", "responses", "keep"}
        Rows that repeat an earlier one in either order, by normalised text. ``battle`` (default) drops those with the
        same prompt and responses; ``responses`` drops those with the same responses, whatever the prompt.
    contradictions : {"average", "first", "drop"}
        Copies whose labels differ, once swapped responses are put right. ``average`` (default) gives the row that
        is kept their mean, a soft label; ``first`` leaves its own label; ``drop`` drops all of the copies.
    overlap : {"battle", "prompt", "keep"}
        Rows that are in the evaluation set, by normalised text. ``battle`` (default) drops those with the same prompt
        and responses in either order; ``prompt`` drops all whose prompt group has a prompt of the evaluation set.
    similar_prompts : float or None
        Jaccard similarity of word pairs from which two prompts count as one in groups. Default: 0.8; in a prompt of
        about 20 words one may differ. None: only prompts that are equal after normalisation.
    """

    empty: Literal["drop", "tie", "keep"] = "drop"
    identical: Literal["tie", "drop", "keep"] = "tie"
    duplicates: Literal["battle", "responses", "keep"] = "battle"
    contradictions: Literal["average", "first", "drop"] = "average"
    overlap: Literal["battle", "prompt", "keep"] = "battle"
    similar_prompts: float | None = Field(default=0.8, ge=0.5, le=1)
