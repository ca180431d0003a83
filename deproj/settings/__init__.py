"""Config nodes to checked objects, composing, and mistakes to one line. Imports `deproj.process`."""
