"""Config nodes to checked objects, composing, mistakes in a line, `--help` from `conf/`. Imports `deproj.process`."""
