"""A run and sweeps of runs: settings to objects, the loop, callbacks, logs. Imports all but the commands and the report."""
