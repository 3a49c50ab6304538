#!/usr/bin/env bash
# run_python_test.sh FILE CLASS.METHOD: one test, in the Python that has numpy where there is one.
exec "${STEELYARD_PYTHON:-python3}" "$1" -v "$2"
