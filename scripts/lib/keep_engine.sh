#!/usr/bin/env bash
# Runs dockerd inside FOLDER until stdin is closed, which happens however the calling script ends. Then removes all
# of it: containers, mounts and the folder.
#
#   keep_engine.sh FOLDER < PIPE
set -u
folder=$1

# Jobs have no network here, so the engine needs neither a bridge nor firewall rules.
dockerd --host "unix://$folder/docker.sock" --data-root "$folder/data" --exec-root "$folder/exec" \
  --pidfile "$folder/docker.pid" --bridge none --iptables=false --ip6tables=false --shutdown-timeout 2 \
  >"$folder/log" 2>&1 </dev/null &
engine=$!

{
  cat >/dev/null
  # Remove the containers first: an engine that stops gives each of them ten seconds.
  docker --host "unix://$folder/docker.sock" ps --all --quiet |
    xargs --no-run-if-empty timeout 20 docker --host "unix://$folder/docker.sock" rm --force >/dev/null
  kill "$engine"
  for ((waited = 0; waited < 150; waited++)); do
    kill -0 "$engine" || exit 0
    sleep 0.1
  done
  kill -KILL "$engine"
} <&0 2>/dev/null &
watcher=$!

wait "$engine"
kill "$watcher" 2>/dev/null

# A killed engine leaves containerd and shims behind. All of them have the folder in their command lines.
for process in /proc/[0-9]*; do
  pid=${process#/proc/}
  if [[ $pid != "$$" ]] && tr '\0' ' ' <"$process/cmdline" 2>/dev/null | grep -qF -- "$folder/"; then
    kill -KILL "$pid" 2>/dev/null
  fi
done
awk -v folder="$folder/" 'index($2, folder) == 1 { print $2 }' /proc/mounts | sort -r |
  while read -r mount; do umount -l "$mount"; done
rm -rf --one-file-system "$folder"
