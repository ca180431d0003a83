"""Several runs compared on one page. Imports `deproj.measure` and what lies below it."""
