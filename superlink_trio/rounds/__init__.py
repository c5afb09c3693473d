"""What was asked of nodes and what was answered, round by round, whatever API it passes.

rounds      the rounds of every run, and what the log says of those that wait
progress    what moves, as the log has it
tasks       how tasks of Flower 1.8 to 1.11 are followed
messages    how messages of Flower 1.23 and later are
"""

from superlink_trio.rounds.rounds import MOST_ROUNDS, Rounds, RoundView, together

__all__ = ["MOST_ROUNDS", "RoundView", "Rounds", "together"]
