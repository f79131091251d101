#!/bin/sh
# A shell script that speaks and listens through its wrapper:
#
#     natsproc run --id inside --receive -- sh examples/inside.sh
#     natsproc tail inside
#     natsproc send inside "a name"
#
# They find the wrapper by the environment that `run` gave the script. `--receive` keeps what is sent for
# `natsproc receive`; without it, messages go to the script's stdin until it asks for the first time.
set -eu
natsproc emit log "I run under $NATSPROC_ADDRESS"
for step in 1 2 3; do
    natsproc emit progress "$step/3"
    natsproc emit metric load="$(cut -d ' ' -f 1 /proc/loadavg)"
done
name=$(natsproc receive --timeout 60)
echo "hello, $name"
