# shellcheck shell=bash
# What the scripts need from the system. Sourced, not run. Debian and its kin are installed for, others are told.

# install_packages WHAT_FOR PACKAGE...: installs the Debian packages that are missing, when run as root with
# apt-get at hand. Elsewhere it says in one message which to install, and fails.
install_packages() {
  local purpose=$1
  shift
  local missing=()
  local package
  for package in "$@"; do
    package_installed "$package" || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
    printf '%s needs these packages (Debian names): %s\n' "$purpose" "${missing[*]}" >&2
    command -v apt-get >/dev/null && printf 'Install them:  sudo apt-get install %s\n' "${missing[*]}" >&2
    return 1
  fi
  printf 'Installing %s\n' "${missing[*]}" >&2
  # The lists may be old, or absent on a new machine; offline, the cache may still have the packages.
  apt-get update -qq >/dev/null 2>&1 || true
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

package_installed() {
  [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}
