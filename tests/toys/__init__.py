"""The smallest engine and launcher that a study runs with: what a package of one's own has to have, and no more."""
