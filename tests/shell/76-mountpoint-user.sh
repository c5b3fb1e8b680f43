#!/usr/bin/env bash
# The same as an ordinary user, where fusermount3 mounts and unmounts.
AS_USER=1
# shellcheck source=72-mountpoint.sh
. "$(dirname "$0")/72-mountpoint.sh"
