"""Colours and widths for terminals."""

STYLES = {
    "complete": "green",
    "pruned": "yellow",
    "fail": "red",
    "infeasible": "magenta",
    "base": "cyan",
    "running": "blue",
}


# Columns of a terminal that holds a leaderboard with its full titles.
WIDE = 104
