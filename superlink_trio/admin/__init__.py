"""What an operator looks at while a SuperLink runs: health, figures, a page. It changes nothing.

history    what has happened to the parts of the tree
flower     nodes and runs of Flower 1.23 and later, one by one
documents  what both generations have in the overview
figures    what is counted and what is seen, of one process or of several
sources    where the two come from
answers    how a worker tells the process that serves operators for it
overview   how everything is doing at this moment, as one JSON document
tally      plain counters that calls bump on their way
metrics    what Prometheus is told of them, and of what is stored
processes  memory, time and files of processes
counts     what is in the store, counted as often as it can bear
rates      calls and how fast they were answered
feed       the document as a stream, for pages that stay open
page       the page (page.html), and what a browser may do with it
guard      which requests are answered at all
traces     calls as spans of OpenTelemetry, with or without an admin address
watching   all of these that see events and calls
site       the HTTP paths
service    the leaf of the tree
"""

from superlink_trio.admin.answers import AnswerService, Question, Questions, Topic
from superlink_trio.admin.counts import Counts
from superlink_trio.admin.figures import Figures, Seen
from superlink_trio.admin.flower import Flower
from superlink_trio.admin.history import History
from superlink_trio.admin.overview import Overview
from superlink_trio.admin.rates import Rates
from superlink_trio.admin.service import AdminService
from superlink_trio.admin.sources import OwnSources, Sources
from superlink_trio.admin.tally import CallTally
from superlink_trio.admin.watching import Watching

__all__ = [
    "AdminService",
    "AnswerService",
    "CallTally",
    "Counts",
    "Figures",
    "Flower",
    "History",
    "Overview",
    "OwnSources",
    "Question",
    "Questions",
    "Rates",
    "Seen",
    "Sources",
    "Topic",
    "Watching",
]
