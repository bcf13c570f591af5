# shellcheck shell=bash
# A folder in memory for the files of tests: stores commit to disk thousands of times, and wait for it each time.

MEMORY_NEEDED=$((4 * 1024 * 1024)) # KiB; the tests need a tenth

# make_memory_folder: sets memory_folder to a new folder in memory. Fails if there is no room for one.
make_memory_folder() {
  local free
  memory_folder=
  free=$(awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo 2>/dev/null) || return 1
  ((${free:-0} >= 2 * MEMORY_NEEDED)) || return 1
  if [[ $(stat --file-system --format %T /dev/shm 2>/dev/null) == tmpfs ]] &&
    ! grep -qE '^[^ ]+ /dev/shm [^ ]+ ([^ ]+,)?noexec[, ]' /proc/mounts &&
    free=$(df --output=avail /dev/shm | tail -1) && ((free >= MEMORY_NEEDED)); then
    memory_folder=$(mktemp -d /dev/shm/tests.XXXXXX)
  elif [[ $(id -u) == 0 ]]; then
    memory_folder=$(mktemp -d /tmp/tests.XXXXXX)
    mount -t tmpfs -o "size=${MEMORY_NEEDED}k" tests "$memory_folder" 2>/dev/null || remove_memory_folder
  fi
  [[ $memory_folder ]]
}

# remove_memory_folder: removes the folder, if there is one.
remove_memory_folder() {
  [[ ${memory_folder:-} ]] || return 0
  umount --lazy "$memory_folder" 2>/dev/null || true # only if it was mounted
  rm -rf --one-file-system "$memory_folder"
  memory_folder=
}
