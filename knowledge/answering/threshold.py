"""How alike two questions must be for the answer of one to be shown for the other: what a tenant's members say moves it.

Each answer that was found by other words and then rated counts: a bad one raises the threshold by ``UP``, a good one lowers
it by ``DOWN``, within bounds. So it comes to rest where one in twenty-one of the rated ones is bad; since readers rate what
is wrong far more often than what is right, that is far fewer of all. The counts are of the last ``DAYS`` days: what was
learned is forgotten again, and a rating that is changed or withdrawn counts as it stands.
"""

START, LEAST, MOST = 0.95, 0.90, 0.99
UP, DOWN = 0.02, 0.001
DAYS = 90


def threshold_of(*, good: int, bad: int) -> float:
    """The cosine that two questions must have at least, after so many good and bad ratings."""
    return round(min(MOST, max(LEAST, START + UP * bad - DOWN * good)), 4)
