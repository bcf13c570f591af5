# shellcheck shell=bash
# Installs what the scripts need from the system, on Debian and its derivatives. Source it.

# install_packages PURPOSE PACKAGE...: installs the missing Debian packages if run as root and apt-get exists.
# Otherwise prints which ones to install, and fails.
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
  # The package lists may be outdated or missing. Offline, the cache may still have the packages.
  apt-get update -qq >/dev/null 2>&1 || true
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

package_installed() {
  [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}
