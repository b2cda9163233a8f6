"""Pairs of which one or the other is right."""


def by_chance(lost: int, won: int) -> float:
    """How often as many pairs or more would be lost if losing and winning were as likely: the exact sign test."""
    from scipy.special import bdtrc

    return float(bdtrc(lost - 1, lost + won, 0.5)) if lost + won else 1.0
