#!/usr/bin/env bash
# All tests of the file API by scripts: the official Dropbox SDK, resumable uploads, roles apart, all routes by the document.
set -u
cd "$(dirname "$0")" || exit 1
rc=0
for script in dropbox.sh resumable.sh roles.sh schema.sh; do
    ./"$script" || rc=1
done
exit "$rc"
