"""The dialogues at the end: the pictures and the report."""

import json

from mas.demo import dialogue, roles
from mas.demo.analysis import PAIRS_KEY, PAIRS_SHARED, ROLES_KEY
from mas.demo.dialogue import Dialogue
from mas.testing import Request


def chart(request: Request) -> Dialogue:
    """Draw the table, as the shared roles and pairs suggest."""
    results = yield from dialogue.previous_results()
    chosen = yield from dialogue.shared(
        "Which columns did the profile choose?", ROLES_KEY, otherwise=results["profile"]
    )
    found = results["correlation"]["pairs"][:PAIRS_SHARED]
    pairs = yield from dialogue.shared(
        "And which go together?", PAIRS_KEY, otherwise=found
    )
    columns = results["load"]["columns"]
    measures = chosen["measures"]
    pair = roles.strongest_pair(pairs, measures)
    spec = {
        "group": chosen["group"],
        "measure": pair[1] if pair else next(iter(measures), None),
        "pair": pair,
        "labels": {column["name"]: column["label"] for column in columns},
    }
    yield from dialogue.write(
        "This is what I draw.",
        f"{request.cwd}/temp/chart.json",
        json.dumps(spec, ensure_ascii=False, indent=2),
    )
    drawn = yield from dialogue.run(request, "And this program draws it.", "draw")
    files = drawn["files"]
    summary = f"Drawn from the rows: {', '.join(files)}."
    data = {"files": files, "pair": pair, "measure": spec["measure"]}
    yield from dialogue.hand_in(request, data=data, summary=summary, files=files)
    return summary


def report(request: Request) -> Dialogue:
    """Put it all together, and check what was computed twice."""
    told = yield from dialogue.run(
        request, "I put the results together and compare them.", "report"
    )
    written = yield from dialogue.run(
        request,
        "It agrees. Now the pages."
        if told["checks_passed"]
        else "It does not agree, and the pages say so.",
        "render",
    )
    findings = " ".join(told["findings"])
    summary = (
        f"{findings} All figures were computed from the file in this run; the model "
        "was scripted."
    )
    if not told["checks_passed"]:
        summary = f"The results contradict each other: {' '.join(told['checks'])}"
    yield from dialogue.hand_in(
        request,
        data=told,
        summary=summary,
        files=written["files"],
        success=told["checks_passed"],
    )
    return summary
