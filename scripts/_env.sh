# Sourced by the other scripts: sets ROOT, makes .venv there if it is missing or stale, and sets PY to its python.
#
# Stale means that pyproject.toml, the place of the repository or $PYTHON changed since the install. The stamp is written
# last, so that an install that was interrupted starts again from nothing.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
PY="$ROOT/.venv/bin/python"

_stamp() {
    printf '%s\n' "$(cksum <"$ROOT/pyproject.toml")" "$ROOT" "${PYTHON:-python3}"
}

_fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

_install() {
    local python="${PYTHON:-python3}" log="$ROOT/.venv/install.log"
    command -v "$python" >/dev/null ||
        _fail "$python was not found." "Install Python 3.11 or newer, or set PYTHON to its path."
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        _fail "$python is $("$python" -V 2>&1), and esopt needs Python 3.11 or newer." \
            "Install one and set PYTHON to it, for example: PYTHON=python3.12 $0"
    echo "Setting up $ROOT/.venv (once; about a minute) ..." >&2
    "$python" -m venv --clear "$ROOT/.venv" ||
        _fail "$python could not make a virtual environment." "On Debian and Ubuntu: apt-get install python3-venv"
    "$PY" -m pip install --quiet --disable-pip-version-check --no-input --editable "$ROOT[dev,cli]" >"$log" 2>&1 </dev/null ||
        _fail "$(cat "$log")" "The install failed (see above). Run the script again to try again."
    _stamp >"$ROOT/.venv/stamp"
}

# A second script that starts meanwhile waits here, where the machine has flock.
_prepare() (
    if command -v flock >/dev/null; then
        exec 9>"$ROOT/.venv.lock"
        flock 9
    fi
    [ -x "$PY" ] && [ "$(cat "$ROOT/.venv/stamp" 2>/dev/null)" = "$(_stamp)" ] || _install
)

_prepare || exit 1
