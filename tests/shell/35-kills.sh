#!/usr/bin/env bash
# Ten of the kills of tests/soak/kills.sh: two devices at work while daemons and server are killed.
KILLS=${KILLS:-10} exec bash "$(dirname "$0")/../soak/kills.sh"
