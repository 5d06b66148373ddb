#!/usr/bin/env bash
# DataFusion 55.0.0 (Python package), SELECT a FROM t ORDER BY d + c + b: the columns that ORDER BY needs and SELECT does not give are
# added to the projection below the sort. One would expect one plan for one text. Their order is that of a hash set, and differs
# from one planning to the next, in one process: the plans below are planned 40 times and are several.
# It hurts who keeps something by the places of a plan's columns, or compares plans by their text.
# Seen: "distinct plans 6 distinct answers 1": all orders of three columns.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet install datafusion==55.0.0 pyarrow==25.0.0
"$folder/venv/bin/python" - <<'PY'
import datafusion

context = datafusion.SessionContext()
context.from_pydict({"a": [1, 2], "b": [2, 1], "c": [0, 0], "d": [0, 0]}, name="t")
text = "SELECT a FROM t ORDER BY d + c + b"
plans, answers = set(), set()
for _ in range(40):
    frame = context.sql(text)
    plans.add(frame.logical_plan().display_indent())
    answers.add(str(frame.to_pydict()))
print("distinct plans", len(plans), "distinct answers", len(answers))
print("\n\n".join(sorted(plans)[:2]))
assert len(plans) > 1, "one text gives one plan now"
assert answers == {"{'a': [2, 1]}"}, answers
PY
