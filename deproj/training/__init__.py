"""One run and many: settings to objects, the loop, its callbacks and logs. Imports all but the commands."""
