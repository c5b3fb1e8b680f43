#!/usr/bin/env bash
# The main story as an ordinary user, who mounts through fusermount3. Heavy.
AS_USER=1
# shellcheck source=10-main.sh
. "$(dirname "$0")/10-main.sh"
