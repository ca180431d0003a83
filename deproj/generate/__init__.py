"""Pictures from the command line. Imports `deproj.pipeline` and the floors below it."""
