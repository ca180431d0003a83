"""How fast it is: what `deproj.bench` times, and how it is told. Imports `deproj.training` and the floors below it."""
