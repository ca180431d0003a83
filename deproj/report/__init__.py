"""Several runs compared on one page. Imports `deproj.measure` and the floors below it."""
