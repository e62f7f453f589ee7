"""Of a full matrix of cases, the few that the short run takes."""

import itertools


def pairs_of(case: tuple) -> set[tuple]:
    """Return each pair of values of a case, with their places."""
    return {
        (place, other, case[place], case[other])
        for place, other in itertools.combinations(range(len(case)), 2)
    }


def every_pair_once(cases: list[tuple]) -> list[tuple]:
    """Choose cases, the same each time, until every pair of values has occurred."""
    left = set().union(*map(pairs_of, cases))
    chosen = []
    while left:
        best = max(cases, key=lambda case: len(pairs_of(case) & left))
        chosen.append(best)
        left -= pairs_of(best)
    return chosen
