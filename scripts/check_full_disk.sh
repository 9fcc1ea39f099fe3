#!/bin/sh
# Saves to a full disk: mounts a file system of 1 MiB (needs root on Linux) and runs the test that fills it.
set -eu
disk=$(mktemp -d)
mount -t tmpfs -o size=1m tmpfs "$disk"
trap 'umount "$disk"; rmdir "$disk"' EXIT
LLMKIT_SMALL_DISK=$disk cargo test -p llmkit-core --lib a_full_disk_leaves -- --ignored
