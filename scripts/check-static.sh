#!/bin/bash
# Fails unless a program needs no other file to run: the same one runs on any host and in a node that is empty.
# usage: check-static.sh PROGRAM
set -euo pipefail
program=$1
if readelf -lW "$program" | grep -q '\bINTERP\b'; then
  echo "$program asks for a dynamic loader" >&2
  exit 1
fi
needed=$(readelf -dW "$program" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
if [ -n "$needed" ]; then
  echo "$program links" "$needed" >&2
  exit 1
fi
echo "$program is static ($(stat -c %s "$program" | numfmt --to=iec-i)B)"
