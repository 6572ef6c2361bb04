#!/usr/bin/env bash
# Mend what copying a clone between systems breaks, in five steps; says what it changes.
#
#     bash scripts/auto_fix.sh
#
# 1 line ends of shell scripts, 2 their permission to run, 3 the folders that commands write to,
# 4 folders that a script enters without quotes (named, not changed), 5 files that must be there.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

echo "1 of 5: line ends"
for script in scripts/*.sh; do
  if grep -q $'\r' "$script"; then
    text=$(tr -d '\r' < "$script"; printf x)
    printf %s "${text%x}" > "$script"
    echo "  $script: Windows line ends removed"
  fi
done

echo "2 of 5: permissions"
for script in scripts/*.sh; do
  if [[ ! -x $script ]]; then
    chmod +x "$script"
    echo "  $script: may be run now"
  fi
done

echo "3 of 5: folders"
for folder in logs results data/unified_splits outputs/figures outputs/checkpoints; do
  if [[ ! -d $folder ]]; then
    mkdir -p "$folder"
    echo "  $folder: made"
  fi
done

echo "4 of 5: quotes"
wrong=0
if grep -nE '^[^#"]*\bcd \$[A-Za-z_{]' scripts/*.sh; then
  echo "  put quotes around these folders" >&2
  wrong=1
fi

echo "5 of 5: files"
for file in pyproject.toml constraints.txt Makefile src/kava/cli.py experiments/train_with_kv.py; do
  if [[ ! -f $file ]]; then
    echo "  $file is missing: clone again, or git checkout -- $file" >&2
    wrong=1
  fi
done
exit "$wrong"
