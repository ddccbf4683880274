#!/bin/bash
# Adds up what the test runners have said in a log and says it in one line.
# usage: summary.sh LOG EXIT_CODE
# EXIT_CODE is that of what wrote the log: a failure that no runner counted (a lint, a build) counts as one.
set -euo pipefail
awk -v code="$2" '
  # test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s
  /^test result: / { passed += $4; failed += $6; skipped += $8 }
  # fuzz layer: 12345 runs in 21 s
  /^fuzz [a-z]+: [0-9]+ runs in / { passed += 1 }
  /^fuzz [a-z]+: FAILED/ { failed += 1 }
  /^VM-OK/ { passed += 1 }
  /^VM-FAILED/ { failed += 1 }
  /^VM-SKIPPED/ { skipped += 1 }
  END {
    if (code != 0 && failed == 0) failed = 1
    printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
    exit (failed > 0)
  }' "$1"
