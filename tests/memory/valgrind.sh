#!/usr/bin/env bash
# The extension's unsafe paths under valgrind's memcheck; fails on any error with a frame of the extension in it.
# Errors of the interpreter alone are not ours: without its own suppression file they are only counted.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}

if ! command -v valgrind >/dev/null; then
    echo "valgrind is missing: install it with 'apt-get install valgrind'" >&2
    exit 2
fi

report=$(mktemp -d)
trap 'rm -rf "$report"' EXIT
# PYTHONMALLOC: with the interpreter's own arenas valgrind sees neither use after free nor overruns.
PYTHONMALLOC=malloc PYTHONHASHSEED=0 valgrind \
    --tool=memcheck --leak-check=no --num-callers=40 --error-limit=no --child-silent-after-fork=yes \
    --undef-value-errors="${UNDEFINED:-yes}" --log-file="$report/log" \
    "$python" -m tests.memory.unsafe_paths "$@"

# valgrind's report is in paragraphs; one that names the extension is a finding.
awk '
    { sub(/^==[0-9]+== ?/, "") }
    /^$/ { if (error && ours) { print paragraph; found++ } else if (error) { others++ } paragraph = ""; ours = error = 0; next }
    { paragraph = paragraph $0 "\n" }
    /Invalid (read|write|free)|Conditional jump|uninitialised|Mismatched|Source and destination overlap|Process terminating/ { error = 1 }
    /_core\.[^ ]*so|llmcache|pyo3/ { ours = 1 }
    END { printf "valgrind: %d errors with the extension in their stack, %d without\n", found, others; exit found > 0 }
' "$report/log"
