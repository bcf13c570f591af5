# shellcheck shell=bash
# Creates .venv with the package and its extras. Source it from the root of the checkout.

# ensure_venv [EXTRA...]: makes sure that .venv has the package (editable) with these extras. Fast if nothing has
# changed: for each extra, a file in .venv records what it was installed from.
ensure_venv() {
  local extras=("$@")
  local stamp
  stamp=$(printf '%s\n' "$PWD" | cat - pyproject.toml | sha256sum | cut -d ' ' -f 1)
  venv_is_current "$stamp" "${extras[@]}" && return 0
  (
    flock 9 # two scripts may run at the same time
    venv_is_current "$stamp" "${extras[@]}" || install_venv "$stamp" "${extras[@]}"
  ) 9<pyproject.toml
}

venv_is_current() {
  local stamp=$1
  shift
  venv_works || return 1
  local extra
  for extra in base "$@"; do
    [[ -f .venv/.installed-$extra && $(<".venv/.installed-$extra") == "$stamp" ]] || return 1
  done
}

install_venv() {
  local stamp=$1
  shift
  if ! venv_works; then
    local python
    python=$(find_python) || return 1
    "$python" -m venv --clear .venv
  fi
  local extras
  extras=$(IFS=, && printf '%s' "$*")
  printf 'Installing bacalhau_p2p into .venv (takes a minute the first time)\n' >&2
  install_project ".${extras:+[$extras]}" || return 1
  # Bacalhau's SDK pins versions of what it does not import.
  if [[ " $* " == *" test "* ]]; then
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps 'bacalhau-sdk==1.4.2' || return 1
  fi
  # For mypy: libp2p installs outdated stubs of trio, which would take precedence over trio's own types.
  mkdir -p .venv/typed
  ln -sfn "$(.venv/bin/python -c 'import os, trio; print(os.path.dirname(trio.__file__))')" .venv/typed/trio
  local extra
  for extra in base "$@"; do
    printf '%s' "$stamp" >".venv/.installed-$extra"
  done
}

# install_project PROJECT: installs it with pip, or with uv where nothing can be compiled: see [tool.uv] in
# pyproject.toml. A .venv that uv has filled stays with it.
install_project() {
  if [[ ! -x .venv/bin/uv ]] && can_compile || ! ensure_uv; then
    ensure_compiler && .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable "$1"
  else
    .venv/bin/uv pip install --quiet --python .venv/bin/python --editable "$1"
  fi
}

ensure_uv() {
  [[ -x .venv/bin/uv ]] ||
    .venv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1' 2>/dev/null
}

venv_works() {
  [[ -x .venv/bin/python ]] && python_is_new_enough .venv/bin/python &&
    .venv/bin/python -m pip --version >/dev/null 2>&1
}

python_is_new_enough() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# find_python: prints a Python interpreter, 3.11 or newer, that can create a virtual environment.
find_python() {
  local candidate found=
  for candidate in ${PYTHON:+"$PYTHON"} python3 python3.11 python3.12 python3.13; do
    python_is_new_enough "$candidate" || continue
    found=${found:-$candidate}
    "$candidate" -c 'import venv, ensurepip' 2>/dev/null && printf '%s' "$candidate" && return 0
  done
  if [[ -n $found ]]; then
    install_packages "Creating a virtual environment with $found" "$(debian_package "$found" venv)" || return 1
    printf '%s' "$found"
  else
    install_packages "bacalhau_p2p (Python 3.11 or newer)" python3 python3-venv || return 1
    python_is_new_enough python3 || {
      printf 'bacalhau_p2p needs Python 3.11 or newer, but python3 is %s. Choose another one with PYTHON=...\n' \
        "$(python3 --version 2>&1)" >&2
      return 1
    }
    printf python3
  fi
}

# can_compile: whether pip can install fastecdsa as libp2p pins it, which has no wheel: it is there, or what it is
# compiled with.
can_compile() {
  .venv/bin/python -c 'import fastecdsa' 2>/dev/null || [[ -z $(missing_for_compiling) ]]
}

# ensure_compiler: installs what can_compile looks for, or names it in one line.
ensure_compiler() {
  can_compile && return 0
  local needed
  mapfile -t needed < <(missing_for_compiling)
  install_packages "Compiling fastecdsa, a dependency of libp2p," "${needed[@]}"
}

# missing_for_compiling: prints the Debian packages that fastecdsa needs beyond what is there, one a line: a C
# compiler, GMP and Python's headers.
missing_for_compiling() {
  if command -v gcc >/dev/null; then
    printf '#include <gmp.h>\n' | gcc -E - >/dev/null 2>&1 || printf 'libgmp-dev\n'
  else
    printf '%s\n' gcc libc6-dev libgmp-dev
  fi
  .venv/bin/python - <<'PY' || printf '%s\n' "$(debian_package .venv/bin/python dev)"
import pathlib, sys, sysconfig
sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())
PY
}

# debian_package PYTHON SUFFIX: python3.11-venv for an interpreter of version 3.11.
debian_package() {
  "$1" -c 'import sys; print("python%d.%d-" % sys.version_info[:2] + sys.argv[1])' "$2"
}
